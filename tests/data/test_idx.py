"""IDX folders: what is read, and every way in which one can be wrong."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lowerbound.data import load_data, load_rows
from lowerbound.data.idx import FASHION_CLASSES, read_idx
from lowerbound.distributions.support import Binary, Discrete
from lowerbound.errors import InputError

STEMS = [f"{p}-{kind}-ubyte" for p in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def idx_bytes(array, sizes=None):
    sizes = array.shape if sizes is None else sizes
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + array.tobytes()


def write_folder(folder: Path, *, train=30, test=12, ending="", dotted=False, gz=False, top=255):
    rng = np.random.default_rng(0)
    for stem, n in zip(STEMS, (train, train, test, test), strict=True):
        images = "images" in stem
        array = rng.integers(0, top + 1, (n, 6, 5)) if images else np.arange(n) % 3
        data = idx_bytes(array.astype(np.uint8))
        name = stem.replace("-idx", ".idx") if dotted else stem
        (folder / f"{name}{'.gz' if gz else ''}").write_bytes(gzip.compress(data) if gz else data)
    return folder


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("gz", [False, True])
def test_reads_every_usual_name(tmp_path, dotted, gz):
    rows = load_rows(f"mnist:{write_folder(tmp_path, dotted=dotted, gz=gz)}")
    assert rows.x.shape == (42, 1, 6, 5)
    assert rows.x.dtype == torch.uint8
    assert rows.support == Discrete(256)
    assert rows.labels[:4].tolist() == [0, 1, 2, 0]
    assert (rows.num_test, rows.num_validation) == (12, 3)


def test_bare_folder_and_names_of_classes(tmp_path):
    write_folder(tmp_path)
    assert load_rows(tmp_path).class_names == ()
    rows = load_rows(f"fashion-mnist:{tmp_path}")
    assert rows.class_names == FASHION_CLASSES
    assert load_data(f"fashion-mnist:{tmp_path}").context.num_classes == 10  # only 3 occur


def test_test_set_is_the_standard_one(tmp_path):
    write_folder(tmp_path)
    rows, source = load_rows(tmp_path), load_data(tmp_path)
    assert torch.equal(source.test.x, rows.x[-12:])
    assert (len(source.train), len(source.validation)) == (27, 3)


def test_two_values_are_binary(tmp_path):
    assert load_rows(write_folder(tmp_path, top=1)).support == Binary()


IMAGES = np.zeros((30, 6, 5), np.uint8)
GOOD = idx_bytes(IMAGES)
BAD_FILES = {
    "empty": (b"", "starts with"),
    "text": (b"hello, world", "starts with"),
    "floats": (b"\0\0\x0d\x03" + GOOD[4:], "unsigned bytes"),
    "labels for images": (b"\0\0\x08\x01" + GOOD[4:], "3 axes"),
    "header cut": (GOOD[:9], "sizes above 0"),
    "zero size": (idx_bytes(IMAGES, (30, 0, 5)), "sizes above 0"),
    "cut": (GOOD[:-1], "cut off"),
    "trailing": (GOOD + b"x", "got more"),
    "declares 2^96 bytes": (b"\0\0\x08\x03" + b"\xff" * 12, "at most"),
    "declares 4 GB": (idx_bytes(IMAGES, (2**31, 2, 1)), "cut off"),
}


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("case", BAD_FILES)
def test_damaged_file(tmp_path, refused, case, gz):
    write_folder(tmp_path, gz=gz)
    data, words = BAD_FILES[case]
    name = STEMS[0] + (".gz" if gz else "")
    (tmp_path / name).write_bytes(gzip.compress(data) if gz else data)
    if gz and case == "declares 4 GB":
        words = "packed at most"
    refused(f"mnist:{tmp_path}", name, words)


@pytest.mark.parametrize("damage", ["cut", "crc", "not gzip"])
def test_damaged_gzip(tmp_path, refused, damage):
    write_folder(tmp_path, gz=True)
    path = tmp_path / f"{STEMS[0]}.gz"
    data = path.read_bytes()
    cut = {"cut": data[:-20], "crc": data[:-8] + b"\1\2\3\4" + data[-4:], "not gzip": GOOD}
    path.write_bytes(cut[damage])
    refused(f"mnist:{tmp_path}", path.name, "whole gzip file")


@pytest.mark.parametrize("stem", STEMS)
def test_missing_file(tmp_path, refused, stem):
    (write_folder(tmp_path) / stem).unlink()
    refused(f"mnist:{tmp_path}", stem, "four IDX files")


def test_counts_and_sizes_must_agree(tmp_path, refused):
    (write_folder(tmp_path) / STEMS[1]).write_bytes(idx_bytes(np.zeros(29, np.uint8)))
    refused(f"mnist:{tmp_path}", "30 images and 29 labels", "train")
    (write_folder(tmp_path) / STEMS[2]).write_bytes(idx_bytes(np.zeros((12, 5, 5), np.uint8)))
    refused(f"mnist:{tmp_path}", "6×5 and 5×5", "one size")


def test_fashion_labels_beyond_nine(tmp_path, refused):
    (write_folder(tmp_path) / STEMS[1]).write_bytes(idx_bytes(np.full(30, 12, np.uint8)))
    refused(f"fashion-mnist:{tmp_path}", "labels 0 to 9", "got 12")


def test_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(idx_bytes(np.zeros(0, np.uint8), (2, 1, 1)))
        for _ in range(64):
            file.write(bytes(2**20))
    with pytest.raises(InputError, match="got more"):
        read_idx(path, 3)  # 64 MiB behind two declared bytes: one more byte is read


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_ones(name):
    root = os.environ.get("LOWERBOUND_DATA")
    if not root:
        pytest.skip("LOWERBOUND_DATA is not set: no folder with mnist/ and fashion-mnist/")
    source = load_data(f"{name}:{root}/{name}")
    assert [len(source.split(s)) for s in ("train", "validation", "test")] == [55000, 5000, 10000]
    assert source.event_shape == (1, 28, 28)
    assert source.context.num_classes == 10
    assert bool((source.test.labels.bincount() > 800).all())
