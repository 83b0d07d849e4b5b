"""What the README and the docs say is true: their Python runs, their commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lowerbound.commands import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_exist_and_links_lead_somewhere(page):
    text = page.read_text()
    for verb in re.findall(r"^lowerbound ([a-z]+)", text, re.M):
        assert verb in COMMANDS, verb
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


def test_the_twenty_lines_of_python_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    small = code.replace("steps=500", "steps=5, quiet=True").replace(
        "num_samples=100", "num_samples=3"
    )
    assert small.count("steps=5,") == 1  # the mixture is fitted by EM, and has no steps
    exec(compile(small, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "(100, 1, 8, 8)" in out.replace("torch.Size([", "(").replace("])", ")")
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


def test_the_python_of_the_docs_runs():
    text = (ROOT / "docs" / "how-to" / "your-data.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(code.replace("steps=500", "steps=5, quiet=True"), "your-data.md", "exec"), {})


def test_the_annotated_tree_names_what_is_there():
    text = (ROOT / "docs" / "index.md").read_text()
    tree = re.search(r"```\nsrc/lowerbound/\n(.*?)```", text, re.S)[1]
    package = ROOT / "src" / "lowerbound"
    for line in tree.splitlines():
        for name in re.match(r"\s+([\w. /]+?)(?:\s{2,}|$)", line)[1].split():
            assert (package / name).exists(), name


def test_recipes_are_configurations_that_load():
    from lowerbound.cli import train_flags

    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        train_flags(["--config", str(path)])  # presets with options of their own among them
        assert re.search(r"^# .*nats", path.read_text(), re.M), f"{path.name} claims no number"
