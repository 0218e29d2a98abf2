"""Coverage-guided fuzzing of every reader of files, by Atheris; docs/reliability.md has the results.

    python tests/tools/fuzz.py READER SECONDS [FOLDER]   until so many seconds of CPU are used
    python tests/tools/fuzz.py READER FILE               read one file, such as one that a crash left

READER is one of those below. Its inputs begin with a few small files that are made here; FOLDER, if
given, collects the inputs that reach new code, and the next run begins with them too. A reader may
return, or raise its own error in one line that names the file, and what it returns has to be valid:
anything else is a crash. A zip's and a PNG's checksums are corrected first, as an attacker would.
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

PACKAGES = ["minglow.data", "minglow.models", "minglow.runs", "minglow.storage", "minglow.validation",
            "zipfile", "gzip", "json", "numpy.lib._format_impl", "numpy.lib.format",
            "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "PIL.ImageFile", "PIL.TiffImagePlugin"]
with atheris.instrument_imports(include=PACKAGES):
    import numpy as np
    from PIL import Image

    from minglow.data import bounded, load, load_images
    from minglow.models.base import MODELS
    from minglow.runs.config import DataConfig, RunConfig
    from minglow.runs.loading import load_run
    from minglow.storage import archive, checkpoint
    from minglow.storage.weights import export_safetensors
    from minglow.training import TrainingConfig

MEMORY = 800  # MB that the process may take beyond what it begins with


# ---------------------------------------------------------------------- what is corrected before reading


def correct_zip(content: bytes) -> bytes:
    """The same members with correct checksums, if the archive can be listed."""
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
    except Exception:  # it cannot be listed
        return content


def correct_png(content: bytes) -> bytes:
    """The same chunks with correct checksums."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return content
    fixed, start = bytearray(content), 8
    while start + 12 <= len(content):
        end = start + 8 + struct.unpack_from(">I", content, start)[0]
        if end + 4 > len(content):
            break
        fixed[end:end + 4] = struct.pack(">I", zlib.crc32(content[start + 4:end]))
        start = end + 4
    return bytes(fixed)


def forge_checkpoint(content: bytes) -> bytes:
    """A checkpoint with correct hashes, from bytes that begin with F.

    The next line is the manifest, whose "arrays" give names, shapes and dtypes; the rest is the data
    of these arrays, one after the other. Other bytes are a zip file.
    """
    if content[:1] != b"F":
        return correct_zip(content)
    manifest, _, numbers = content[1:].partition(b"\n")
    arrays = {}
    try:
        about = json.loads(manifest)
        for name, (shape, dtype, *_) in about["arrays"].items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays[name] = np.frombuffer(numbers[:size], dtype).reshape(shape)
            numbers = numbers[size:]
            about["arrays"][name] = archive.description(arrays[name])
        manifest = json.dumps(about).encode()
    except Exception:  # no manifest at all
        pass
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as forged:
        for name, array in {**arrays, "manifest": np.frombuffer(manifest, np.uint8)}.items():
            with forged.open(f"{name}.npy", "w") as member:
                np.save(member, array)
    return file.getvalue()


# ------------------------------------------------------------------------------------------- the readers


def read_run(path: Path) -> None:
    """A checkpoint or a .safetensors file, and the flow that it describes."""
    flow, _, config = load_run(path)
    assert flow.flat.value.size < 1e6 and np.isfinite(flow.flat.value).all()
    assert RunConfig.from_json(config.to_json()) == config and config.model == flow.config


def read_images(path: Path) -> None:
    """Images from a file, in any format."""
    images = load_images(path)
    for part, labels in ((images.train, images.train_labels), (images.held_out, images.held_out_labels)):
        assert part.dtype == np.uint8 and part.ndim == 4 and part.shape[3] in (1, 3) and len(part)
        assert labels is None or (labels.shape == part.shape[:1] and labels.min() >= 0)


def read_table(path: Path) -> None:
    """A table from a file of text."""
    table = load(path)
    for part in table.train, table.held_out:
        assert part.dtype == np.float64 and part.ndim == 2 and part.size and np.isfinite(part).all()
        assert len(table.columns) in (0, part.shape[1])


def read_pictures(path: Path) -> None:
    """A folder of two equal pictures."""
    path.with_name("b.png").write_bytes(path.read_bytes())
    read_images(path.parent)


