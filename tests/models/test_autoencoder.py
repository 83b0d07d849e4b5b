"""The plain autoencoder: with linear networks it is PCA, and it is never a likelihood."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from lowerbound.build import create_model
from lowerbound.data import Rows, Source, make_source
from lowerbound.distributions import Discrete, Real
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate
from lowerbound.models import Autoencoder, AutoencoderOptions, VAEOptions
from lowerbound.run import fit


@pytest.fixture(scope="module")
def uneven() -> Source:
    """Columns (10 z₁, z₂ + .1 z₃, z₂ − .1 z₃): most variance in one, most correlation in two.

    One principal component of the data is the first column; one of their correlations is what
    the others share.
    """
    z = torch.randn(800, 3, generator=torch.Generator().manual_seed(0))
    x = z @ torch.tensor([[10.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.1, -0.1]])
    return make_source(Rows(x=x, support=Real(), name="uneven"))


def linear(source, k: int) -> Autoencoder:
    size = source.train.x[0].numel()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = nn.Sequential(nn.Flatten(), nn.Linear(size, k)), nn.Linear(k, size)
    return create_model("autoencoder", source, latent_dim=k, encoder=encoder, decoder=decoder)


def principal(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues, rising, and eigenvectors of the covariance, over the mean variance."""
    z = (x - x.mean(0)).double()
    covariance = z.mT @ z / len(z)
    return torch.linalg.eigh(covariance / covariance.diagonal().mean())


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("data", ["uneven", "blobs"])
def test_linear_networks_at_the_principal_components_are_at_the_optimum(request, data, k):
    """The loss is the sum of the dropped eigenvalues, and its gradient is zero."""
    source = request.getfixturevalue(data)
    model, x = linear(source, k).double(), source.train.x.double()
    eigenvalues, vectors = principal(x)
    scale = x.std(0, correction=0)  # the networks see columns of variance 1
    with torch.no_grad():
        model.encoder[1].weight.copy_(vectors[:, -k:].mT * scale)
        model.decoder.weight.copy_(vectors[:, -k:] / scale[:, None])
        for layer in (model.encoder[1], model.decoder):
            layer.bias.zero_()
    value = model.bound(x).value.mean()
    assert value.item() == pytest.approx(-float(eigenvalues[:-k].sum()), rel=1e-4)
    value.backward()
    assert all(float(p.grad.abs().max()) < 1e-4 for p in model.parameters())


@pytest.mark.parametrize("k", [1, 2])
def test_training_linear_networks_finds_pca_and_nothing_better(uneven, k):
    model = linear(uneven, k)
    fit(model, uneven, steps=400, learning_rate=0.01, quiet=True)
    best = float(principal(uneven.train.x)[0][:-k].sum())
    lost = -model.bound(uneven.train.x.double()).value.mean().item()
    assert best - 1e-5 < lost < best + 0.01  # of a total variance of 3


def test_beside_probabilistic_pca_it_has_the_same_squared_error(uneven):
    """Their errors stand side by side in a comparison: 0.67, not the 33.9 of correlations."""
    model, ppca = linear(uneven, 1), create_model("ppca", uneven, latent_dim=1)
    fit(model, uneven, steps=400, learning_rate=0.01, quiet=True)
    ppca.fit_exactly(uneven)
    ours, other = (
        evaluate(m, uneven, split="train", num_samples=1)["reconstruction_mse"]
        for m in (model, ppca)
    )
    assert other == pytest.approx(0.67, rel=0.1)
    assert ours == pytest.approx(other, rel=0.02)


def test_a_constant_column_is_learned_in_the_unit_of_the_others():
    z = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * 1e-4
    x = torch.cat([z, torch.full((400, 1), 0.5)], 1)
    source = make_source(Rows(x=x, support=Real(), name="constant"))
    lost = -linear(source, 2).bound(source.train.x).value.mean().item()
    assert lost < 20  # of a total variance of 2, before any training


def test_bent_networks_beat_pca_on_a_bent_line():
    t = torch.linspace(-2, 2, 500).unsqueeze(1)
    source = make_source(Rows(x=torch.cat([t, t.square()], 1), support=Real(), name="parabola"))
    model = create_model("autoencoder", source, latent_dim=1, width=32)
    fit(model, source, steps=300, learning_rate=0.01, quiet=True)
    pca = float(principal(source.train.x)[0][:-1].sum())
    assert -model.bound(source.test.x).value.mean().item() < 0.1 * pca


def test_the_loss_is_the_squared_error_in_one_unit_for_all_columns(blobs):
    model = linear(blobs, 2)
    x = blobs.test.x
    decoded = model.decode(model.encode(x).mean).mean
    unit = blobs.train.x.var(0, correction=0).mean().sqrt()
    expected = -((x - decoded) / unit).square().sum(1)
    torch.testing.assert_close(model.bound(x).value, expected)


def test_what_is_trained_is_the_error_whatever_the_weights_of_rates(blobs):
    from lowerbound.objectives import Weights, elbo

    model = linear(blobs, 2)
    for weights in (Weights(), Weights(beta=5.0), Weights(free_bits=2.0)):
        loss, bound = elbo(model, blobs.test.x, None, {}, 1, weights)
        torch.testing.assert_close(loss, -bound.value)


def test_its_options_are_the_words_of_the_vae():
    vae = {f.name: (f.type, f.default) for f in dataclasses.fields(VAEOptions)}
    for field in dataclasses.fields(AutoencoderOptions):
        assert vae[field.name] == (field.type, field.default)


def test_large_images_get_convolutions_and_any_support_a_finite_error():
    model = create_model("autoencoder", (3, 40, 37), support=Discrete(256), width=8)
    assert type(model.encoder).__name__ == "ConvEncoder"
    x = torch.full((2, 3, 40, 37), 255, dtype=torch.uint8)
    assert model.bound(x).value.isfinite().all()
    assert model.encode(x).mean.shape == (2, 40)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="'latent_dim' must be at least 1, got 0"):
        AutoencoderOptions(latent_dim=0)
    with pytest.raises(InputError, match="'depth' must be 0 or more, got -1"):
        AutoencoderOptions(depth=-1)
    with pytest.raises(InputError, match="'network' must be mlp for data of shape 5"):
        create_model("autoencoder", (5,), network="conv")


def test_a_point_has_no_density(blobs):
    q = linear(blobs, 2).encode(blobs.test.x)
    assert torch.equal(q.sample(), q.mean)
    assert (q.log_scale.exp() == 0).all()
    with pytest.raises(InputError, match="not a likelihood"):
        q.log_prob(q.mean)
