"""npy and npz: layout, support, labels, keys, and files that mean harm."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from lowerbound.data import DataLimits, load_data, load_rows
from lowerbound.distributions.support import Binary, Discrete, Real

RNG = np.random.default_rng(0)


def levels(*shape, top=255, dtype=np.uint8):
    x = RNG.integers(0, top + 1, shape).astype(dtype)
    x.flat[0] = top
    return x


def saved(folder, array, name="x.npy"):
    np.save(folder / name, array)
    return folder / name


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7, 5), (7, 5)),
        ((7, 6, 5), (7, 1, 6, 5)),
        ((7, 6, 5, 1), (7, 1, 6, 5)),
        ((7, 6, 5, 3), (7, 3, 6, 5)),
        ((7, 6, 5, 4), (7, 4, 6, 5)),
        ((7, 3, 6, 5), (7, 3, 6, 5)),
        ((7, 1, 4, 4), (7, 1, 4, 4)),
        ((7, 4, 4, 1), (7, 1, 4, 4)),
        ((7, 3, 3, 3), (7, 3, 3, 3)),
        ((7, 16, 8, 8), (7, 16, 8, 8)),
        ((7, 2, 3, 4, 5), (7, 2, 3, 4, 5)),
    ],
)
def test_layout(tmp_path, shape, expected):
    assert load_rows(saved(tmp_path, levels(*shape))).x.shape == expected


@pytest.mark.parametrize("limits", [None, DataLimits(memory_bytes=1)], ids=["memory", "disk"])
@pytest.mark.parametrize(
    "shape", [(20, 5), (20, 6, 5), (20, 6, 5, 3), (20, 4, 4, 1), (20, 2, 3, 4, 5)], ids=str
)
def test_with_the_layout_arrays_every_axis_stays(tmp_path, shape, limits):
    x = levels(*shape)
    path = saved(tmp_path, x)
    source = load_data(path, layout="arrays", limits=limits)
    assert source.event_shape == shape[1:]
    train = source.train[slice(None)][0]
    assert train.shape == (len(source.train), *shape[1:])
    rows = {row.tobytes() for row in x}
    assert all(example.numpy().tobytes() in rows for example in train)
    assert torch.equal(load_rows(path, layout="arrays").x, torch.from_numpy(x))
    np.savez(tmp_path / "x.npz", x=x)
    assert load_rows(tmp_path / "x.npz", layout="arrays").x.shape == shape


def test_the_layout_is_kept_with_the_source_and_is_part_of_what_data_are(tmp_path):
    path = saved(tmp_path, levels(20, 6, 5))
    auto, arrays = (load_data(path, layout=layout) for layout in ("auto", "arrays"))
    assert arrays.preparation["layout"] == "arrays"
    assert auto.fingerprint != arrays.fingerprint


def test_a_layout_that_is_none_or_of_no_use_is_refused(tmp_path, refused):
    path = saved(tmp_path, levels(20, 6, 5))
    refused(path, "'layout' must be auto or arrays, got sequences", layout="sequences")
    refused("digits", "'layout' must be auto unless", "arrays for digits", layout="arrays")


@pytest.mark.parametrize(
    ("shape", "layout", "is_said"),
    [
        ((20, 2, 9), "auto", True),
        ((20, 40, 9), "auto", True),
        ((20, 6, 9), "auto", False),
        ((20, 2, 9), "arrays", False),
        ((20, 30), "auto", False),
    ],
)
def test_very_uneven_images_may_be_sequences(tmp_path, shape, layout, is_said):
    warnings = load_rows(saved(tmp_path, levels(*shape)), layout=layout).warnings
    assert any("--layout arrays" in warning for warning in warnings) == is_said


def test_channels_last_moves_values(tmp_path):
    x = levels(7, 6, 5, 3)
    rows = load_rows(saved(tmp_path, x))
    assert np.array_equal(rows.x.numpy(), x.transpose(0, 3, 1, 2))
    assert rows.x.is_contiguous()


@pytest.mark.parametrize(
    ("array", "support", "dtype"),
    [
        (levels(9, 4, top=1).astype(bool), Binary(), torch.uint8),
        (levels(9, 4, top=1), Binary(), torch.uint8),
        (levels(9, 4, top=1).astype(np.float64), Binary(), torch.uint8),
        (levels(9, 4, top=16), Discrete(256), torch.uint8),
        (levels(9, 4, top=16, dtype=np.int64), Discrete(17), torch.uint8),
        (levels(9, 4, top=255, dtype=">u2"), Discrete(256), torch.uint8),
        (levels(9, 4, top=300, dtype=np.uint32), Real(), torch.float32),
        (levels(9, 4, top=9, dtype=np.int8) - np.int8(5), Real(), torch.float32),
        (RNG.normal(size=(9, 4)), Real(), torch.float32),
        (RNG.normal(size=(9, 4)).astype(np.float16), Real(), torch.float32),
        (np.asfortranarray(RNG.normal(size=(9, 4)).astype(">f4")), Real(), torch.float32),
    ],
)
def test_detection(tmp_path, array, support, dtype):
    rows = load_rows(saved(tmp_path, array))
    assert rows.support == support
    assert rows.x.dtype == dtype
    assert np.array_equal(rows.x.numpy(), array.astype(rows.x.numpy().dtype))
    wide = array.dtype.kind in "iu" and support == Real()
    assert any("real numbers" in w for w in rows.warnings) == wide


@pytest.mark.parametrize(
    ("array", "support", "dtype"),
    [
        (levels(9, 4, top=16), "discrete:17", torch.uint8),
        (levels(9, 4, top=16).astype(float), Discrete(256), torch.uint8),
        (levels(9, 4, top=999, dtype=np.int32), "discrete:1000", torch.float32),
        (levels(9, 4, top=1), "discrete:2", torch.uint8),
        (levels(9, 4), "real", torch.float32),
    ],
)
def test_support_is_what_the_caller_says(tmp_path, array, support, dtype):
    rows = load_rows(saved(tmp_path, array), support=support)
    assert str(rows.support) == str(support)
    assert rows.x.dtype == dtype


@pytest.mark.parametrize(
    ("array", "support", "words"),
    [
        (levels(9, 4, top=16), "discrete:16", "to 16"),
        (levels(9, 4, top=2), "binary", "binary for values"),
        (np.full((9, 4), 0.5), "discrete:4", "fractional"),
        (np.full((9, 4), -1), "discrete:4", "from -1 to -1"),
        (levels(9, 4), "8 bits", "binary, discrete:LEVELS or real"),
    ],
)
def test_support_that_does_not_fit(tmp_path, refused, array, support, words):
    refused(saved(tmp_path, array), "'support'", words, support=support)


BAD_ARRAYS = {
    "objects": (np.array([[None, 1]], object), "Python objects"),
    "complex": (np.ones((3, 2), complex), "complex128"),
    "text": (np.array([["a", "b"]]), "dtype <U1"),
    "dates": (np.zeros((3, 2), "M8[s]"), "datetime64"),
    "records": (np.zeros((3, 2), [("a", "f4")]), "dtype"),
    "scalar": (np.float32(1), "shape ()"),
    "one axis": (np.ones(5), "shape (5)"),
    "no rows": (np.ones((0, 5)), "at least one value"),
    "no columns": (np.ones((5, 0)), "at least one value"),
    "nan": (
        np.array([[1, 2], [3, np.nan], [np.inf, 1]]),
        "2 other values, first in row 1, column 1",
    ),
    "inf image": (np.full((2, 3, 3), -np.inf), "first in row 0, at [0, 0]"),
    "too large for 32 bits": (np.array([[1.0, 1e39]]), "32-bit"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_unusable_array(tmp_path, refused, case, ending):
    array, words = BAD_ARRAYS[case]
    path = tmp_path / f"odd.{ending}"
    np.save(path, array) if ending == "npy" else np.savez(path, x=array)
    refused(path, f"odd.{ending}", words)


def test_npz_keys(tmp_path, refused):
    path = tmp_path / "a.npz"
    one, two = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 5))
    np.savez(path, latents=one, y=np.arange(12) % 2)
    assert load_rows(path).x.shape == (12, 3)  # the only one that is not labels
    np.savez(path, first=one, second=two)
    assert load_rows(f"{path}:second").x.shape == (12, 5)
    refused(path, "first, second", "a.npz:KEY")
    refused(f"{path}:secnd", "did you mean 'second'?")
    refused(f"{path}:other", "first, second")
    refused(f"{path}:first", "a.npz", "labels", labels="other")
    np.savez_compressed(path, first=one, x=two)
    assert load_rows(path).x.shape == (12, 5)


@pytest.mark.parametrize(
    ("labels", "indices", "names"),
    [
        (np.array([0, 1, 2, 1]), [0, 1, 2, 1], ()),
        (np.array([[0], [1], [2], [1]], np.uint8), [0, 1, 2, 1], ()),
        (np.array([7, -1, 7, 3]), [2, 0, 2, 1], ("-1", "3", "7")),
        (np.array(["b", "a", "a", "c"]), [1, 0, 0, 2], ("a", "b", "c")),
        (np.array([True, False, True, True]), [1, 0, 1, 1], ()),
        (np.array([0, 2**64 - 1, 0, 0], np.uint64), [0, 1, 0, 0], ("0", str(2**64 - 1))),
    ],
)
@pytest.mark.parametrize("key", ["y", "labels", "kind"])
def test_labels(tmp_path, labels, indices, names, key):
    np.savez(tmp_path / "a.npz", x=levels(4, 3), **{key: labels})
    rows = load_rows(tmp_path / "a.npz", labels=key if key == "kind" else None)
    assert rows.labels.tolist() == indices
    assert rows.labels.dtype == torch.int64
    assert rows.class_names == names


def test_labels_that_do_not_fit(tmp_path, refused):
    path = tmp_path / "a.npz"
    np.savez(path, x=levels(4, 3), y=np.arange(5), reals=np.ones(4), o=np.array([None]))
    refused(path, "'labels'", "one per example", "4 examples")
    refused(path, "'labels'", "float64", labels="reals")
    refused(path, "a.npz:o", "Python objects", labels="o")
    np.savez(path, x=levels(4, 3), y=np.ones(4))
    rows = load_rows(path)
    assert rows.labels is None
    assert "not used as labels" in rows.warnings[0]


def test_sentences_worth_saying(tmp_path):
    x = RNG.normal(size=(9, 4))
    x[:, 2] = 3
    assert "column 2" in load_rows(saved(tmp_path, x)).warnings[0]
    assert load_rows(saved(tmp_path, x[:1])).warnings == ()  # of one row nothing can be said
    two = levels(9, 4, 4, top=1) * np.uint8(255)
    rows = load_rows(saved(tmp_path, two))
    assert rows.support == Discrete(256)
    assert "threshold" in rows.warnings[0]
    source = load_data(
        saved(tmp_path, levels(20, 4, 4, top=1) * np.uint8(255)), binarize="threshold"
    )
    assert source.support == Binary()


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_unpickled(tmp_path, refused):
    canary = tmp_path / "executed"
    array = np.array([[Canary(canary)]], object)
    np.save(tmp_path / "o.npy", array, allow_pickle=True)
    np.savez(tmp_path / "o.npz", x=array, allow_pickle=True)
    np.savez(tmp_path / "y.npz", x=levels(1, 3), y=array)
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Canary(canary)))
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Canary(canary)))
    for name in ("o.npy", "o.npz", "y.npz", "raw.npy", "raw.npz"):
        refused(tmp_path / name, name)
    assert not canary.exists()


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_header(text, body=b"", version=1):
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + body


GOOD = npy_bytes(levels(9, 4))
SHAPE = "{{'descr': '|u1', 'fortran_order': False, 'shape': {}}}\n"
BAD_BYTES = {
    "empty": (b"", "NumPy array"),
    "text": (b"hello", "NumPy array"),
    "cut": (GOOD[:-1], "cut off"),
    "cut header": (GOOD[:40], "valid header"),
    "trailing": (GOOD + b"x", "got more"),
    "version 3": (b"\x93NUMPY\3\0" + GOOD[8:], "NumPy array"),
    "header of 4 GB": (b"\x93NUMPY\2\0\xff\xff\xff\xff", "header of at most"),
    "2^60 values": (with_header(SHAPE.format("(1073741824, 1073741824)")), "at most"),
    "2 GB promised": (with_header(SHAPE.format("(2147483648, 1)")), "2147483648 bytes"),
    "negative": (with_header(SHAPE.format("(-1, -4)")), "negative"),
    "code": (with_header("__import__('os').mkdir('x')"), "valid header"),
    "deep": (with_header("(" * 5000), "valid header"),
    "long": (with_header(" " * 60000), "valid header"),
    "version 2": (with_header(SHAPE.format("(2, 2)"), b"abc", version=2), "cut off"),
}


@pytest.mark.parametrize("case", BAD_BYTES)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_damaged_array(tmp_path, refused, case, ending):
    data, words = BAD_BYTES[case]
    path = tmp_path / f"odd.{ending}"
    if ending == "npy":
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", data)
        words = "packed at most" if case == "2 GB promised" else words
    refused(path, f"odd.{ending}", words)


def test_damaged_archives(tmp_path, refused):
    path = tmp_path / "a.npz"
    for data in (b"", b"PK\3\4", GOOD, b"PK\5\6" + bytes(18)):
        path.write_bytes(data)
        refused(path, "a.npz", "npz")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", GOOD)
    refused(path, "another compression")
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(10_001):
            archive.writestr(f"{i}.npy", b"")
    refused(path, "at most 10000 arrays")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", GOOD)
    data = bytearray(path.read_bytes())
    data[data.index(b"x.npy") + 5 + 130] ^= 1
    path.write_bytes(data)
    refused(path, "whole .npz file", "CRC")


def test_bomb_is_refused_before_it_is_unpacked(tmp_path, refused):
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as f,
    ):
        f.write(with_header(SHAPE.format("(300000000, 1)")))
        for _ in range(8):
            f.write(bytes(2**20))
    refused(path, "packed at most 1:200")
