"""Parquet and the hub's layout, through the optional library: columns, splits, refusals."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from lowerbound.data import Classes, load_data, load_rows
from lowerbound.data.hub import chosen_splits
from lowerbound.data.tables import read_csv
from lowerbound.distributions import Binary, Discrete, Real
from lowerbound.errors import InputError
from tests.data.sources import CLASSES, LABELS, NUM, ON_DISK, PIXELS, TABLE, image_columns, png

PLACES = pytest.mark.parametrize("limits", [None, ON_DISK], ids=["memory", "disk"])


def test_without_the_library_the_pip_command_is_the_answer(tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    for spec in (tmp_path / "t.parquet", "hf:owner/name", "hf:owner/name:config"):
        refused(spec, "optional library datasets", 'pip install "lowerbound[data]"')


def test_the_splits_of_a_data_set_of_the_hub():
    assert chosen_splits(["test", "train", "validation"]) == ("train", "validation", "test")
    assert chosen_splits(["train", "val"]) == ("train", None, "val")
    assert chosen_splits(["train", "test", "unsupervised"]) == ("train", None, "test")
    assert chosen_splits(["everything"]) == ("everything", None, None)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The optional library, with a cache of its own and forbidden to use a network."""
    datasets = pytest.importorskip("datasets", reason="the optional library datasets is missing")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def parquet(folder, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "t.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def whole(source):
    """All training examples and their context."""
    return source.train[slice(None)]


@PLACES
def test_a_table_is_what_the_same_csv_is(library, limits, tmp_path):
    columns = {"a": TABLE[:, 1], "count": np.arange(NUM) % 5, "flag": LABELS == 1, "label": LABELS}
    path = parquet(tmp_path, **columns)
    lines = [",".join(columns), *(",".join(map(str, r)) for r in zip(*columns.values()))]  # noqa: B905
    (tmp_path / "t.csv").write_text("\n".join(lines).replace("True", "1").replace("False", "0"))
    table = read_csv(tmp_path / "t.csv")
    rows = load_rows(path)
    assert torch.equal(rows.x, table.x)
    assert rows.labels.tolist() == table.labels.tolist()
    for name in ("support", "column_names", "class_names"):
        assert getattr(rows, name) == getattr(table, name)
    assert any("'label' is taken as labels" in warning for warning in rows.warnings)
    source = load_data(path, limits=limits)
    assert source.train.in_memory == (limits is None)
    assert torch.equal(whole(source)[0], whole(load_data(tmp_path / "t.csv"))[0])
    assert (source.support, source.event_shape, source.context) == (Real(), (3,), Classes(3))
    binary = load_data(parquet(tmp_path, a=LABELS == 1, b=LABELS > 1), limits=limits)
    assert binary.support == Binary()


@PLACES
def test_columns_of_labels(library, limits, tmp_path):
    names = np.array(CLASSES)[LABELS]
    path = parquet(tmp_path, a=TABLE[:, 1], Target=names, other=LABELS)
    source = load_data(path, limits=limits)
    assert source.context == Classes(3, CLASSES)
    assert source.column_names == ("a", "other")
    assert load_data(path, limits=limits, labels="Target").context == Classes(3, CLASSES)
    with pytest.raises(InputError, match="text in column 'Target'; drop the column"):
        load_data(path, limits=limits, labels="other")
    with pytest.raises(InputError, match="did you mean 'Target'"):
        load_data(path, limits=limits, labels="Tarket")
    with pytest.raises(InputError, match="'labels' must be a column of integers or text"):
        load_data(path, limits=limits, labels="a")


@PLACES
def test_missing_cells_are_refused_by_row_and_column(library, limits, tmp_path):
    import pyarrow as pa

    column = pa.array([1.5] * 33 + [None] + [2.5] * (NUM - 34))
    with pytest.raises(InputError, match=r"row 33.*") as caught:
        load_data(parquet(tmp_path, a=TABLE[:, 1], b=column), limits=limits)
    assert "\n" not in str(caught.value)
    labels = pa.array([1] * (NUM - 1) + [None])
    with pytest.raises(InputError, match="a label in every row"):
        load_data(parquet(tmp_path, a=TABLE[:, 1], y=labels), limits=limits)


@PLACES
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_a_column_of_arrays(library, limits, dtype, tmp_path):
    features = library.Features({"pixels": library.Array2D((6, 8), np.dtype(dtype).name)})
    cells = [image.astype(dtype) for image in PIXELS]
    made = library.Dataset.from_dict({"pixels": cells, "y": LABELS.tolist()})
    nested, typed = tmp_path / "nested.parquet", tmp_path / "typed.parquet"
    made.to_parquet(nested)
    made.remove_columns("y").cast(features).to_parquet(typed)
    for path in (nested, typed):
        source = load_data(path, limits=limits)
        assert source.event_shape == (1, 6, 8)
        x = whole(source)[0]
        rows = x[:, 0, 0, 0].long()
        assert torch.equal(x, torch.from_numpy(PIXELS)[rows, None].to(x.dtype))
    expected = Real() if dtype == np.float32 else Discrete(256)
    assert source.support == expected


@PLACES
def test_arrays_of_several_lengths_are_refused_by_row(library, limits, tmp_path):
    cells = [[1.0, 2.0]] * NUM
    cells[17] = [1.0]
    with pytest.raises(InputError, match="arrays of one shape, got another length in row 17"):
        load_data(parquet(tmp_path, v=cells), limits=limits)


@PLACES
def test_images_in_columns_however_they_are_stored(library, limits, tmp_path):
    expected = torch.from_numpy(PIXELS[:, None])
    image_columns().to_parquet(tmp_path / "named.parquet")
    plain = {"bytes": [png(i) for i in range(NUM)]}
    text = np.array([f"file {i}" for i in range(NUM)])
    for path in (tmp_path / "named.parquet", parquet(tmp_path, **plain, caption=text)):
        source = load_data(path, limits=limits)
        x, context = whole(source)
        rows = x[:, 0, 0, 0].long()
        assert torch.equal(x, expected[rows])
        assert context is None or context.tolist() == LABELS[rows].tolist()
        assert load_data(path, limits=limits, image_size=4).event_shape == (1, 4, 4)
    assert any("not used: caption" in warning for warning in source.warnings)
    bad = [*plain["bytes"][:-1], b""]
    with pytest.raises(InputError, match=r"1 bad of 60: row 59 \(empty\)"):
        load_data(parquet(tmp_path, image=bad), limits=limits)
    assert len(whole(load_data(parquet(tmp_path, image=bad), limits=limits, on_bad="skip"))[0])


def test_a_file_named_in_a_cell_is_not_opened(library, tmp_path):
    (tmp_path / "secret.png").write_bytes(png(0))
    cells = [{"bytes": None, "path": str(tmp_path / "secret.png")}] * NUM
    features = library.Features({"image": library.Image(decode=False)})
    library.Dataset.from_dict({"image": cells}, features=features).to_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(InputError, match=r"row 0 \(empty\)"):
        load_data(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": ["x", "z"] * 30}, "text in column 'a'"),
        ({"a": [{"b": 1}] * 60}, "other in column 'a'"),
        ({"label": LABELS}, "columns beside the labels"),
        ({"a": [b"x"] * 60, "b": [b"x"] * 60}, "one column of images, got a, b"),
        ({"a": [[1.0]] * 60, "b": [[1.0]] * 60}, "one column of arrays, got a, b"),
        ({"a": np.zeros(0)}, "at least one row"),
        ({"a": np.zeros(5)}, "at least 10 examples"),
    ],
)
def test_columns_that_are_no_data_are_refused(library, columns, words, tmp_path):
    with pytest.raises(InputError, match=words):
        load_data(parquet(tmp_path, **columns))


