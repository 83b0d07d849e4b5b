"""What the tests share: one thread each, a small source, and the real data where there is any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from lowerbound.data import Rows, Source, load_data, make_source
from lowerbound.distributions import Real

torch.set_num_threads(1)  # the tests run side by side


@pytest.fixture(scope="session")
def digits() -> Source:
    return load_data("digits")


@pytest.fixture(scope="session")
def blobs() -> Source:
    """Real vectors in three dimensions with correlated columns of different units."""
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(400, 2, generator=generator)
    mixing = torch.tensor([[1.0, 0.5, 100.0], [-0.5, 1.0, 50.0]])
    x = z @ mixing + 0.1 * torch.randn(400, 3, generator=generator) * torch.tensor([1, 1, 100.0])
    return make_source(Rows(x=x + torch.tensor([5.0, 0.0, -300.0]), support=Real(), name="blobs"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with mnist/ and fashion-mnist/; tests that need it skip without."""
    folder = os.environ.get("LOWERBOUND_DATA")
    if not folder:
        pytest.skip("LOWERBOUND_DATA is unset: no folder with the real data sets")
    return Path(folder)
