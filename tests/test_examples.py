"""Every worked example keeps the claims of its own table, and has its page and its picture."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "examples"
SCRIPTS = sorted(p for p in (ROOT / "examples").glob("*.py") if not p.name.startswith("_"))
HEADER = ["quantity", "computed", "exact", "difference", "within"]
LARGEST_PICTURE = 120_000  # bytes

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)


def table(text: str) -> list[list[str]]:
    """The rows of the one Markdown table in a text, below its header."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == HEADER
    assert set(cells[1]) == {"---"}
    assert all(len(row) == len(HEADER) for row in cells)  # a bar in a name would break the table
    return cells[2:]


def claims(rows: list[list[str]]) -> int:
    """The number of rows with an exact value or interval, all of them within what they allow."""
    checked = [row for row in rows if row[2]]
    for name, computed, exact, difference, within in checked:
        if exact.startswith("["):
            low, high = (float(end) for end in exact.strip("[)").split(","))
            assert low <= float(computed) <= high, name
            continue
        assert abs(float(difference)) <= float(within) * 1.05, name  # printed with two digits
        spread = abs(float(computed) - float(exact))
        rounding = 1e-5 * (abs(float(computed)) + abs(float(exact)))  # printed with six digits
        assert spread <= float(within) * 1.05 + rounding, name
    return len(checked)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a script as `python SCRIPT --quick --out PICTURE` would be; its output and picture."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()

    def run(script: Path) -> tuple[str, Path]:
        picture = tmp_path / "picture.png"
        monkeypatch.syspath_prepend(str(script.parent))
        monkeypatch.setattr(sys, "argv", [str(script), "--quick", "--out", str(picture)])
        runpy.run_path(str(script), run_name="__main__")  # a broken claim raises SystemExit
        return capsys.readouterr().out, picture

    yield run
    sys.modules.pop("_shared", None)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def test_there_are_examples():
    assert len(SCRIPTS) >= 14


@each_script
def test_an_example_keeps_its_claims_and_its_page_names_them(script, run):
    out, picture = run(script)
    rows = table(out)
    assert claims(rows) >= 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = table((PAGES / f"{script.stem}.md").read_text())
    assert claims(page) >= 2
    assert {row[0] for row in rows} <= {row[0] for row in page}


@each_script
def test_an_example_is_short_and_has_a_page_with_a_picture(script):
    code = script.read_text()
    assert len(code.splitlines()) < 100
    page = (PAGES / f"{script.stem}.md").read_text()
    assert f"![]({script.stem}.png)" in re.sub(r"!\[[^\]]*\]", "![]", page)
    assert f"examples/{script.stem}.py" in page
    assert (PAGES / f"{script.stem}.png").stat().st_size <= LARGEST_PICTURE
    assert f"]({script.stem}.md)" in (PAGES / "index.md").read_text()


def test_a_broken_claim_ends_a_script(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import _shared

    figure, _ = _shared.panels("nothing")
    for computed, exact, within in ((1.0, 2.0, 0.5), (float("nan"), 0.0, 1.0)):
        with pytest.raises(SystemExit, match="outside its tolerance: what is claimed"):
            _shared.finish([("what is claimed", computed, exact, within)], figure, None)
    capsys.readouterr()
    for computed in (1.0, -1e-9, float("nan")):
        with pytest.raises(SystemExit, match="outside its tolerance: what is claimed"):
            _shared.finish([("what is claimed", computed, (0, 1), None)], figure, None)
    capsys.readouterr()
    held = [("held", 1.0, 1.5, 0.5), ("between", 0.0, (0, 0.5), None)]
    _shared.finish([*held, ("no claim", 7.0, None, None)], figure, None)
    assert claims(table(capsys.readouterr().out)) == 2
    sys.modules.pop("_shared", None)
