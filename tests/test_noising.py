"""Every prediction says the same x and the same noise."""

from __future__ import annotations

import pytest
import torch

from lowerbound.errors import InputError
from lowerbound.noising import PREDICTIONS, alpha, denoised, sigma, target


@pytest.fixture
def noised():
    generator = torch.Generator().manual_seed(0)
    x, eps = (torch.randn(7, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    gamma = torch.linspace(-13, 5, 7, dtype=torch.float64)[:, None]
    return x, eps, gamma, alpha(gamma) * x + sigma(gamma) * eps


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_perfect_prediction_gives_x_and_its_noise(kind, scale, noised):
    x, eps, gamma, z = noised
    found = denoised(kind, z, target(kind, x, eps, gamma, scale), gamma, scale)
    torch.testing.assert_close(found.x, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.eps, eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_any_prediction_explains_z(kind, noised):
    _, _, gamma, z = noised
    found = denoised(kind, z, torch.sin(7 * z), gamma, 0.5)
    torch.testing.assert_close(alpha(gamma) * found.x + sigma(gamma) * found.eps, z)


def test_noise_and_signal_share_one_variance_in_the_ratio_of_gamma():
    gamma = torch.linspace(-13, 5, 9, dtype=torch.float64)
    torch.testing.assert_close(alpha(gamma) ** 2 + sigma(gamma) ** 2, torch.ones_like(gamma))
    torch.testing.assert_close(2 * (sigma(gamma) / alpha(gamma)).log(), gamma)


def test_f_has_unit_variance():
    generator = torch.Generator().manual_seed(0)
    x, eps = (torch.randn(200_000, generator=generator) for _ in range(2))
    for gamma in (-6.0, 0.0, 3.0):
        f = target("f", 0.3 * x, eps, torch.tensor(gamma), 0.3)
        assert float(f.var()) == pytest.approx(1.0, rel=0.02)


def test_an_unknown_prediction_is_refused_by_name():
    with pytest.raises(InputError, match="eps, x, v, velocity, f"):
        denoised("score", torch.zeros(1), torch.zeros(1), torch.zeros(1))
