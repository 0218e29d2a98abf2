"""Files whose headers ask for more memory than a machine has, given to the real commands.

    python tests/runs/bombs.py       prints seconds, MB and the error for each file

Each is opened by a process of its own that has minglow loaded; the memory is what is taken beyond that.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import resource
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from minglow import Flow, glow, nice, official_glow, realnvp
from minglow.cli import main as cli
from minglow.runs.config import model_to_json
from minglow.storage import checkpoint

HUGE = 2**40


def npy(shape: object, dtype: str = "<f4", content: bytes = b"") -> bytes:
    """A .npy file with any header."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def manifest(**about: object) -> tuple[str, bytes]:
    """A checkpoint's manifest."""
    content = json.dumps({"format": 3, "config": {}, "settings": {}, "facts": {}, "arrays": {}} | about)
    return "manifest.npy", npy((len(content),), "|u1", content.encode())


def saved(flow: Flow, **changed: object) -> bytes:
    """A checkpoint of a flow, with changed entries in the configuration of the model."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "model.npz")
        checkpoint.save(path, flow, {"model": model_to_json(flow.config) | changed})
        return path.read_bytes()


def with_config(build: Callable[..., Flow] = glow, **changed: object) -> bytes:
    """A checkpoint in which only the configuration of the model is wrong."""
    return saved(build((4, 4, 1), hidden=4, rng=0), **changed)


def header_of_safetensors(length: int, header: bytes) -> bytes:
    """A .safetensors file of a header that declares this length."""
    return length.to_bytes(8, "little") + header


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, rows: bytes = b"", color: int = 2) -> bytes:
    """A PNG that declares this size; color 2 is RGB, 6 has transparency, 0 is gray."""
    header = struct.pack(">II5B", width, height, 8, color, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def idx(*shape: int, content: bytes = bytes(99)) -> bytes:
    """An IDX file of unsigned bytes."""
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + content


class Bomb(NamedTuple):
    """A file, and the command that opens it."""

    name: str
    make: Callable[[], bytes]
    command: tuple[str, ...] = ("train", "--steps", "1", "--data", "FILE")


INFO = ("info", "FILE")
LARGE = 2**27
BOMBS = {
    "checkpoint: a terabyte by its headers": Bomb("a.npz", lambda: zipped(
        manifest(arrays={"parameters": [[HUGE], "<f4", ""]}), ("parameters.npy", npy((HUGE,)))), INFO),
    "checkpoint: a size beyond all numbers": Bomb("a.npz", lambda: zipped(
        manifest(arrays={"parameters": [[1], "<f4", ""]}), ("parameters.npy", npy(f"({'9' * 4000},)"))),
        INFO),
    "checkpoint: 128 MiB deflated": Bomb("a.npz", lambda: zipped(
        manifest(), ("parameters.npy", npy((2**25,), content=bytes(LARGE))),
        compression=zipfile.ZIP_DEFLATED), INFO),
    "checkpoint: a header that nests": Bomb("a.npz", lambda: zipped(
        ("manifest.npy", npy("(" * 9000))), INFO),
    "checkpoint: a manifest that nests": Bomb("a.npz", lambda: zipped(
        ("manifest.npy", npy((10**6,), "|u1", b"[" * 10**6))), INFO),
    "checkpoint: a manifest of 64 MiB": Bomb("a.npz", lambda: zipped(
        ("manifest.npy", npy((2**26,), "|u1", b" " * 2**26))), INFO),
    "checkpoint: 100,000 members": Bomb("a.npz", lambda: zipped(
        *((f"{number}.npy", b"") for number in range(100_000))), INFO),
    **{f"configuration: {what}": Bomb("a.npz", partial(with_config, build, **changed), INFO)
       for what, (build, changed) in {
           "a billion channels of width": (glow, {"hidden": 10**9}),
           "a billion flow steps": (glow, {"flow_steps": 10**9}),
           "10^4000 flow steps": (glow, {"flow_steps": 10**4000}),
           "a billion classes": (glow, {"classes": 10**9}),
           "16 levels": (glow, {"levels": 16, "shape": [2**16, 2**16, 1]}),
           "images of a million channels": (glow, {"shape": [4, 4, 10**6]}),
           "a shape of 10^4000": (glow, {"shape": [4, 4, 10**4000]}),
           "a margin of 10^4000": (glow, {"logit": 10**4000}),
           "a shape of a million axes": (glow, {"shape": [4] * 10**6}),
           "an official Glow of a billion classes": (official_glow, {"classes": 10**9}),
           "an official Glow of a billion flow steps": (official_glow, {"flow_steps": 10**9}),
           "a RealNVP of a billion channels": (realnvp, {"hidden": 10**9}),
           "a RealNVP of 16 levels": (realnvp, {"levels": 16, "shape": [2**16, 2**16, 1]}),
           "a NICE of huge images": (nice, {"shape": [10**6, 10**6, 1]}),
           "a NICE of a billion couplings": (nice, {"couplings": 10**9, "hidden": 1}),
           "a NICE of a billion hidden layers": (nice, {"depth": 10**9, "hidden": 1}),
       }.items()},
    "images of a million pixels a side": Bomb("a.npz", lambda: saved(
        glow((2**20, 2**20, 1), 1, 1, 4, rng=0)), INFO),
    "safetensors: a header of a terabyte": Bomb("a.safetensors", lambda: header_of_safetensors(
        HUGE, b"{}"), INFO),
    "safetensors: an array of a terabyte": Bomb("a.safetensors", lambda: header_of_safetensors(
        65, b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'), INFO),
    "npy: a terabyte": Bomb("a.npy", lambda: npy((10**6, 1000, 1000), "|u1", bytes(99))),
    "npy: a negative size": Bomb("a.npy", lambda: npy((-2, -(2**40), 4), "|u1")),
    "npz: 128 MiB behind one image": Bomb("a.npz", lambda: zipped(
        ("images.npy", npy((2, 4, 4), "|u1", bytes(32 + LARGE))), compression=zipfile.ZIP_DEFLATED)),
    "npz: a terabyte, deflated": Bomb("a.npz", lambda: zipped(
        ("images.npy", npy((10**6, 1000, 1000), "|u1", bytes(10**6))),
        compression=zipfile.ZIP_DEFLATED)),
    "IDX: a terabyte": Bomb("images-idx3-ubyte", lambda: idx(10**6, 1000, 1000)),
    "IDX: 2^96 bytes": Bomb("images-idx3-ubyte", lambda: idx(2**32 - 1, 2**32 - 1, 2**32 - 1)),
    "IDX: 128 MiB behind two images": Bomb("images-idx3-ubyte.gz", lambda: gzip.compress(
        idx(2, 4, 4, content=bytes(32 + LARGE)))),
    "IDX: gz within gz": Bomb("images-idx3-ubyte.gz", lambda: gzip.compress(
        gzip.compress(bytes(LARGE)))),
    "PNG: a gigapixel": Bomb("a.png", lambda: png(40_000, 40_000)),
    "PNG: 2^62 pixels": Bomb("a.png", lambda: png(2**31 - 1, 2**31 - 1)),
    "PNG: 60 megapixels of black": Bomb("a.png", lambda: png(
        10_000, 6_000, bytes(10_001 * 6_000), 0)),
    "PNG: 60 megapixels that are not there": Bomb("a.png", lambda: png(10_000, 6_000)),
    "PNG: 4 megapixels, transparent, cut off": Bomb("a.png", lambda: png(
        2_000, 2_000, bytes(2_000 * 8_001), 6)[:-100]),
    "PNG: a text of 128 MiB": Bomb("a.png", lambda: png(8, 8)[:33] + chunk(
        b"zTXt", b"a\0\0" + zlib.compress(bytes(LARGE))) + png(8, 8)[33:]),
}


class Taken(NamedTuple):
    """What opening a file took, and what the command printed."""

    status: int
    megabytes: float  # beyond what the process held before
    seconds: float
    error: str


def take(bomb: Bomb) -> Taken:
    """Open a bomb in a process that ends with it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "files" / bomb.name
        path.parent.mkdir()
        in_a_process(lambda: path.write_bytes(bomb.make()))
        if path.suffix == ".png":  # a folder of pictures holds two or more
            path.with_name("b.png").write_bytes(path.read_bytes())
            path = path.parent
        arguments = [str(path) if word == "FILE" else word for word in bomb.command]

        def opened() -> str:
            os.chdir(folder)
            with contextlib.redirect_stderr(io.StringIO()) as stderr:
                before, start = peak(), time.perf_counter()
                status = cli.main(arguments)
                seconds = time.perf_counter() - start
            return json.dumps([status, (peak() - before) / 1000, seconds, stderr.getvalue()])

        return Taken(*json.loads(in_a_process(opened).replace(name, "...")))


def in_a_process(run: Callable[[], object]) -> str:
    """What `run` returns, as text, from a process of its own: the memory of this one does not change."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(run()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


def peak() -> int:
    """The most memory that this process has held, kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Print a table of all."""
    for name, bomb in BOMBS.items():
        taken = take(bomb)
        print(f"{name:42} {taken.megabytes:6.1f} MB {taken.seconds:6.3f} s  {taken.error.strip()}")


if __name__ == "__main__":
    main()
