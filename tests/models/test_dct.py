"""The DCT coder: an orthonormal basis by scipy's transform, its losses beside those of PCA."""

from __future__ import annotations

import pytest
import scipy.fft
import torch

from lowerbound.build import create_model
from lowerbound.distributions import Real
from lowerbound.errors import InputError
from lowerbound.models.classical.dct import dct_matrix
from tests.models.test_classical import whole
from tests.oracles import DIGITS_DCT_ERROR


def fitted(x: torch.Tensor, n: int):
    model = create_model("dct", tuple(x.shape[1:]), support=Real(), latent_dim=n)
    model.fit_exactly(whole(x, Real()))
    return model


def squared_error(model, x: torch.Tensor) -> float:
    return float((model.decode(model.encode(x).mean).mean - x).square().mean())


@pytest.fixture(scope="module")
def digit_images() -> torch.Tensor:
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().images / 16).unsqueeze(1)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_basis_is_orthonormal(n):
    phi = dct_matrix(n)
    torch.testing.assert_close(phi @ phi.mT, torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(5,), (1, 6, 5), (3, 7, 4)], ids=str)
def test_all_coefficients_are_those_of_scipy_and_give_the_data_back(shape):
    x = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = fitted(x, x[0].numel())
    centered = x - x.mean(0)
    theirs = scipy.fft.dctn(centered.numpy(), norm="ortho", axes=range(1, x.ndim))
    z = model.encode(x).mean
    torch.testing.assert_close(z, torch.from_numpy(theirs).flatten(1)[:, model.kept])
    torch.testing.assert_close(z.square().sum(1), centered.flatten(1).square().sum(1))  # Parseval
    torch.testing.assert_close(model.decode(z).mean, x)


def test_what_is_lost_is_the_variance_of_what_is_dropped_and_no_choice_loses_less(digit_images):
    everything = fitted(digit_images, 64)
    variance = everything.encode(digit_images).mean.var(0, correction=0)
    assert (variance.diff() <= 1e-12).all()
    model = fitted(digit_images, 10)
    assert squared_error(model, digit_images) == pytest.approx(float(variance[10:].sum()) / 64)
    assert torch.equal(model.kept, everything.kept[:10])


@pytest.mark.parametrize("n", [1, 2, 10, 32, 63, 64])
def test_it_is_never_better_than_pca(digit_images, n):
    rows = digit_images.flatten(1)
    centered = rows - rows.mean(0)
    eigenvalues = torch.linalg.eigvalsh(centered.mT @ centered / len(rows))
    pca = float(eigenvalues[: 64 - n].clamp_min(0).sum()) / 64
    lost = squared_error(fitted(digit_images, n), digit_images)
    assert lost >= pca - 1e-12
    assert lost == pytest.approx(pca, abs=1e-12) if n == 64 else lost > 0


def test_ten_coefficients_of_the_digits_lose_what_is_known(digit_images):
    model = fitted(digit_images, 10)
    assert squared_error(model, digit_images) == pytest.approx(
        DIGITS_DCT_ERROR["centred"], abs=5e-4
    )
    model.mu.zero_()  # the same coefficients of data that were not centred
    lost = squared_error(model, digit_images)
    assert lost == pytest.approx(DIGITS_DCT_ERROR["the mean left in"], abs=5e-4)


def test_more_coefficients_than_dimensions_are_refused():
    with pytest.raises(InputError, match="'latent_dim' must be at most the 4 dimensions"):
        create_model("dct", (2, 2), latent_dim=5)
    with pytest.raises(InputError, match="'latent_dim' must be at least 1"):
        create_model("dct", (2, 2), latent_dim=0)