# -------------------------------------------------------------------------- small files to begin with


def run_files(ending: str) -> list[bytes]:
    """A small run of each model, and one with a dequantizer that learns."""
    small = {"hidden": 2, "levels": 1, "flow_steps": 1, "permutation": "lu", "couplings": 1, "depth": 1}
    files = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "a" + ending)
        for model in MODELS:
            fields = MODELS[model].__dataclass_fields__
            options = {key: value for key, value in small.items() if key in fields}
            flow = MODELS[model]((3,) if model == "spline" else (2, 2, 1), **options).build(0)
            data = DataConfig(bins=4, dequantizer="variational" if model == "glow" else "uniform")
            if model == "spline":
                data = DataConfig(columns=("a", "b", "c"), center=(0.0,) * 3, radius=(1.0,) * 3)
            config = RunConfig(flow.config, data, TrainingConfig(steps=1))
            if ending == ".npz":
                extra = {"dequantizer": config.build_dequantizer().flat.value}
                checkpoint.save(path, flow, config.to_json(), extra, {"step": 1})
                arrays, about = archive.read(path)
                about["arrays"] = {key: archive.description(array)[:2] for key, array in arrays.items()}
                numbers = b"".join(array.tobytes() for array in arrays.values())
                files.append(b"F" + json.dumps(about).encode() + b"\n" + numbers)
            else:
                export_safetensors(path, flow, config.to_json())
            files.append(path.read_bytes())
    return files


def array_files() -> list[bytes]:
    """.npy and .npz, stored and deflated, with labels and without."""
    images, labels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.arange(3)
    files = []
    for write in (lambda file: np.save(file, images),
                  lambda file: np.save(file, np.asfortranarray(images)),
                  lambda file: np.savez(file, images=images, labels=labels),
                  lambda file: np.savez_compressed(file, a=images)):
        file = io.BytesIO()
        write(file)
        files.append(file.getvalue())
    return files


def table_files() -> list[bytes]:
    """Numbers between commas, semicolons, tabs or spaces, with a header and without."""
    return [b"a,b\n1,2.5\n-3,4e3\n5,6\n", b"1;2\n3;4\n", b"1\t2\r\n3\t4\r\n", b"1 2\n3 4\n",
            b'\xef\xbb\xbf"a b","c"\n1,2\n3,4\n\n']


def idx_files() -> list[bytes]:
    """IDX, gz and not."""
    content = struct.pack(">4B3I", 0, 0, 8, 3, 3, 2, 2) + bytes(range(12))
    return [content, gzip.compress(content, mtime=0)]


def picture_files() -> list[bytes]:
    """PNG: gray, color, palette, transparent, one bit. JPEG: gray, color and CMYK. All have Exif."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for kind, modes in (("PNG", ("L", "RGB", "P", "RGBA", "1")), ("JPEG", ("L", "RGB", "CMYK"))):
        for mode in modes:
            file = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(file, kind, exif=exif)
            files.append(file.getvalue())
    return files


def cifar_files() -> list[bytes]:
    """Two records."""
    return [bytes([3]) + bytes(3072) + bytes([9]) + bytes(range(256)) * 12]


# name: (a file's name, its reader, files to begin with, a correction before reading)
READERS = {
    "checkpoint": ("model.npz", read_run, lambda: run_files(".npz"), forge_checkpoint),
    "weights": ("model.safetensors", read_run, lambda: run_files(".safetensors"), bytes),
    "arrays": ("images.npz", read_images, array_files, correct_zip),
    "table": ("table.csv", read_table, table_files, bytes),
    "idx": ("train-images-idx3-ubyte", read_images, idx_files, bytes),
    "cifar": ("data_batch_1.bin", read_images, cifar_files, bytes),
    "pictures": ("a.png", read_pictures, picture_files, correct_png),
}


def peak() -> int:
    """The most memory, in MB, that this process or, at its start, its parent has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Fuzz one reader."""
    name, limit, *folders = sys.argv[1:]
    file_name, read, files, correct = READERS[name]
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
        path.write_bytes(correct(content))
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
    corpora = [limit] if not seconds else [*folders, str(start)]
    atheris.Setup([sys.argv[0], *flags, *corpora], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
