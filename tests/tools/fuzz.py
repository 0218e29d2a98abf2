"""Coverage-guided fuzzing of every reader of files, by Atheris; docs/reliability.md has what it found.

    python tests/fuzz.py READER SECONDS [FOLDER]   until so many seconds of CPU are used
    python tests/fuzz.py READER FILE               read one file again: what a crash left, say

READER is one of those below. Its inputs start from a few small files that are made here; those that
reach new code are kept in FOLDER, if there is one, and the next run starts from them. A reader may
return, or raise its own error in one line that names the file, and whatever it returns must be whole:
anything else is a crash. A zip's and a PNG's checksums are put right first, as a forger would.
"""

import gzip
import io
import json
import os
import resource
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import atheris

PACKAGES = ["minglow.storage", "minglow.data", "minglow.runs.loading", "minglow.runs.config",
            "zipfile", "gzip", "json", "numpy.lib._format_impl", "numpy.lib.format",
            "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "PIL.ImageFile", "PIL.TiffImagePlugin"]
with atheris.instrument_imports(include=PACKAGES):
    import numpy as np
    from PIL import Image

    from minglow.runs import loading
    from minglow.storage import checkpoint
    from minglow.data import bounded, load_images
    from minglow.runs.config import MODELS, build
    from minglow.storage.weights import export_safetensors

MEMORY = 800  # MB that the process may take beyond what it begins with


# ------------------------------------------------------------------------------- what is put right first


def right_zip(content: bytes) -> bytes:
    """The same members with the checksums that they should have, where the archive can be listed."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        if archive.testzip() is None or any(info.compress_type for info in archive.infolist()):
            return content
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as right:
            for info in archive.infolist():
                start = info.header_offset + 30 + sum(struct.unpack_from("<2H", content,
                                                                         info.header_offset + 26))
                right.writestr(info.filename, content[start:start + info.compress_size])
        return file.getvalue()
    except Exception:  # not to be listed: as it came
        return content


def right_png(content: bytes) -> bytes:
    """The same chunks, each with the checksum that it should have."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return content
    fixed, place = bytearray(content), 8
    while place + 12 <= len(content):
        end = place + 8 + struct.unpack_from(">I", content, place)[0]
        if end + 4 > len(content):
            break
        fixed[end:end + 4] = struct.pack(">I", zlib.crc32(content[place + 4:end]))
        place = end + 4
    return bytes(fixed)


def forged_checkpoint(content: bytes) -> bytes:
    """Of bytes that begin with F: the manifest is the next line, and the rest the parameters, in an
    archive that is right in all else. Everything else is left as it came."""
    if content[:1] != b"F":
        return right_zip(content)
    manifest, _, parameters = content[1:].partition(b"\n")
    numbers = np.frombuffer(parameters[:len(parameters) // 4 * 4], "<f4")
    try:
        about = json.loads(manifest)
        about["arrays"]["parameters"] = checkpoint.archive.description(numbers)
        manifest = json.dumps(about).encode()
    except Exception:  # no manifest at all: as it came
        pass
    file = io.BytesIO()
    np.savez(file, parameters=numbers, manifest=np.frombuffer(manifest, np.uint8))
    return file.getvalue()


# ------------------------------------------------------------------------------------------- the readers


def read_checkpoint(path: Path) -> None:
    """A checkpoint, and the flow that it describes."""
    flow, recipe = loading.load_flow(path)
    assert flow.flat.value.size < 1e6 and isinstance(recipe, dict)


def read_weights(path: Path) -> None:
    """A .safetensors file, and the flow that it describes."""
    flow, _ = loading.load_flow(path)
    assert np.isfinite(flow.flat.value).all()


def read_images(path: Path) -> None:
    """Images from a file, in any format."""
    images = load_images(path)
    for part, labels in ((images.train, images.train_labels), (images.held_out, images.held_out_labels)):
        assert part.dtype == np.uint8 and part.ndim == 4 and part.shape[3] in (1, 3) and len(part)
        assert labels is None or (labels.shape == part.shape[:1] and labels.min() >= 0)


def read_pictures(path: Path) -> None:
    """A folder of two pictures that are the same."""
    path.with_name("b.png").write_bytes(path.read_bytes())
    read_images(path.parent)


# --------------------------------------------------------------------------- small files to begin with


def flow_files(ending: str) -> list[bytes]:
    """A small flow of each model."""
    small = {"shape": [2, 2, 1], "levels": 1, "steps": 1, "hidden": 2, "permutation": "lu", "seed": 0,
             "coupling": "affine", "reversible": False, "dtype": "float32", "gray_levels": 4,
             "data": "digits", "training": {"steps": 1}}
    made = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "a" + ending)
        for model in MODELS:
            recipe = small | {"model": model}
            flow = build(recipe)
            if ending == ".npz":
                checkpoint.save(path, flow, recipe, facts={"step": 1})
                parameters = {name: list(shape) for name, (_, shape) in flow.flat.where.items()}
                about = {"format": 2, "recipe": recipe, "parameters": parameters, "arrays": {}}
                made.append(b"F" + json.dumps(about).encode() + b"\n" + flow.flat.value.tobytes())
            else:
                export_safetensors(flow, path, recipe)
            made.append(path.read_bytes())
    return made


def array_files() -> list[bytes]:
    """.npy and .npz, stored and deflated, with labels and without."""
    images, labels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.arange(3)
    made = []
    for write in (lambda file: np.save(file, images),
                  lambda file: np.save(file, np.asfortranarray(images)),
                  lambda file: np.savez(file, images=images, labels=labels),
                  lambda file: np.savez_compressed(file, a=images)):
        file = io.BytesIO()
        write(file)
        made.append(file.getvalue())
    return made


def idx_files() -> list[bytes]:
    """IDX, gz and not."""
    content = struct.pack(">4B3I", 0, 0, 8, 3, 3, 2, 2) + bytes(range(12))
    return [content, gzip.compress(content, mtime=0)]


def picture_files() -> list[bytes]:
    """PNG: gray, color, palette, transparent, one bit. JPEG: gray, color and CMYK. All have Exif."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    exif = Image.Exif()
    exif[0x0112] = 6
    made = []
    for kind, modes in (("PNG", ("L", "RGB", "P", "RGBA", "1")), ("JPEG", ("L", "RGB", "CMYK"))):
        for mode in modes:
            file = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(file, kind, exif=exif)
            made.append(file.getvalue())
    return made


def cifar_files() -> list[bytes]:
    """Two records."""
    return [bytes([3]) + bytes(3072) + bytes([9]) + bytes(range(256)) * 12]


# name: (a file's name, what reads it, files to begin with, what is put right before it is read)
READERS = {
    "checkpoint": ("model.npz", read_checkpoint, lambda: flow_files(".npz"), forged_checkpoint),
    "weights": ("model.safetensors", read_weights, lambda: flow_files(".safetensors"), bytes),
    "arrays": ("images.npz", read_images, array_files, right_zip),
    "idx": ("train-images-idx3-ubyte", read_images, idx_files, bytes),
    "cifar": ("data_batch_1.bin", read_images, cifar_files, bytes),
    "pictures": ("a.png", read_pictures, picture_files, right_png),
}


def peak() -> int:
    """The most memory, in MB, that this process has held, or the one that started it, then."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Fuzz one reader."""
    name, limit, *kept = sys.argv[1:]
    file_name, read, files, right = READERS[name]
    folder = Path(tempfile.mkdtemp())
    start = folder / "start"
    start.mkdir()
    for number, content in enumerate(files()):
        (start / str(number)).write_bytes(content)
    path = folder / "read" / file_name
    path.parent.mkdir()
    seconds = float(limit) if not Path(limit).exists() else 0.0
    tried = accepted = 0
    before = peak()

    def one_input(content: bytes) -> None:
        nonlocal tried, accepted
        tried += 1
        path.write_bytes(right(content))
        try:
            read(path)
            accepted += 1
        except (checkpoint.CheckpointError, bounded.BadFile) as error:
            message = str(error)
            assert message.startswith(str(path.parent)) and message.isprintable(), ascii(message)
        if seconds and time.process_time() > seconds:
            print(f"{name}: {tried:,} inputs, {accepted:,} of them accepted, in {seconds:.0f} s of CPU, "
                  f"{peak() - before} MB: no crash", flush=True)
            os._exit(0)

    memory = f"-rss_limit_mb={before + MEMORY}"
    flags = [memory, "-timeout=20", "-max_len=20000", "-artifact_prefix=crash-"]
    corpora = [limit] if not seconds else [*kept, str(start)]
    atheris.Setup([sys.argv[0], *flags, *corpora], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
