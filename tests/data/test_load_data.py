"""The grammar of specifications, the splits, and hostile bytes of every kind."""

import gzip
import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lowerbound.data import DATASETS, Classes, load_data, load_rows
from lowerbound.distributions.support import Binary, Discrete
from lowerbound.errors import InputError


def test_digits():
    source = load_data("digits")
    assert source.event_shape == (1, 8, 8)
    assert source.support == Discrete(17)
    assert source.context == Classes(10)
    assert [len(source.split(s)) for s in ("train", "validation", "test")] == [1439, 179, 179]
    again = load_data("digits")
    assert source.fingerprint == again.fingerprint
    assert torch.equal(source.train.x, again.train.x)
    assert not torch.equal(source.train.x, load_data("digits", seed=1).train.x)
    assert load_data("digits", support="discrete:32").support == Discrete(32)


def test_splits_are_a_partition(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(101)[:, None])
    source = load_data(tmp_path / "x.npy")
    parts = torch.cat([source.train.x, source.validation.x, source.test.x]).flatten()
    assert sorted(parts.tolist()) == list(range(101))


@pytest.mark.parametrize("how", ["dynamic", "static", "threshold"])
def test_binarize(how):
    source = load_data("digits", binarize=how)
    assert source.support == Binary()
    assert source.train.x.max() == 1
    assert (source.train.intensities is not None) == (how == "dynamic")
    assert source.test.intensities is None


def test_labels_are_part_of_the_fingerprint(tmp_path):
    prints = []
    for y in (np.arange(12) % 2, np.arange(12) // 6):
        np.savez(tmp_path / "a.npz", x=np.ones((12, 2)), y=y)
        prints.append(load_data(tmp_path / "a.npz").fingerprint)
    assert prints[0] != prints[1]


def test_few_examples(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((1, 3)))
    assert load_rows(tmp_path / "x.npy").x.shape == (1, 3)
    with pytest.raises(InputError, match="at least 10 examples"):
        load_data(tmp_path / "x.npy")


def test_bare_paths_are_recognised(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((12, 3)))
    np.savez(tmp_path / "x.npz", a=np.ones((12, 3)))
    (tmp_path / "t.CSV").write_text("1,2\n3,4\n")
    (tmp_path / "t.tsv").write_text("1\t2\n3\t4\n")
    (tmp_path / "images").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "images" / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    shapes = {"x.npy": (12, 3), "x.npz": (12, 3), "x.npz:a": (12, 3), "t.CSV": (2, 2)}
    for name, shape in {**shapes, "t.tsv": (2, 2), "images": (1, 1, 4, 4)}.items():
        assert load_rows(tmp_path / name).x.shape == shape
        assert load_rows(f"~/{name}").name == f"~/{name}"
    assert len(DATASETS) == 10


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("mnist", ["'data'", "mnist:DIR"]),
        ("fashion-mnist", ["fashion-mnist:DIR"]),
        ("folder", ["folder:DIR"]),
        ("mnist:", ["did you mean mnist:DIR?"]),
        ("hf:", ["hf:OWNER/NAME"]),
        ("hf:a/b/c", ["hf:OWNER/NAME:CONFIG"]),
        ("nowhere.parquet", ["nowhere.parquet", "existing file"]),
        ("nowhere.tar", ["nowhere.tar", "existing file"]),
        ("digit", ["did you mean digits?"]),
        ("mnits:/data", ["did you mean mnist:/data?"]),
        ("", ["digits", "mnist:DIR", "FILE.npz[:KEY]"]),
        ("something else", ["digits", "FILE.csv"]),
        ("x.txt", ["FILE.csv"]),
        ("nowhere.npz", ["nowhere.npz", "existing file"]),
        ("nowhere.npz:key", ["nowhere.npz", "existing file"]),
        ("mnist:nowhere", ["nowhere", "existing folder"]),
        ("a\0b.npy", ["existing file", r"a\x00b.npy"]),
        ("a\nb\x1b.npy", [r"a\nb\x1b.npy"]),
        (f"{'a' * 5000}.npy", ["aaa"]),
    ],
)
def test_unknown_specification(refused, spec, words):
    refused(spec, *words)


def test_arguments_that_do_not_apply(tmp_path, refused):
    np.save(tmp_path / "x.npy", np.ones((12, 3)))
    refused("digits", "'image_size'", image_size=8)
    refused(tmp_path / "x.npy", "'labels'", labels="y")
    refused("digits", "'on_bad'", "error or skip", on_bad="ignore")
    refused("digits", "'support'", support="bytes")
    refused(f"folder:{tmp_path / 'x.npy'}", "existing folder", "a file")
    (tmp_path / "d.npy").mkdir()
    refused(f"{tmp_path / 'd.npy'}:k", "d.npy")
    refused(tmp_path / "d.npy", "a folder of images")


def sample_bytes():
    """A good file of every format that the fuzz starts from."""
    npy, npz, flat = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, np.arange(24, dtype=np.float32).reshape(6, 4))
    np.savez_compressed(npz, x=np.arange(24).reshape(6, 4), y=np.array(list("abcabc")))
    np.savez(flat, x=np.arange(24).reshape(6, 4), y=np.arange(6))
    idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (6, 2, 2)) + bytes(range(24))
    csv = b'a;"b";label\n1;2,5;x\n3.5;-4e3;"y"\n'
    return {
        "npy": npy.getvalue(),
        "npz": npz.getvalue(),
        "stored.npz": flat.getvalue(),
        "idx": idx,
        "gz": gzip.compress(idx),
        "csv": csv,
        "csv2": csv.replace(b"2,5", b"2.5"),
    }


SAMPLES = sample_bytes()
TOKENS = (
    b"",
    b"\0" * 4,
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x80\0\0\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r\n",
    b'"',
    b"nan",
    b"-1",
    b"9" * 400,
    b"(" * 200,
    b"|O",
    b"PK\1\2",
    b"PK\5\6",
)

mutations = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), st.sampled_from(TOKENS) | st.binary(max_size=6)),
    max_size=4,
)


def mutated(data, edits):
    for place, removed, inserted in edits:
        at = int(place * len(data))
        data = data[:at] + inserted + data[at + removed :]
    return data


@pytest.mark.parametrize("kind", SAMPLES)
@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=mutations)
def test_hostile_bytes_are_rows_or_refused(tmp_path, kind, edits):
    data = mutated(SAMPLES[kind], edits)
    if kind in ("idx", "gz"):
        ending = ".gz" if kind == "gz" else ""
        labels = b"\0\0\x08\x01\0\0\0\6" + bytes(6)
        for part in ("train", "t10k"):
            (tmp_path / f"{part}-images-idx3-ubyte{ending}").write_bytes(data)
            (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        spec = f"mnist:{tmp_path}"
    else:
        path = tmp_path / f"t.{kind.removesuffix('2')}"
        path.write_bytes(data)
        spec = str(path)
    message = ""
    try:
        rows = load_rows(spec)
        assert rows.support.contains(rows.x)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) <= 300


@settings(max_examples=100, derandomize=True, deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(header=st.text(max_size=80) | st.sampled_from(["{}", "{'descr': 'O'}", "[]", "1"]))
def test_hostile_headers(tmp_path, header):
    text = header.encode("utf-8", "surrogatepass")
    member = b"\x93NUMPY\2\0" + len(text).to_bytes(4, "little") + text
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(InputError):
        load_rows(tmp_path / "a.npz")
