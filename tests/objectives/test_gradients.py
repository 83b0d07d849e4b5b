"""Every objective's gradient is that of what it says it climbs: a new one is tested by its name.

The model is the library's VAE in one dimension, where everything is known. An objective returns a
loss and a gradient, and nothing makes the second the derivative of the first: a detached tensor, a
hook or a second term changes it at will. Here both are measured on the same noise. The gradient by
autograd less the derivative of the value by central differences is zero draw by draw, or, where
another estimator has taken its place, zero in mean. The derivative itself must be that of the
exact bound, an integral.
"""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.models import VAE
from lowerbound.objectives import IMPORTANCE_WEIGHTED, OBJECTIVES, UNWEIGHTED, Weights
from tests.models.linear import affine_vae
from tests.objectives.toy import AT, KNOWN
from tests.oracles import importance_bound, importance_slope

CHUNKS, ROWS, STEP = 50, 200, 1e-4
GROUPED = Weights(num_groups=3, mix=0.4, beta=1.5)
ENCODER, DECODER = ("eta", "log_tau"), ("c",)

# Where the gradient is on purpose not that of the value: parameter -> what it belongs to instead.
# The encoder of piwae climbs the bound of miwae; stl is biased beyond one sample.
ELSEWHERE = {"piwae": dict.fromkeys(ENCODER, "miwae"), "stl": dict.fromkeys(ENCODER, None)}


def vae(**change: float) -> VAE:
    """q = N(η, τ²), p(x|z) = N(cz, s²): parameters of `LinearGaussian`, some of them moved."""
    at = {name: AT[name] + change.get(name, 0.0) for name in AT}
    return affine_vae(a=0.0, b=at["eta"], t=math.exp(at["log_tau"]), c=at["c"], v=0.0, s=KNOWN.s)


def noise(num_samples: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    shape = (num_samples, ROWS, 1)
    draws = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(CHUNKS)]
    return [{"z": eps} for eps in draws]


def losses(name: str, model: VAE, num_samples: int, weights: Weights) -> list[torch.Tensor]:
    """Mean loss of each chunk of rows."""
    x = torch.full((ROWS, 1), KNOWN.x, dtype=torch.float64)
    objective = OBJECTIVES[name]
    return [
        objective(model, x, None, n, num_samples, weights)[0].mean() for n in noise(num_samples)
    ]


def autograd(name: str, num_samples: int, weights: Weights) -> dict[str, torch.Tensor]:
    """Gradient of the value with respect to (η, log τ, c), (CHUNKS,) each."""
    model = vae()
    model.train()
    leaves = [model.encoder.bias, model.decoder.weight]
    found: dict[str, list[float]] = {parameter: [] for parameter in AT}
    for loss in losses(name, model, num_samples, weights):
        bias, weight = torch.autograd.grad(
            -loss, leaves, allow_unused=True, materialize_grads=True
        )
        for parameter, slope in zip((*ENCODER, *DECODER), (*bias, *weight[0]), strict=True):
            found[parameter].append(float(slope))
    return {parameter: torch.tensor(slopes) for parameter, slopes in found.items()}


def differences(name: str, parameter: str, num_samples: int, weights: Weights) -> torch.Tensor:
    """Derivative of the value by central differences on the same noise, (CHUNKS,)."""
    ends = []
    with torch.no_grad():
        for step in (STEP, -STEP):
            ends.append(torch.stack(losses(name, vae(**{parameter: step}), num_samples, weights)))
    return (ends[1] - ends[0]) / (2 * STEP)  # of the value, which is minus the loss


def assert_zero_in_mean(values: torch.Tensor) -> None:
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean())) < 4 * error + 1e-6  # the step of the differences


CASES = [(1, UNWEIGHTED), (3, UNWEIGHTED), (6, GROUPED)]


@pytest.mark.parametrize(("num_samples", "weights"), CASES, ids=["one", "three", "dials"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_the_derivative_of_the_value(name, num_samples, weights):
    slopes = autograd(name, num_samples, weights)
    for parameter, slope in slopes.items():
        of = name
        if num_samples > 1:
            of = ELSEWHERE.get(name, {}).get(parameter, name)
        if of is not None:
            assert_zero_in_mean(slope - differences(of, parameter, num_samples, weights))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_where_it_is_said_not_to_be_it_is_not(name):
    """Otherwise the exception would hide what the test above is for."""
    slope = autograd(name, 6, GROUPED)["eta"]
    apart = slope - differences(name, "eta", 6, GROUPED)
    error = float(apart.std()) / math.sqrt(CHUNKS)
    assert abs(float(apart.mean())) > 10 * error


@pytest.mark.parametrize("name", OBJECTIVES)
def test_of_one_sample_every_encoder_climbs_the_exact_elbo(name):
    """And every decoder; one that draws from the prior is the ELBO of the prior as encoder."""
    taught = name in IMPORTANCE_WEIGHTED | {"elbo"}
    at = AT if taught else {"c": KNOWN.c, "eta": 0.0, "log_tau": 0.0}
    for parameter, slope in autograd(name, 1, UNWEIGHTED).items():
        exact = importance_slope(1, parameter, **at)
        if parameter in ENCODER and not taught:
            exact = 0.0
        assert_zero_in_mean(slope - exact)


@pytest.mark.parametrize("num_samples", [2, 8, 64])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_value_lies_between_the_exact_bounds_of_one_and_of_all_samples(name, num_samples):
    at = AT if name in IMPORTANCE_WEIGHTED | {"elbo"} else {**AT, "eta": 0.0, "log_tau": 0.0}
    with torch.no_grad():
        values = -torch.stack(losses(name, vae(), num_samples, Weights(num_groups=2, mix=0.4)))
    error = 4 * float(values.std()) / math.sqrt(CHUNKS)
    assert float(values.mean()) > importance_bound(1, **at) - error
    assert float(values.mean()) < importance_bound(num_samples, **at) + error


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_parameter_of_both_networks_has_a_finite_gradient_that_is_not_zero(name, blobs):
    model = create_model("vae", blobs, latent_dim=2, width=8)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in model.parameters():  # away from 0, where blocks start and teach nothing
            values += 0.1 * torch.randn(values.shape, generator=generator)
    x = blobs.train.x[:64]
    drawn = model.noise(64, 6, generator)
    OBJECTIVES[name](model, x, None, drawn, 6, GROUPED)[0].mean().backward()
    for parameter, values in model.named_parameters():
        if parameter.startswith("encoder") and name not in IMPORTANCE_WEIGHTED | {"elbo"}:
            assert values.grad is None or not values.grad.any(), parameter
            continue
        assert values.grad is not None, parameter
        assert values.grad.isfinite().all(), parameter
        assert values.grad.abs().max() > 0, parameter