def test_damaged_files_are_refused_in_one_line(library, refused, tmp_path):
    path = parquet(tmp_path, a=TABLE[:, 1])
    data = path.read_bytes()
    for damaged in (data[:-20], data[:50], b"PAR1" * 10, b""):
        path.write_bytes(damaged)
        refused(path, "t.parquet", "the library datasets can open")


@PLACES
def test_own_splits_are_kept(library, limits, tmp_path, monkeypatch):
    """The path of ``hf:`` on a local folder of the same layout: the hub itself is out of reach."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "name" / "data"
    parts = {"train": range(40), "validation": range(40, 50), "test": range(50, NUM)}
    for part, rows in parts.items():
        image_columns().select(rows).to_parquet(folder / f"{part}-00000-of-00001.parquet")
    source = load_data("hf:owner/name", limits=limits)
    assert source.train.in_memory == (limits is None)
    assert source.context == Classes(3, CLASSES)
    for part, rows in parts.items():
        x, labels = source.split(part)[slice(None)]
        assert x[:, 0, 0, 0].tolist() == list(rows)
        assert labels.tolist() == LABELS[list(rows)].tolist()
    (folder / "validation-00000-of-00001.parquet").unlink()
    source = load_data("hf:owner/name", limits=limits, seed=1)
    sizes = [len(source.split(part)) for part in parts]
    assert sizes == [36, 4, 10]
    assert source.test[slice(None)][0][:, 0, 0, 0].tolist() == list(range(50, NUM))
    with pytest.raises(InputError, match="'hf:owner/name:other' must be data that"):
        load_data("hf:owner/name:other", limits=limits)


def test_skipped_images_leave_the_own_splits_as_they_are(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "name" / "data"
    for part, rows in {"train": range(45), "test": range(45, NUM)}.items():
        cells = [{"bytes": b"" if i in (3, 50, 51) else png(i), "path": None} for i in rows]
        features = library.Features({"image": library.Image(decode=False)})
        made = library.Dataset.from_dict({"image": cells}, features=features)
        made.to_parquet(folder / f"{part}-00000-of-00001.parquet")
    for limits in (None, ON_DISK):
        source = load_data("hf:owner/name", limits=limits, on_bad="skip")
        found = source.test[slice(None)][0][:, 0, 0, 0].tolist()
        assert found == [i for i in range(45, NUM) if i not in (50, 51)]
        assert len(source.train) + len(source.validation) == 44


def test_no_network_without_hf(library, tmp_path, monkeypatch):
    """Opening files asks nobody, whatever the library would like to count."""
    import socket

    def connect(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    path = parquet(tmp_path, a=TABLE[:, 1])
    for limits in (None, ON_DISK):
        assert len(load_data(path, limits=limits).train) == 48


@PLACES
def test_arrays_in_a_column_keep_their_axes_where_that_is_asked(library, limits, tmp_path):
    x = np.random.default_rng(0).normal(size=(NUM, 2, 9)).astype(np.float32)
    features = library.Features({"x": library.Array2D((2, 9), "float32")})
    library.Dataset.from_dict({"x": x.tolist()}, features).to_parquet(tmp_path / "t.parquet")
    source = load_data(tmp_path / "t.parquet", layout="arrays", limits=limits)
    assert source.event_shape == (2, 9)
    known = {row.tobytes() for row in x}
    assert all(row.numpy().tobytes() in known for row in whole(source)[0])
