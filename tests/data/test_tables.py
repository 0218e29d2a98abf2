"""Tables of real numbers: their files, the split, the checks, and the noise for rounded columns."""

import csv
import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from minglow import data
from minglow.data import readers
from minglow.data.bounded import BadFile
from minglow.data.delimited import read_csv

NAN, INF = float("nan"), float("inf")
X = np.random.default_rng(0).standard_normal((40, 3)).round(3)
Y = np.random.default_rng(1).standard_normal((200, 2))


def changed(x, row, column, value):
    x = x.copy()
    x[row, column] = value
    return x


def text(x=X, header="", delimiter=",", end="\n", quote=csv.QUOTE_MINIMAL):
    """The rows of a table as text, with the cells of Python's repr."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quote)
    writer.writerows(([header.split("|")] if header else []) + x.tolist())
    return file.getvalue()


def refused(path, expected, most=2**20, read=data.load, **options):
    """Reading is a BadFile of one line that names the file, and takes no more memory than `most`."""
    tracemalloc.start()
    try:
        with pytest.raises(BadFile, match=expected) as caught:
            read(path, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).isprintable()
    assert peak < most, f"{peak:,} bytes"


def same_rows(table, x):
    """Both parts together are the rows of x, in its order, each once."""
    assert len(table.train) + len(table.held_out) == len(x) and len(table.held_out) == len(x) // 10
    rows = {row.tobytes(): i for i, row in enumerate(x)}
    assert len(rows) == len(x)
    train, held_out = ([rows[row.tobytes()] for row in part] for part in (table.train, table.held_out))
    assert sorted(train + held_out) == list(range(len(x)))
    assert train == sorted(train) and held_out == sorted(held_out)
    return np.array(train), np.array(held_out)


# ------------------------------------------------------------------------------------------ text files


@pytest.mark.parametrize("header", ["", "a|b|c", "carat, cut|größe|b\nc", "|x|", "1|2|z"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_file_is_read_exactly(tmp_path, header, delimiter, end):
    path = tmp_path / "a.csv"
    for quote in {csv.QUOTE_ALL, csv.QUOTE_ALL if "\n" in header else csv.QUOTE_MINIMAL}:
        for bom in b"", b"\xef\xbb\xbf":
            for tail in "", end, 2 * end + "  " + end:
                content = text(X, header, delimiter, end, quote).removesuffix(end) + tail
                path.write_bytes(bom + content.encode())
                x, columns, first = read_csv(path)
                np.testing.assert_array_equal(x, X)
                assert x.dtype == np.float64
                assert columns == (tuple(header.replace("\n", " ").split("|")) if header else ())
                assert first == 1 + bool(header) + header.count("\n")


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.tsv", "a.txt"])
def test_a_text_file_is_loaded_by_its_ending(tmp_path, name):
    (tmp_path / name).write_text(text(X, "a|b|c"))
    table = data.load(tmp_path / name)
    assert isinstance(table, data.Table) and table.columns == ("a", "b", "c")
    assert table.bins is None and table.shift == 0.0 and table.train_labels is None
    same_rows(table, X)
    again = data.load(str(tmp_path / name), held_out=0.5)
    assert len(again.held_out) == 20 and {*map(bytes, table.held_out)} != {*map(bytes, again.held_out)}
    data.check_table(table, (3,))


def test_numbers_have_all_usual_forms(tmp_path):
    (tmp_path / "a.csv").write_text('1,-2.5e3, "+3."\n.5,1E-300,1e154\n 7 ,"8",-0\n')
    x, _, _ = read_csv(tmp_path / "a.csv")
    assert x.tolist() == [[1, -2500, 3], [.5, 1e-300, 1e154], [7, 8, 0]]


@pytest.mark.parametrize(("header", "delimiter", "columns"), [
    ('"a;b",c', ",", ("a;b", "c")), ('"a\tb";"c,d"', ";", ("a\tb", "c,d")),
    ("a;b\tc,d", "\t", ("a;b", "c,d"))])
def test_the_first_line_decides_on_the_delimiter(tmp_path, header, delimiter, columns):
    (tmp_path / "a.csv").write_text(f"{header}\n" + text(X[:, :2], delimiter=delimiter))
    x, names, _ = read_csv(tmp_path / "a.csv")
    np.testing.assert_array_equal(x, X[:, :2])
    assert names == tuple(" ".join(name.split()) for name in columns)


def test_one_column_and_many_columns(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n2\n3\n\n")
    assert read_csv(tmp_path / "a.csv")[0].tolist() == [[1], [2], [3]]
    wide = np.arange(3e5).reshape(3, 100_000) % 7
    (tmp_path / "a.csv").write_text(text(wide.astype(int)))
    np.testing.assert_array_equal(read_csv(tmp_path / "a.csv")[0], wide)


ROWS = "1,2,3\n4,5,6\n"
ENOUGH = "expected at least 3 rows, two to train on and one held out"
MISSING = "missing value: remove the row, or fill it in$"
BAD_TEXT = {
    "text": ("a,cut,b\n" + ROWS + "7,Ideal,9\n", "line 4, column cut: 'Ideal' is not a number: "
             "remove the column, or encode it as numbers"),
    "text without names": ("1,2,3\n4,5,six\n", "line 2, column 3: 'six' is not a number"),
    "text in each row": ("1,Good\n2,Ideal\n", "line 2, column Good: 'Ideal' is not a number"),
    "unnamed": (",a\n1,2\nx,3\n", "line 3, column 1: 'x' is not a number"),
    "underscore": (ROWS + "1,1_000,2", "line 3, column 2: '1_000' is not a number"),
    "long text": (ROWS + "1,2," + "x" * 10**5, r"line 3, column 3: 'xxx.{1,30}xxx' is not a number"),
    "decimal comma": ("a;b\n1,5;2,5\n", "line 2, column a: '1,5' is .*: write decimals with a point"),
    "spaces": ("1.5 2.5\n2.5 3.5\n", "line 2, column 1.5 2.5: .*: separate the cells by commas"),
    "empty": (ROWS + "7,,9\n", f"line 3, column 2: {MISSING}"),
    "empty at first": ("1,,3\n" + ROWS, f"line 1, column 2: {MISSING}"),
    "empty row": ("a,b,c\n" + ROWS + ",,\n", f"line 4, column a: {MISSING}"),
    "NA": ("a,b,c\n" + ROWS + "7, NA ,9\n", f"line 4, column b: {MISSING}"),
    "nan": (ROWS + "7,8,nan\n", f"line 3, column 3: {MISSING}"),
    "nan before text": (ROWS + "7,nan,x\n", f"line 3, column 2: {MISSING}"),
    "inf": ("a,b,c\n" + ROWS + "7,8,-inf\n", "line 4, column c: -inf is not finite"),
    "1e300": ("a,b,c\n" + ROWS + "7,8,-1e300\n", r"line 4, column c: -1e\+300 is too large: rescale the "
              "column$"),
    "1e999": (ROWS + "7,8,1e999\n", "line 3, column 3: inf is not finite"),
    "longer": (ROWS + "7,8,9,10\n", "line 3: expected 3 cells as in line 1, got 4"),
    "shorter": ("a,b,c\n" + ROWS + "7,8\n", "line 4: expected 3 cells as in line 1, got 2"),
    "header": ("a,b\n" + ROWS, "line 2: expected 2 cells as in line 1, got 3"),
    "blank": (ROWS + "\n  \n" + ROWS, "line 3: expected a row of numbers, got a blank line"),
    "blank at first": ("\n" + ROWS, "line 1: expected a row of numbers, got a blank line"),
    "only blanks": (" \n\n", "expected rows of numbers, got blank lines"),
    "only a mark": ("\ufeff", "expected rows of numbers, got blank lines"),
    "only a header": ("a,b,c\n", f"{ENOUGH}, got 0 below the header$"),
    "one row": ("1,2,3\n\n", f"{ENOUGH}, got 1$"),
    "two rows": (ROWS, f"{ENOUGH}, got 2$"),
    "two rows below": ("a,b,c\n" + ROWS, f"{ENOUGH}, got 2 below the header$"),
    "constant": ("a,year,c\n1,2020,3\n4,2020,6\n7,2020,9\n",
                 "column year is constant, 2020 in all rows: remove it"),
    "break": (ROWS + '1,"2\n",3\n', "line 3: expected one row a line, got a line break in a cell"),
    "break at first": ('1,"2\n",3\n' + ROWS, "line 1: expected one row a line, got a line break"),
    "quote": (ROWS + '1,"2"3,4\n', "line 3: .* expected after"),
    "open quote": (ROWS + '1,"2,3\n', "line 3: unexpected end of data"),
    "name": ('"a\nb\x1b[1m",c\n1,2\nx,3\n', r"line 4, column a b\\x1b\[1m: 'x' is not a number"),
    "zero byte": (ROWS + "1,2\0,3\n", "line 3: expected text, got a zero byte"),
    "Latin-1": ("größe,b\n1,2\n3,4\n".encode("latin-1"), "expected text in UTF-8, got another encoding"),
    "UTF-16": (ROWS.encode("utf-16"), "expected text in UTF-8, got another encoding"),
    "UTF-16 without a mark": (ROWS.encode("utf-16-le"), "line 1: expected text, got a zero byte"),
    "binary": (bytes(range(256)) * 9, "expected text in UTF-8, got another encoding or a binary file"),
    "noise": (np.random.default_rng(0).bytes(999), "expected text in UTF-8"),
    "a zip file": (b"PK\x03\x04\x14\x00\x00\x00", "line 1: expected text, got a zero byte"),
    "a pickle": (b"\x80\x04\x95more", "expected text in UTF-8"),
    "a cell": (ROWS + "1," + "2" * 200_000, "line 3: field larger than field limit"),
    "a quote of many lines": (ROWS + '1,"' + "2\n" * 10**5, "field larger than field limit"),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_a_text_file_that_is_no_table_gets_one_line(tmp_path, name):
    content, message = BAD_TEXT[name]
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(path, message)
    refused(path, message, read=read_csv)


def test_a_long_line_is_refused_before_it_is_read(tmp_path):
    for content in "1" * 10**7, "1," * (5 * 10**6), ROWS + "4,5," + "6" * 10**7:
        (tmp_path / "a.csv").write_text(content)
        line = 1 + content.count("\n")
        refused(tmp_path / "a.csv", f"line {line}: expected at most 1,048,576 characters", 2**23)


def test_memory_is_bounded_by_the_size_of_the_file(tmp_path):
    rows = "1,2,3,4\n" * 50_000 + "5,6,7,8\n"
    (tmp_path / "a.csv").write_text(rows)
    tracemalloc.start()
    try:
        assert read_csv(tmp_path / "a.csv")[0].shape == (50_001, 4)
        assert tracemalloc.get_traced_memory()[1] < 16 * len(rows)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seed", range(20))
def test_damaged_text_is_read_or_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path, whole = tmp_path / "a.csv", text(X[:5], "a|b|c", quote=csv.QUOTE_ALL).encode()
    outcomes = []
    for _ in range(50):
        content = bytearray(whole)
        for i in rng.integers(len(content), size=2):
            content[i] = rng.choice([*b'0159.,;"\r\n\t e-+_', 0, 200, 255])
        path.write_bytes(content)
        try:
            x, columns, _ = read_csv(path)
            outcomes.append(True)
            assert np.isfinite(x).all() and len(columns) in (0, x.shape[1])
        except BadFile as error:
            outcomes.append(False)
            message = str(error).removeprefix(f"{path}: ")
            assert message[:4] in ("line", "expe") and message.isprintable()
    assert {*outcomes} == {True, False}


# -------------------------------------------------------------------------------------- .npy and .npz


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", ">f8"])
def test_float_arrays_are_tables(tmp_path, dtype):
    x = X.astype(dtype)
    native = x.astype(x.dtype.newbyteorder("="))
    np.save(tmp_path / "a.npy", np.asfortranarray(x))
    np.savez(tmp_path / "b.npz", x)
    np.savez_compressed(tmp_path / "c.npz", other=X[:, 0], x=x)
    np.savez(tmp_path / "d.npz", X=x, y=X)
    np.savez(tmp_path / "e.npz", data=x, y=X, labels=np.arange(40, dtype=np.uint8))
    for path in sorted(tmp_path.iterdir()):
        table = data.load(path)
        assert isinstance(table, data.Table) and table.columns == ()
        assert table.train.dtype == table.held_out.dtype == native.dtype and table.train.dtype.isnative
        train, held_out = same_rows(table, native)
        if path.name == "e.npz":
            assert table.train_labels.tolist() == train.tolist()
            assert table.held_out_labels.tolist() == held_out.tolist()
            assert table.train_labels.dtype == np.int64
        else:
            assert table.train_labels is None and table.held_out_labels is None
        data.check_table(table)
        with pytest.raises(BadFile, match="expected images, got a table of real numbers"):
            data.load_images(path)


def test_a_vector_is_one_column(tmp_path):
    np.save(tmp_path / "a.npy", X[:, 0])
    np.testing.assert_array_equal(np.sort(np.concatenate(data.load(tmp_path / "a.npy")[:2]), axis=0),
                                  np.sort(X[:, :1], axis=0))


@pytest.mark.parametrize("names", [("train", "test"), ("x_train", "x_test")])
def test_a_file_may_hold_its_own_split(tmp_path, names):
    path = tmp_path / "a.npz"
    np.savez(path, **dict(zip(names, (X[:30], X[30:]))), y_train=np.arange(30))
    table = data.load(path)
    np.testing.assert_array_equal(table.train, X[:30])
    np.testing.assert_array_equal(table.held_out, X[30:])
    with pytest.raises(ValueError, match=r"expected held_out for a table, got it for .*a.npz, which"):
        data.load(path, held_out=0.2)
    for arrays, message in (
            ((X, X[:, :2]), f"expected '{names[1]}' to have the 3 columns of '{names[0]}', got 2"),
            ((X, X[:2] * [1, NAN, 1]), f"{names[1]}, row 1, column 2: missing value"),
            ((X * [1, 0, 1], X), "column 2 is constant, -?0 in all rows"),
            ((X, np.zeros((5, 4, 4), np.uint8)), r"float64 table \(N, D\), got uint8 \(5, 4, 4\)")):
        np.savez(path, **dict(zip(names, arrays)))
        refused(path, message)
    np.savez(path, **dict(zip(names, (X, X))), images=np.zeros((5, 4, 4), np.uint8))
    assert data.load(path).bins == 256
    np.savez(path, **dict(zip(names, (X, X))), labels=np.arange(40))
    refused(path, "expected labels beside one array")


PASTE = r"; save a table by np.save\('table.npy', x.astype\(float\)\)$"
BAD_ARRAYS = {
    "integers": (X.astype(int), r"a float table \(N, D\), got int64 \(40, 3\)" + PASTE),
    "bytes": (X.astype(np.uint8), r"got uint8 \(40, 3\)" + PASTE),
    "a vector of integers": (np.arange(5), r"got int64 \(5,\)" + PASTE),
    "truth values": (X > 0, r"got bool \(40, 3\)" + PASTE),
    "half": (X.astype(np.float16), "expected a float32 or float64 table .*, got float16"),
    "complex": (X.astype(complex), r"got complex128 \(40, 3\)$"),
    "text": (np.array([["a", "b"]]), "got <U1"),
    "images": (X.reshape(10, 4, 3), r"got float64 \(10, 4, 3\)$"),
    "a number": (np.array(3.0), r"got float64 \(\)$"),
    "one row": (X[:1], r"expected at least 2 rows of numbers, got an array \(1, 3\)"),
    "two rows": (X[:2], ENOUGH + r", got an array \(2, 3\)$"),
    "1e300": (X + [0, 1e300, 0], r"row 1, column 2: 1e\+300 is too large: rescale the column$"),
    "no columns": (X[:, :0], "expected at least 2 rows of numbers"),
    "nan": (np.r_[X, [[0, 0, NAN]]], f"row 41, column 3: {MISSING}"),
    "inf": (np.r_[X[:6], [[0, -INF, NAN]]].astype(np.float32), "row 7, column 2: -inf is not finite"),
    "constant": (X * [1, 0, 1] + 2.5, "column 2 is constant, 2.5 in all rows: remove it"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_are_no_table_get_one_line(tmp_path, name):
    array, message = BAD_ARRAYS[name]
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", message)
    np.savez(tmp_path / "b.npz", array)
    refused(tmp_path / "b.npz", message)


def test_a_header_that_lies_takes_no_memory(tmp_path):
    def content(shape):
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": shape})
        return file.getvalue() + X.tobytes()

    for shape, message in (((10**9, 1000), "8,000,000,000,000 bytes of data by its header"),
                           ((2**40, 2**40, 0), "got float64"), ((2**40, 0), "at least 2 rows"),
                           ((-40, -3), "at least 2 rows"), ((39, 3), "got more")):
        (tmp_path / "a.npy").write_bytes(content(shape))
        refused(tmp_path / "a.npy", message)
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
            archive.writestr("x.npy", content(shape))
        refused(tmp_path / "b.npz", message)


@pytest.mark.parametrize(("labels", "message"), [
    (np.arange(39), r"expected integer labels \(40,\), got int64 \(39,\)"),
    (np.arange(40) - 1, "expected labels from 0 to 39, got -1 for index 0"),
    (np.arange(40.0), "got float64")])
def test_labels_that_do_not_fit_a_table_are_refused(tmp_path, labels, message):
    np.savez(tmp_path / "a.npz", x=X, labels=labels)
    refused(tmp_path / "a.npz", message)


# --------------------------------------------------------------------------------------- names, options


@pytest.mark.parametrize(("name", "points"), data.TOYS.items())
def test_toys_are_tables_by_name(name, points):
    table = data.load(name)
    assert table.train.shape == (20_000, 2) and table.held_out.shape == (5_000, 2)
    assert table.columns == ("x1", "x2") and table.train.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate(table[:2]), points(25_000, 0))
    assert np.any(data.toy(name, rng=1).train != table.train)
    data.check_table(table, (2,))
    assert not data.rounding_steps(table.train).any()


def test_options_of_images_and_of_tables_are_kept_apart(tmp_path):
    table, images = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(table, X)
    np.save(images, np.zeros((20, 4, 4), np.uint8))
    for name in table, "moons":
        for options in {"bins": 256}, {"bits": 8}, {"bits": 5}:
            with pytest.raises(ValueError, match=r"expected bins, .* for images, got one for "):
                data.load(name, **options)
        for options in {"size": 4}, {"grayscale": True}:
            with pytest.raises(ValueError, match=r"size (and|or) grayscale"):
                data.load(name, **options)
    for name in images, "digits", "moons":
        with pytest.raises(ValueError, match=f"expected held_out for a table, got it for {name}"):
            data.load(name, held_out=0.1)
    for wrong in 0, 1, -0.5, NAN, "1", True:
        with pytest.raises(ValueError, match="expected held_out to be a number above 0 and below 1"):
            data.load(table, held_out=wrong)
    with pytest.raises(ValueError, match=r"expected one of moons, pinwheel, .*, got 'spiral'"):
        data.toy("spiral")
    with pytest.raises(ValueError, match=r"no such file or folder; data sets are digits, .*, moons, "):
        data.load("spiral")


def test_a_format_of_tables_is_one_row(tmp_path, monkeypatch):
    unsplit = data.Table(X, X[:0], ("a", "b", "c"), train_labels=np.arange(40), train_context=X)
    row = readers.Reader(".tab", lambda path, head: path.suffix == ".tab", lambda path: unsplit)
    monkeypatch.setattr(readers, "READERS", [row, *readers.READERS])
    (tmp_path / "a.tab").write_bytes(b"anything")
    table = data.load(tmp_path / "a.tab", held_out=0.25)
    assert len(table.held_out) == 10 and data.formats().startswith(".tab, .csv, ")
    np.testing.assert_array_equal(table.held_out, X[table.held_out_labels])
    np.testing.assert_array_equal(table.train_context, table.train)


# --------------------------------------------------------------------------------------------- the split


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_split_is_complete_disjoint_and_reproducible(dtype):
    x, labels = Y.astype(dtype), np.arange(200)
    before = x.copy()
    table = data.split(x, labels=labels, context=Y, columns=("a", "b"))
    train, held_out = same_rows(table, x)
    assert table.train_labels.tolist() == train.tolist()
    assert table.held_out_labels.tolist() == held_out.tolist()
    np.testing.assert_array_equal(table.train_context, Y[train])
    np.testing.assert_array_equal(table.held_out_context, Y[held_out])
    assert table.columns == ("a", "b") and table.train.dtype == table.held_out.dtype == dtype
    np.testing.assert_array_equal(data.split(x).held_out, table.held_out)
    np.testing.assert_array_equal(data.split(x, rng=np.random.default_rng(0)).train, table.train)
    assert np.any(data.split(x, rng=1).held_out != table.held_out)
    np.testing.assert_array_equal(x, before)
    table.train[:] = 0  # the parts are copies
    np.testing.assert_array_equal(x, before)


def test_each_row_is_held_out_equally_often():
    counts = sum(np.bincount(data.split(Y, 0.3, rng=seed, labels=np.arange(200)).held_out_labels,
                             minlength=200) for seed in range(400))
    assert counts.sum() == 400 * 60
    assert np.abs(counts - 120).max() < 5 * np.sqrt(400 * 0.3 * 0.7)


@pytest.mark.parametrize(("rows", "fraction", "expected"), [
    (3, 0.001, 1), (3, 0.999, 1), (10, 0.999, 8), (10, 0.25, 2), (200, 0.001, 1), (200, 0.5, 100)])
def test_both_parts_have_enough_rows(rows, fraction, expected):
    table = data.split(Y[:rows], fraction)
    assert (len(table.train), len(table.held_out)) == (rows - expected, expected)


def masked(x):
    return np.ma.masked_greater(x, 1.0)


class Frame:
    """Data of another library, which NumPy can convert, with a text of many lines."""

    def __array__(self, dtype=None, copy=None):
        return np.array(Y, dtype)

    def __repr__(self):
        return "a\nb\nc"


AS_FLOAT = r"float32 or float64 samples .*, got "
BAD_SPLITS = {
    "one row": (Y[:1], {}, f"{ENOUGH.replace('expected', 'expected x of')}, got 1$"),
    "two rows": (Y[:2], {}, f"{ENOUGH.replace('expected', 'expected x of')}, got 2$"),
    "no columns": (Y[:, :0], {}, AS_FLOAT + r"float64 \(200, 0\)$"),
    "a vector": (Y[:, 0], {}, AS_FLOAT + r"float64 \(200,\): x\[:, None\] makes it one column$"),
    "integers": (Y.astype(int), {}, AS_FLOAT + r"int64 \(200, 2\): x.astype\(float\) converts it$"),
    "truth values": (Y > 0, {}, AS_FLOAT + r"bool \(200, 2\): x.astype\(float\) converts it$"),
    "half": (Y.astype(np.float16), {}, AS_FLOAT + r"float16 .*: x.astype\(float\) converts it$"),
    "a vector of integers": (np.arange(9), {}, r": x.astype\(float\)\[:, None\] makes it one column$"),
    "three axes": (Y.reshape(2, 50, 4), {}, AS_FLOAT + r"float64 \(2, 50, 4\)$"),
    "three axes of integers": (np.ones((2, 5, 4), int), {}, AS_FLOAT + r"int64 \(2, 5, 4\)$"),
    "texts": (np.full((9, 2), "a"), {}, AS_FLOAT + r"<U1 \(9, 2\)$"),
    "a list": (Y.tolist(), {}, r"x to be an array, got a list: np.array\(x, float\) makes one$"),
    "a tuple": (tuple(Y), {}, r"x to be an array, got a tuple: np.array\(x, float\) makes one$"),
    "a frame": (Frame(), {}, r"x to be an array, got a Frame: np.array\(x, float\) makes one$"),
    "a number": (3, {}, "expected x to be an array, got 3$"),
    "masked": (masked(Y), {}, "got a masked array: fill or remove masked values$"),
    "none held out": (Y, {"held_out": 0}, "held_out to be a number above 0"),
    "all held out": (Y, {"held_out": 1.0}, "held_out to be a number above 0"),
    "text held out": (Y, {"held_out": "a"}, "held_out to be a number above 0"),
    "label rows": (Y, {"labels": np.arange(199)}, r"labels of 200 rows, got an array \(199,\)"),
    "one label": (Y, {"labels": np.array(3)}, r"labels of 200 rows, got an array \(\)"),
    "label floats": (Y, {"labels": np.arange(200.0)}, r"labels to be integers .* got float64 \(200,\)"),
    "label columns": (Y, {"labels": np.ones((200, 1), int)}, "labels to be integers"),
    "negative labels": (Y, {"labels": np.arange(200) - 1}, "labels to be integers .* of at least 0"),
    "label list": (Y, {"labels": [0] * 200}, r"got a list: np.array\(labels, int\) makes one$"),
    "masked labels": (Y, {"labels": masked(np.arange(200))}, "labels .*got a masked array"),
    "context rows": (Y, {"context": Y[:5]}, r"context of 200 rows, got an array \(5, 2\)"),
    "a number as context": (Y, {"context": 3}, "expected context to be an array, got 3"),
    "context vector": (Y, {"context": Y[:, 0]}, r"context\[:, None\] makes it one column$"),
    "context integers": (Y, {"context": Y.astype(int)}, r": context.astype\(float\) converts it$"),
    "context list": (Y, {"context": Y.tolist()}, r"a list: np.array\(context, float\) makes one$"),
    "context nan": (Y, {"context": changed(Y, 3, 1, NAN)},
                    f"context, row 4, column 2: {MISSING}"),
    "context inf": (Y, {"context": changed(Y, 0, 0, INF)}, "row 1, column 1: inf is not finite"),
    "context 1e300": (Y, {"context": changed(Y, 0, 1, 1e300)}, r"row 1, column 2: 1e\+300 is too large"),
    "masked context": (Y, {"context": masked(Y)}, "context .*got a masked array"),
}


@pytest.mark.parametrize("name", BAD_SPLITS)
def test_a_wrong_split_gets_one_line(name):
    x, options, message = BAD_SPLITS[name]
    with pytest.raises(ValueError, match=message) as caught:
        data.split(x, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 150


def test_the_advice_of_errors_is_right():
    """What the messages tell to do is what makes the array a table."""
    integers = np.arange(40).reshape(20, 2) ** 2
    for x, cured in ((integers, integers.astype(float)), (Y[:, 0], Y[:, 0][:, None]),
                     (integers[:, 0], integers[:, 0].astype(float)[:, None]),
                     (Y.tolist(), np.array(Y.tolist(), float))):
        with pytest.raises(ValueError) as caught:
            data.split(x)
        advice = str(caught.value).split(": ")[-1].split(" ")
        expression = " ".join(advice[:advice.index("makes" if "makes" in advice else "converts")])
        np.testing.assert_array_equal(eval(expression, {"x": x, "np": np, "float": float}), cured)
        data.check_table(data.split(cured), dtype=np.float64)


# -------------------------------------------------------------------------------------------- the checks


def table(**parts):
    return data.split(Y, columns=("a", "year"))._replace(**parts)


TRAIN, HELD_OUT = table().train, table().held_out
YEARS = TRAIN * [1, 3] + [0, 2e9]
CONTEXT = {"train_context": TRAIN, "held_out_context": HELD_OUT}
LABELS = {"train_labels": np.arange(180), "held_out_labels": np.arange(20)}
BAD_TABLES = {
    "no table": (Y, "expected table to be a Table, got a ndarray"),
    "no array": (table(train=TRAIN.tolist()), "expected train to be an array"),
    "one row": (table(train=TRAIN[:1]), r"N of at least 2, got float64 \(1, 2\)"),
    "integers": (table(train=TRAIN.astype(int)), "expected train to be float32 or float64 samples"),
    "half": (table(held_out=HELD_OUT.astype(np.float16)), "expected held_out to be float32 or float64"),
    "a vector": (table(train=TRAIN[:, 0]), r"got float64 \(180,\)"),
    "nothing held out": (table(held_out=HELD_OUT[:0]), r"expected held_out .*got float64 \(0, 2\)"),
    "other width": (table(held_out=HELD_OUT[:, :1]), "expected 2 columns in held_out, got 1"),
    "names": (table(columns=("a",)), "expected 2 names of columns, got 1"),
    "nan": (table(train=changed(TRAIN, 4, 1, NAN)), "train, row 5, column year: missing value"),
    "inf": (table(held_out=changed(HELD_OUT, 0, 0, -INF)), "held_out, row 1, column a: -inf is not"),
    "range": (table(train=changed(TRAIN, 6, 1, 1e150)), "train, row 7, column year: float32 cannot hold "
              r"1e\+150: rescale the column, or use dtype float64"),
    "range held out": (table(held_out=changed(HELD_OUT, 6, 1, -1e39), columns=()),
                       r"held_out, row 7, column 2: float32 cannot hold -1e\+39"),
    "too large": (table(train=changed(TRAIN, 6, 1, -1e300)),
                  r"train, row 7, column year: -1e\+300 is too large: rescale the column$"),
    "constant": (table(train=TRAIN * [1, 0] + [0, 2020]), "column year is constant, 2020 in all rows"),
    "all zero": (table(train=TRAIN * [0, 1]), "column a is constant, -?0 in all rows"),
    "mean": (table(train=YEARS), r"column year has mean 2e\+09 and standard deviation [\d.]*: float32 "
             "cannot distinguish its values: subtract its mean, or use dtype float64"),
    "tiny": (table(train=TRAIN * [1, 1e-60]), r"column year has standard deviation .*e-6\d, too small "
             "for float32: multiply it by a constant, or use dtype float64"),
    "dependent": (table(train=TRAIN[:, [0, 0]] * [1, -3] + [0, 7]),
                  "columns a and year depend on each other linearly: remove one$"),
    "context of one": (table(train_context=TRAIN), "expected context of both parts or of none"),
    "labels of one": (table(held_out_labels=np.arange(20)), "expected labels of both parts or of none"),
    "context rows": (table(**CONTEXT | {"train_context": TRAIN[:9]}), "expected train_context of 180"),
    "context width": (table(**CONTEXT | {"held_out_context": HELD_OUT[:, :1]}), "2 columns in held_out"),
    "context nan": (table(**CONTEXT | {"held_out_context": changed(HELD_OUT, 1, 1, NAN)}),
                    "held_out_context, row 2, column 2: missing value"),
    "context integers": (table(**CONTEXT | {"train_context": np.zeros((180, 2), int)}),
                         "expected train_context to be float32 or float64 samples"),
    "label rows": (table(**LABELS | {"held_out_labels": np.arange(21)}), "held_out_labels of 20 rows"),
    "label floats": (table(**LABELS | {"train_labels": np.arange(180.0)}), "labels to be integers"),
    "negative labels": (table(**LABELS | {"train_labels": np.arange(180) - 1}), "of at least 0"),
    "label columns": (table(**LABELS | {"train_labels": np.zeros((180, 1), int)}), r"got int64 \(180,"),
    "label texts": (table(**LABELS | {"train_labels": np.full(180, "a")}), "labels to be integers"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_wrong_table_gets_one_line(name):
    value, message = BAD_TABLES[name]
    with pytest.raises(ValueError, match=message) as caught:
        data.check_table(value)
    assert "\n" not in str(caught.value)


def test_right_tables_pass():
    for right in (table(), table(**CONTEXT), table(**LABELS), table(columns=()),
                  table(train=TRAIN.astype(np.float32)), table(train=TRAIN[:2], held_out=HELD_OUT[:1]),
                  table(train=TRAIN + [0, 1e5]),
                  table(train=TRAIN * [1e-30, 1e30])):
        data.check_table(right, (2,))
    with pytest.raises(ValueError, match="float32 cannot distinguish"):
        data.check_table(table(train=TRAIN + [0, 2e5]))
    with pytest.raises(ValueError, match=r"of the model's shape \(3,\), got \(2,\)"):
        data.check_table(table(), (3,))


def test_float64_holds_what_float32_does_not():
    for name in "range", "range held out", "mean", "tiny":
        data.check_table(BAD_TABLES[name][0], dtype=np.float64)
    largest = np.abs(TRAIN).max()  # up to 1.34e154, squares are finite
    data.check_table(table(train=TRAIN / largest * 1.34e154), dtype="float64")
    with pytest.raises(ValueError, match=r"e\+154 is too large: rescale the column$"):
        data.check_table(table(train=TRAIN / largest * 1.35e154), dtype="float64")
    with pytest.raises(ValueError, match=r"float64 cannot distinguish its values: subtract its mean$"):
        data.check_table(table(train=TRAIN + [0, 2e14]), dtype=np.float64)


def independent(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


DEPENDENT = {  # columns of 500 rows, their names, and the columns that the error names
    "a copy": (lambda x: np.c_[x, x[:, 1]], "2 and 4"),
    "another unit": (lambda x: np.c_[x, 1e-9 * x[:, 1] - 3e-9], "2 and 4"),
    "a sum": (lambda x: np.c_[x[:, 0], x[:, 0] + x[:, 2], x[:, 1], x[:, 2]], "1, 2 and 4"),
    "a small part": (lambda x: np.c_[x, x[:, 0] + 1e-3 * x[:, 2]], "1, 3 and 4"),
    "shares of a whole": (lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True), "1, 2 and 3"),
    "two copies": (lambda x: np.c_[x[:, 0], x, x[:, 2]], "1 and 2"),
    "large values": (lambda x: 1e150 * np.c_[x, x[:, 1]], "2 and 4"),
    "many": (lambda x: np.c_[independent(500, 8), x, np.c_[x, independent(500, 8)] @ np.arange(1, 12)],
             "7, 8, 12 and 9 others"),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DEPENDENT)
def test_dependent_columns_are_named(name, dtype):
    build, named = DEPENDENT[name]
    if name == "large values" and dtype == np.float32:
        x = build(1e-130 * independent(500, 3)).astype(dtype)
    else:
        x = build(independent(500, 3)).astype(dtype)
    before = x.copy()
    with pytest.raises(ValueError, match=f"^columns {named} depend on each other linearly: remove one$"):
        data.check_table(data.split(x), dtype=np.float64)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_that_nearly_depend_pass(dtype):
    x = independent(500, 3)
    for noise in 4e-3, 1e-4, 1e-5:  # correlations of 0.99999 to 1 - 5e-11
        near = np.c_[x, x[:, 1] + noise * independent(500, 1, seed=1)[:, 0]].astype(dtype)
        assert np.corrcoef(near[:, 1], near[:, 3])[0, 1] > 0.99999 - 1e-6
        data.check_table(data.split(near), dtype=dtype)
    data.check_table(data.split(x[:, :1].astype(dtype)))  # one column
    data.check_table(data.split(np.exp(9 * x).astype(dtype)))
    data.check_table(data.split(np.c_[x[:, 0], x[:, 0] ** 2, x[:, 0] ** 3].astype(dtype)))
    wide = np.c_[independent(4, 3), independent(4, 1)[:, [0, 0]]].astype(dtype)
    data.check_table(data.split(wide))  # 3 rows to train on always lie on a plane of 5 dimensions


def test_the_dependence_is_removed_by_removing_one_column():
    x = np.c_[independent(500, 3), np.zeros(500)]
    x[:, 3] = x[:, 0] - 2 * x[:, 2]
    for j in range(4):
        table = data.split(np.delete(x, j, axis=1))
        if j == 1:
            with pytest.raises(ValueError, match="columns 1, 2 and 3 depend"):
                data.check_table(table)
        else:
            data.check_table(table)


# ------------------------------------------------------------------------------------- rounded columns


NORMAL = np.random.default_rng(2).standard_normal((3000, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", [
    "0.01", "0.05", "0.1", "0.25", "0.07", "1", "3", "10", "500", "1e-6", "2e-12"])
def test_decimal_steps_are_found_exactly(step, dtype):
    levels = np.rint(40 * NORMAL)
    decimals = len(step.partition(".")[2]) if "." in step else max(0, -int(step.partition("e")[2] or 0))
    x = np.round(levels * float(step), decimals).astype(dtype)
    assert data.rounding_steps(x).tolist() == [float(step)]
    assert data.rounding_steps(x.astype(float)).tolist() == [float(step)]  # of float32's resolution


def test_prices_are_rounded_to_cents_in_float32_too():
    prices = np.rint(100 * np.random.default_rng(0).uniform(300, 900, (10**5, 1))) / 100
    for dtype in np.float32, np.float64:
        assert data.rounding_steps(prices.astype(dtype)).tolist() == [0.01]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_are_judged_one_by_one(dtype):
    n = len(NORMAL)
    rng = np.random.default_rng(3)
    columns = {
        "normal": (NORMAL[:, 0], 0),
        "uniform": (rng.random(n), 0),
        "exponential, half of it zero": (rng.exponential(size=n) * rng.integers(2, size=n), 0),
        "repeated": (rng.choice(NORMAL[:50, 0], n), 0),
        "counts": (rng.poisson(3, n), 1),
        "truth values": (rng.integers(2, size=n), 1),
        "hours": (rng.integers(-9, 9, n) * 0.5, 0.5),
        "intensities": (rng.integers(256, size=n) / 255, 1 / 255),
        "thirds": (rng.integers(-5, 9, n) / 3, 1 / 3),
        "sixteenths": (rng.integers(17, size=n) / 16, 1 / 16),
        "few": (rng.choice([0.0, 2.0, 5.0], n), 1),
        "large": (rng.integers(50, size=n) * 1e18, 1e18),
        "zero": (np.zeros(n), 0),
        "no two alike": (rng.permutation(n), 0),
        "years": (rng.integers(1950, 2020, n), 1)}
    x = np.stack([column for column, _ in columns.values()], axis=1).astype(dtype)
    found = dict(zip(columns, data.rounding_steps(x)))
    assert found == pytest.approx({name: step for name, (_, step) in columns.items()}, rel=1e-6, abs=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_repeat_without_a_step_are_not_rounded(dtype):
    rng = np.random.default_rng(4)
    x = np.stack([rng.choice(rng.standard_normal(3), 50) for _ in range(300)], axis=1)
    assert not data.rounding_steps(x.astype(dtype)).any()
    nearly = rng.integers(1, 9, (100, 1)) * (1 + 20 * np.finfo(dtype).eps)
    nearly[nearly > 4] /= 1 + 20 * np.finfo(dtype).eps
    assert not data.rounding_steps(nearly.astype(dtype)).any()


def test_extreme_values_raise_no_warning():
    for scale in 1e-320, 1e-300, 1e150:
        x = np.rint(10 * NORMAL) * scale
        assert data.rounding_steps(x).shape == (1,)
        assert data.rounding_steps(NORMAL * scale).tolist() == [0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dither_fills_the_steps(dtype):
    x = np.c_[np.rint(100 * NORMAL) / 100 + 900, np.rint(NORMAL), NORMAL].astype(dtype)
    before, steps = x.copy(), data.rounding_steps(x)
    assert steps.tolist() == [0.01, 1, 0]
    filled = data.dither(x, steps)
    assert filled.dtype == dtype and filled.shape == x.shape
    noise = (filled.astype(float) - x) / [0.01, 1, 1]
    resolution = float(np.spacing(dtype(1000))) * 100
    assert np.abs(noise[:, :2]).max() <= 0.5 + resolution and not noise[:, 2].any()
    for column in noise[:, :2].T:  # uniform: the largest distance of the distribution functions
        distance = np.abs(np.sort(column) + 0.5 - np.arange(3000) / 3000).max()
        assert distance < 2 / np.sqrt(3000) + resolution
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.1
    assert not data.rounding_steps(filled[:, 1:]).any()  # the density exists
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(data.dither(x, steps), filled)
    np.testing.assert_array_equal(data.dither(x, list(steps), np.random.default_rng(0)), filled)
    assert np.any(data.dither(x, steps, rng=1) != filled)


@pytest.mark.parametrize(("x", "steps", "message"), [
    (Y, [1.0], "expected 2 finite steps of at least 0"),
    (Y, [1.0, -1.0], "expected 2 finite steps of at least 0"),
    (Y, [1.0, NAN], "expected 2 finite steps of at least 0"),
    (Y, [INF, 1.0], "expected 2 finite steps of at least 0"),
    (Y, 1.0, "expected 2 finite steps of at least 0"),
    (Y[:, 0], [1.0], "expected x to be float32 or float64 samples"),
    ((Y + [0, 2e7]).astype(np.float32), [0.01, 1.0], "float32 cannot resolve noise of 1 in column 2")])
def test_a_wrong_dither_gets_one_line(x, steps, message):
    with pytest.raises(ValueError, match=message):
        data.dither(x, steps)


def test_steps_of_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="row 3, column 2: missing value"):
        data.rounding_steps(changed(Y, 2, 1, NAN))
