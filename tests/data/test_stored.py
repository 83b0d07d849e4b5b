"""Data that stay on a disk: what is looked at, what is refused, what goes bad, what is held."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound.data import DataLimits, Source, held, load_data, load_rows, measured
from lowerbound.data.stored import replaced_examples, sampled_rows
from lowerbound.distributions import Binary, Counts, Discrete, Real
from lowerbound.distributions.registry import make_likelihood
from lowerbound.errors import InputError
from tests.data import memory
from tests.data.sources import NUM, ON_DISK, PIXELS, TABLE, image_folder, numbers

# --- arrays ---------------------------------------------------------------------------------


def mapped(folder: Path, array, **options) -> Source:
    np.save(folder / "x.npy", array)
    return load_data(folder / "x.npy", limits=ON_DISK, **options)


def everything(source: Source) -> torch.Tensor:
    """All examples, in the order of the file."""
    reader = source.train.reader
    return reader.read(torch.arange(len(reader)))[0]


@pytest.mark.parametrize(
    "array",
    [
        TABLE,
        TABLE.astype(np.float64),
        TABLE.astype(np.float16),
        TABLE.astype(">f4"),
        PIXELS,
        PIXELS > 127,
        PIXELS.astype(np.int64) % 7,
        PIXELS.astype(np.uint16) + 900,
        np.stack([PIXELS] * 3, -1),
        PIXELS[:, :, :, None, None],
    ],
    ids=str,
)
def test_a_mapped_array_is_laid_out_and_typed_as_one_in_memory(array, tmp_path):
    source = mapped(tmp_path, array)
    rows = load_rows(tmp_path / "x.npy")
    assert source.support == rows.support
    x = everything(source)
    assert torch.equal(x, rows.x)
    assert x.dtype == rows.x.dtype
    assert x.is_contiguous()


@pytest.mark.parametrize("support", ["counts", "real", "product:counts,real,real", "discrete:300"])
def test_a_support_that_is_said_is_kept_or_refused(support, tmp_path):
    array = np.abs(np.round(TABLE)) if support != "discrete:300" else PIXELS
    source = mapped(tmp_path, array, support=support)
    assert str(source.support) == support
    assert source.support.contains(everything(source))
    with pytest.raises(InputError, match="in row 0 "):
        mapped(tmp_path, -array.astype(np.float32) - 0.5, support="counts")


def damaged(folder: Path, row: int, value, dtype=np.float32) -> Source:
    """A source of 0 … 1 (or 0/1) whose ``row``, which was not looked at, is then changed."""
    limits = DataLimits(memory_bytes=0, sampled_rows=5)
    array = np.zeros((500, 4), dtype)
    array[::2] = 1
    looked = set(sampled_rows(500, 5).tolist())
    assert row not in looked
    array[row, 2] = value
    np.save(folder / "x.npy", array)
    return load_data(folder / "x.npy", limits=limits)


@pytest.mark.parametrize("value", [np.nan, np.inf, 2, -1, 0.5])
def test_a_row_that_nobody_looked_at_is_refused_by_its_number_when_it_is_read(value, tmp_path):
    source = damaged(tmp_path, 123, value)
    assert source.support == Binary()
    reader = source.train.reader
    assert reader.read(torch.arange(123))[0].shape == (123, 4)
    with pytest.raises(InputError, match=r"binary data in every row.* in row 123 .*--support"):
        reader.read(torch.tensor([400, 123, 7]))


def test_what_was_looked_at_is_said_and_bad_values_among_it_are_refused_by_row(tmp_path):
    source = damaged(tmp_path, 123, 1)
    assert any("5 seeded rows of 500" in warning for warning in source.warnings)
    with pytest.raises(InputError, match=r"real data in every row.* in row 59 "):
        mapped(tmp_path, np.where(np.arange(NUM) == 59, np.nan, 0.5)[:, None])


def test_sampled_rows_are_seeded_rising_and_hold_both_ends():
    rows = sampled_rows(10**9, 1000)
    assert torch.equal(rows, sampled_rows(10**9, 1000))
    assert (rows[0], rows[-1]) == (0, 10**9 - 1)
    assert (rows.diff() > 0).all()
    assert 990 < len(rows) <= 1000
    assert rows.double().mean() == pytest.approx(5e8, rel=0.1)  # 3 sigma of a uniform: 0.055


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.asfortranarray(TABLE), "Fortran's order.*ascontiguousarray"),
        (np.array([{}], dtype=object), "'.*' must be numbers"),
        (np.zeros((0, 3)), "must be numbers"),
        (np.arange(9.0), "must be numbers .*one row per example"),
        (np.array(["a", "b"])[:, None], "must be numbers"),
        (np.zeros((9, 3)), "at least 10 examples"),
    ],
)
def test_arrays_that_cannot_be_mapped_are_refused(array, words, tmp_path):
    with pytest.raises(InputError, match=words):
        mapped(tmp_path, array)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_is_refused_before_and_after_it_is_opened(change, tmp_path):
    source = mapped(tmp_path, TABLE)
    path = tmp_path / "x.npy"
    os.truncate(path, path.stat().st_size + change)
    with pytest.raises(InputError, match=f"'{path}' must be 720 bytes behind its header"):
        load_data(path, limits=ON_DISK)
    if change < 0:  # a page that is gone would kill the process
        with pytest.raises(InputError, match="must be the file it was, got a shorter one"):
            _ = source.train[slice(0, 3)]


def test_equal_rows_are_not_binarised_equally(tmp_path):
    source = mapped(tmp_path, np.full((NUM, 6, 8), 100, np.uint8), binarize="static")
    x = source.train[slice(None)][0].flatten(1)
    assert len(x.unique(dim=0)) == 48
    other = mapped(tmp_path, np.full((NUM, 6, 8), 100, np.uint8), binarize="static", seed=1)
    assert not torch.equal(other.train[slice(None)][0].flatten(1), x)


def test_the_fingerprint_is_of_the_values(tmp_path):
    array = TABLE.copy()
    prints = {mapped(tmp_path, array).fingerprint}
    os.utime(tmp_path / "x.npy", (1, 1))
    prints.add(load_data(tmp_path / "x.npy", limits=ON_DISK).fingerprint)
    assert len(prints) == 1  # the time of the file is no part of it
    array[31, 2] += 1
    prints.add(mapped(tmp_path, array).fingerprint)
    prints.add(mapped(tmp_path, array.reshape(30, 6)).fingerprint)
    prints.add(mapped(tmp_path, PIXELS).fingerprint)
    for how, seed in (("static", 0), ("static", 1), ("threshold", 0)):
        prints.add(mapped(tmp_path, PIXELS, binarize=how, seed=seed).fingerprint)
    assert len(prints) == 7


# --- images ---------------------------------------------------------------------------------


def test_whatever_a_header_tells_is_told_before_the_first_step(tmp_path):
    spec = image_folder(tmp_path)
    folder = tmp_path / "images" / "red"
    (folder / "002.png").write_bytes(b"")
    (folder / "005.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2 bad of 60: red/002.png \(empty\), red/005.png \(not"):
        load_data(spec, limits=ON_DISK)
    source = load_data(spec, limits=ON_DISK, on_bad="skip")
    assert sum(len(source.split(s)) for s in ("train", "validation", "test")) == 58
    assert any("Skipped 2 bad of 60 images" in warning for warning in source.warnings)
    Image.new("L", (3, 3)).save(folder / "008.png")
    with pytest.raises(InputError, match=r"2 sizes \(HxW\): 6x8 \(57\), 3x3 \(1\)"):
        load_data(spec, limits=ON_DISK, on_bad="skip")
    assert load_data(spec, limits=ON_DISK, on_bad="skip", image_size=4).event_shape == (1, 4, 4)


def test_the_limit_is_of_what_is_decoded(tmp_path):
    """Grey images are a third of what the same ones would be in colour."""
    spec = image_folder(tmp_path)
    for num_bytes, fits in ((PIXELS.size, True), (PIXELS.size - 1, False)):
        source = load_data(spec, limits=DataLimits(memory_bytes=num_bytes))
        assert source.train.in_memory == fits
    np.save(tmp_path / "x.npy", PIXELS)
    for num_bytes, fits in ((PIXELS.size, True), (PIXELS.size - 1, False)):
        source = load_data(tmp_path / "x.npy", limits=DataLimits(memory_bytes=num_bytes))
        assert source.train.in_memory == fits


def test_one_image_in_colour_makes_all_of_them_so(tmp_path):
    spec = image_folder(tmp_path)
    Image.new("RGB", (8, 6), (1, 2, 3)).save(tmp_path / "images" / "red" / "002.png")
    memory, disk = (load_data(spec, limits=limits) for limits in (None, ON_DISK))
    assert disk.event_shape == (3, 6, 8)
    assert torch.equal(disk.train[slice(None)][0], memory.train.x)


CHANGES = {
    "truncated": lambda data, path: path.write_bytes(data[: len(data) // 2]),
    "no such file": lambda data, path: path.unlink(),
    "empty": lambda data, path: path.write_bytes(b""),
    "3x3 pixels now": lambda data, path: Image.new("L", (3, 3)).save(path),
    "no longer grey": lambda data, path: Image.new("RGB", (8, 6)).save(path),
}


@pytest.mark.parametrize("reason", CHANGES)
@pytest.mark.parametrize("threads", [1, 3])
def test_an_image_that_goes_bad_is_named_or_replaced_by_its_neighbour(reason, threads, tmp_path):
    spec, limits = image_folder(tmp_path), DataLimits(memory_bytes=0, threads=threads)
    strict = load_data(spec, limits=limits)
    lenient = load_data(spec, limits=limits, on_bad="skip")
    before, labels = lenient.train[slice(None)]
    i = int((labels.diff() != 0).nonzero()[0])  # whose neighbour is of another class
    path = tmp_path / "images" / strict.train.reader.shown(int(lenient.train.rows[i]))
    CHANGES[reason](path.read_bytes(), path)
    for read in (slice(i - 2, i + 2), torch.tensor([i])):
        with pytest.raises(InputError, match=f"{path.name} \\({reason}\\); .*--on-bad skip"):
            _ = strict.train[read]
    x, context = lenient.train[torch.tensor([i, 3, i])]
    assert torch.equal(x, before[[i + 1, 3, i + 1]])
    assert context.tolist() == labels[[i + 1, 3, i + 1]].tolist()  # a label stays with its image
    around = [i - 1, i + 1, i + 1, i + 2]
    assert numbers(lenient.train[slice(i - 1, i + 3)][0]) == numbers(before[around])
    (note,) = replaced_examples(lenient)
    assert "Replaced 1 example" in note
    assert f"{path.name} ({reason})" in note
    assert not replaced_examples(load_data("digits"))


def test_the_last_of_a_split_is_replaced_by_its_first_and_never_by_another_splits(tmp_path):
    source = load_data(image_folder(tmp_path), limits=ON_DISK, on_bad="skip")
    before, _ = source.validation[slice(None)]
    for index in (4, 5):
        row = int(source.validation.rows[index])
        (tmp_path / "images" / source.train.reader.shown(row)).write_bytes(b"")
    assert torch.equal(source.validation[torch.tensor([4, 5])][0], before[[0, 0]])
    for row in source.validation.rows.tolist():
        (tmp_path / "images" / source.train.reader.shown(row)).write_bytes(b"")
    with pytest.raises(InputError, match="bad ones in a row"):
        _ = source.validation[slice(0, 1)]


def test_the_fingerprint_of_images_is_of_names_sizes_and_bytes(tmp_path):
    spec = image_folder(tmp_path)
    prints = [load_data(spec, limits=ON_DISK).fingerprint]
    path = tmp_path / "images" / "red" / "002.png"
    other = path.parent / "005.png"
    a, b = path.read_bytes(), other.read_bytes()
    path.write_bytes(b)
    prints.append(load_data(spec, limits=ON_DISK).fingerprint)
    path.write_bytes(a)
    path.rename(path.parent / "0021.png")
    prints.append(load_data(spec, limits=ON_DISK).fingerprint)
    prints.append(load_data(spec, limits=ON_DISK, image_size=4).fingerprint)
    assert len(set(prints)) == 4


# --- what is measured of a training set -----------------------------------------------------


def test_blocks_are_the_examples_again_and_again(tmp_path, monkeypatch):
    source = mapped(tmp_path, TABLE)
    monkeypatch.setattr("lowerbound.data.blocks.NUMBERS_AT_ONCE", 30)
    blocks = measured(source.train)
    for _ in range(2):
        parts = list(blocks)
        assert [len(part) for part in parts] == [10, 10, 10, 10, 8]
        assert torch.equal(torch.cat(parts), source.train[slice(None)][0])
    assert torch.equal(held(source.train).x, torch.cat(parts))


def test_of_many_rows_some_seeded_ones_are_measured(tmp_path, monkeypatch):
    source = load_data(image_folder(tmp_path), limits=ON_DISK)
    monkeypatch.setattr("lowerbound.data.blocks.MAX_ROWS", 10)
    rows = sampled_rows(48, 10)
    assert torch.equal(torch.cat(list(measured(source.train))), source.train[rows][0])
    some = held(source.train)
    assert torch.equal(some.x, source.train[rows][0])
    assert torch.equal(some.labels, source.train[rows][1])
    monkeypatch.setattr("lowerbound.data.blocks.NUMBERS_IN_MEMORY", 48 * 5)
    assert len(held(source.train)) <= 5


@pytest.mark.parametrize(
    ("support", "x"),
    [
        (Real(), torch.from_numpy(TABLE)),
        (Counts(), torch.from_numpy(PIXELS[:, :1].astype(np.float32))),
        (Discrete(256), torch.from_numpy(PIXELS[:, None])),
    ],
)
@pytest.mark.parametrize("name", ["auto", "zero-inflated-poisson", "product"])
def test_scales_measured_by_blocks_are_those_of_all(support, x, name):
    from lowerbound.distributions import Product

    if name == "zero-inflated-poisson" and support != Counts():
        pytest.skip("not for these data")
    if name == "product":
        x = x.flatten(1).float()[:, :3]
        support = Product((Real(), Real(), Counts() if support != Real() else Real()))
    shape = tuple(x.shape[1:])
    whole, parts = (make_likelihood(shape, support, name) for _ in range(2))
    whole.calibrate(x)
    parts.calibrate([x[:1], x[1:30], x[30:]])
    for key, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], tensor, rtol=1e-6, atol=1e-6)


# --- memory ---------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
needs_linux = pytest.mark.skipif(
    not memory.STATUS.exists(), reason="needs /proc to measure memory"
)


def sparse(folder: Path, gib: int) -> Path:
    """A file of zeros of so many GiB, in rows of 1 KiB, that takes no room on the disk."""
    path = folder / "sparse.npy"
    shape = (gib * 2**20, 1024)
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
    assert path.stat().st_blocks * 512 < 2**20
    return path


@needs_linux
def test_four_gigabytes_are_learned_from_in_a_tenth_of_it(tmp_path):
    before, most = memory.learned(sparse(tmp_path, 4))
    assert most - before < 400


@needs_linux
@pytest.mark.nightly
def test_twenty_gigabytes_are_learned_from_in_two(tmp_path):
    command = [sys.executable, "-m", "tests.data.memory", str(sparse(tmp_path, 20))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[1]) < 2048
