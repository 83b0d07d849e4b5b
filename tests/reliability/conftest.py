"""What the tests of reliability share: a run that nobody disturbed, to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowerbound.data import Source
from tests.reliability.tiny import tiny_source, train_here


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Crashes, power losses and leaks are counted: give long ones the time they need."""
    for item in items:
        if item.get_closest_marker("nightly") and "reliability" in str(item.path):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def source() -> Source:
    return tiny_source()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train_here(folder)
    return folder
