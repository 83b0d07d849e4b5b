"""What a result is called: by what was asked for, so that nothing else overwrites it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lowerbound.commands.shared import OfRun, named


@dataclass(frozen=True)
class Flags(OfRun):
    """Flags of a made-up command."""

    guidance: float = 0.0
    label: str | None = None
    mean: bool = False


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "samples"),
        ({"guidance": 1.5}, "samples-guidance-1-5"),
        ({"guidance": 2.0}, "samples-guidance-2"),
        ({"guidance": -1.5}, "samples-guidance-minus-1-5"),
        ({"label": "a/b c"}, "samples-label-b-c"),
        ({"mean": True}, "samples-mean"),
        ({"device": "cpu"}, "samples"),
    ],
)
def test_every_flag_that_matters_is_in_the_name_with_its_sign(given, expected):
    flags = Flags(run=Path("run"), **given)
    assert named(flags, "samples", ".png") == Path("run") / f"{expected}.png"
