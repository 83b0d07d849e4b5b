"""Tables in and out: columns keep their names, and numbers read back as they were."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from tests.commands.calling import TRAIN, call

COLUMNS = ["height, m", "visits", "weight"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A run on a table of three columns and text labels."""
    folder = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    with open(folder / "t.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "species"])
        for height, visits in zip(rng.normal(size=60), rng.poisson(3, 60), strict=True):
            writer.writerow([height, visits, 2 * height + 0.1, "cat" if height > 0 else "dog"])
    out = folder / "run"
    assert call("train", folder / "t.csv", "--labels", "species", "--out", out, *TRAIN) == 0
    return out


def read(path) -> tuple[list[str], np.ndarray]:
    with open(path, newline="") as file:
        names, *rows = csv.reader(file)
    return names, np.array(rows, float)


@pytest.mark.parametrize("verb", ["sample", "reconstruct", "decode"])
def test_rows_are_written_under_the_names_of_their_columns(verb, table, tmp_path):
    if verb == "decode":
        assert call("encode", table) == 0
    for ending in (".csv", ".npz"):
        assert call(verb, table, "--out", tmp_path / f"x{ending}") == 0
    names, rows = read(tmp_path / "x.csv")
    arrays = np.load(tmp_path / "x.npz")
    expected = np.concatenate([arrays[key] for key in arrays], axis=1)
    more = [f"{n} reconstructed" for n in COLUMNS] if verb == "reconstruct" else []
    assert names == COLUMNS + more
    assert (rows.astype(np.float32) == expected).all()


def test_latents_go_through_a_table_and_back(table, tmp_path):
    for ending in (".csv", ".npz"):
        assert call("encode", table, "--out", tmp_path / f"z{ending}") == 0
        x = tmp_path / f"x-{ending[1:]}.npz"
        assert call("decode", table, "--latents", tmp_path / f"z{ending}", "--out", x) == 0
    names, rows = read(tmp_path / "z.csv")
    arrays = np.load(tmp_path / "z.npz")
    assert names == ["z_1", "z_2", "sigma_1", "sigma_2"]
    assert (rows.astype(np.float32) == np.hstack([arrays["z"], arrays["sigma"]])).all()
    a, b = (np.load(tmp_path / f"x-{kind}.npz")["x"] for kind in ("csv", "npz"))
    assert (a == b).all()


def test_columns_of_latents_are_found_by_name_and_their_number_is_checked(table, tmp_path, capsys):
    z = tmp_path / "z.csv"
    for text in ("z_2,z_1\n0.5,-1.5\n", "note,z_1,z_2\n7,-1.5,0.5\n"):
        z.write_text(text)
        out = tmp_path / f"{len(text)}.npz"
        assert call("decode", table, "--latents", z, "--out", out) == 0
    first, second = (np.load(p)["x"] for p in sorted(tmp_path.glob("*.npz")))
    assert (first == second).all()
    for text in ("a,b\n1,2\n", "z_1,z_2,z_3\n1,2,3\n", "z_1\n1\n"):
        z.write_text(text)
        assert call("decode", table, "--latents", z, "--out", tmp_path / "n.npz") == 2
        assert "a table with the columns z_1 … z_2" in capsys.readouterr().err
    assert not (tmp_path / "n.npz").exists()


def test_columns_are_numbered_and_said_so_where_the_data_are_gone(table, tmp_path, capsys):
    data = table.parent / "t.csv"
    hidden = data.rename(data.with_suffix(".away"))
    try:
        assert call("sample", table, "--num", 4, "--out", tmp_path / "s.csv") == 0
    finally:
        hidden.rename(data)
    assert read(tmp_path / "s.csv")[0] == ["x_1", "x_2", "x_3"]
    assert "note: columns are x_1, x_2" in capsys.readouterr().err


def test_a_table_is_drawn_by_2000_rows_unless_said(table, tmp_path):
    assert call("sample", table, "--out", tmp_path / "s.csv") == 0
    assert len(read(tmp_path / "s.csv")[1]) == 2000
