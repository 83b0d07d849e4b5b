"""One small run on digits for all commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.calling import TRAIN, call


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert call("train", "digits", "--out", folder, *TRAIN) == 0
    return folder
