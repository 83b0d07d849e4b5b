"""The importance-weighted objectives: values and gradients against quadrature, and their noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lowerbound.errors import InputError
from lowerbound.objectives import IMPORTANCE_WEIGHTED, OBJECTIVES, UNWEIGHTED, Weights
from tests.objectives.toy import AT, KNOWN, NAMES, Toy, ToyDraw, assert_mean, run, slopes
from tests.oracles import importance_bound, importance_slope


def mixed(share, one, many):
    return share * one + (1 - share) * many


# name, weights, number of draws, K of the encoder's and of the decoder's bound
CASES = [
    ("elbo", UNWEIGHTED, 2, 1, 1),
    ("iwae", UNWEIGHTED, 1, 1, 1),
    ("iwae", UNWEIGHTED, 2, 2, 2),
    ("iwae", UNWEIGHTED, 3, 3, 3),
    ("dreg", UNWEIGHTED, 2, 2, 2),
    ("dreg", UNWEIGHTED, 3, 3, 3),
    ("stl", UNWEIGHTED, 1, 1, 1),
    ("miwae", Weights(num_groups=2), 4, 2, 2),
    ("miwae", Weights(num_groups=2), 2, 1, 1),
    ("piwae", Weights(num_groups=3), 3, 1, 3),
]


@pytest.mark.parametrize(("name", "weights", "num_samples", "encoder", "decoder"), CASES)
def test_values_and_gradients_have_the_exact_means(name, weights, num_samples, encoder, decoder):
    _, bound, _ = run(name, num_samples, weights=weights)
    assert_mean(bound.value, importance_bound(decoder, **AT))
    grads = slopes(name, num_samples, weights=weights)
    for parameter in NAMES:
        k = decoder if parameter == "c" else encoder
        assert_mean(grads[parameter], importance_slope(k, parameter, **AT))


def test_the_combined_bound_and_its_gradients_have_the_exact_means():
    weights = Weights(mix=0.3)
    _, bound, _ = run("ciwae", 2, weights=weights)
    assert_mean(bound.value, mixed(0.3, *(importance_bound(k, **AT) for k in (1, 2))))
    for parameter, grads in slopes("ciwae", 2, weights=weights).items():
        assert_mean(grads, mixed(0.3, *(importance_slope(k, parameter, **AT) for k in (1, 2))))


@pytest.mark.parametrize("num_samples", [1, 2, 4, 16, 64])
def test_the_bound_rises_with_the_samples_as_it_does_exactly(num_samples):
    _, bound, _ = run("iwae", num_samples)
    assert_mean(bound.value, importance_bound(num_samples, **AT))


def test_leaving_the_score_out_is_biased_beyond_one_sample():
    grads = slopes("stl", 3)
    error = float(grads["eta"].std()) / math.sqrt(len(grads["eta"]))
    assert abs(float(grads["eta"].mean()) - importance_slope(3, "eta", **AT)) > 20 * error
    assert_mean(grads["c"], importance_slope(3, "c", **AT))


@pytest.mark.parametrize("name", sorted(IMPORTANCE_WEIGHTED))
@pytest.mark.parametrize("num_samples", [1, 6])
def test_at_the_true_posterior_every_value_is_the_evidence(name, num_samples):
    _, bound, _ = run(name, num_samples, rows=50, posterior=True)
    torch.testing.assert_close(bound.value, torch.full_like(bound.value, KNOWN.log_evidence))


@pytest.mark.parametrize("num_samples", [1, 6])
def test_at_the_true_posterior_the_path_gradients_of_the_encoder_vanish(num_samples):
    for name in ("stl", "dreg"):
        grads = slopes(name, num_samples, rows=50, posterior=True)
        assert max(float(grads[n].abs().max()) for n in ("eta", "log_tau")) < 1e-12
        assert float(grads["c"].abs().max()) > 0.1
    assert float(slopes("iwae", num_samples, rows=50, posterior=True)["eta"].abs().max()) > 0.1


def same(one, other, names=NAMES):
    for name in names:
        torch.testing.assert_close(one[name], other[name])


def test_objectives_that_are_special_cases_of_one_another_agree_draw_by_draw():
    iwae, elbo_ = slopes("iwae", 6, rows=9), slopes("elbo", 6, rows=9, kl="sampled")
    for name in ("miwae", "piwae", "ciwae"):
        same(slopes(name, 6, rows=9), iwae)
    same(slopes("miwae", 6, rows=9, weights=Weights(num_groups=6)), elbo_)
    same(slopes("ciwae", 6, rows=9, weights=Weights(mix=1.0)), elbo_)
    same(slopes("dreg", 1, rows=9), slopes("stl", 1, rows=9))
    same(slopes("iwae", 1, rows=9), slopes("elbo", 1, rows=9, kl="sampled"))
    for name in ("dreg", "stl"):
        same(slopes(name, 6, rows=9), iwae, ["c"])


def test_piwae_is_miwae_for_the_encoder_and_iwae_for_the_decoder():
    weights = Weights(num_groups=3)
    piwae, miwae = (slopes(name, 6, rows=9, weights=weights) for name in ("piwae", "miwae"))
    same(piwae, miwae, ["eta", "log_tau"])
    same(piwae, slopes("iwae", 6, rows=9), ["c"])
    assert not torch.allclose(piwae["c"], miwae["c"])


@pytest.mark.parametrize(
    ("name", "weights"), [("miwae", Weights(num_groups=3)), ("ciwae", Weights(mix=0.4))]
)
def test_what_validation_follows_is_tighter_than_what_groups_and_mixtures_climb(name, weights):
    """L̂_N of the same N draws is never below, draw by draw: the logarithm is concave."""
    looser, tighter = run(name, 6, weights=weights)[1].value, run("iwae", 6)[1].value
    assert (looser <= tighter + 1e-12).all()
    assert (looser < tighter - 0.01).double().mean() > 0.5


def test_groups_are_runs_of_samples_and_never_mix_examples():
    _, bound, model = run("miwae", 6, rows=5, weights=Weights(num_groups=2))
    w = model.draw(model.x, 6, noise=model.noise(6)).log_weight.exp()
    by_hand = (w[:3].mean(0).log() + w[3:].mean(0).log()) / 2
    torch.testing.assert_close(bound.value, by_hand.detach())
    shares = torch.cat([w[:3] / w[:3].sum(0), w[3:] / w[3:].sum(0)]) / 2
    likelihood = model.draw(model.x, 6, noise=model.noise(6)).log_likelihood
    torch.testing.assert_close(bound.reconstruction, (shares * likelihood).sum(0).detach())


@pytest.mark.parametrize("num_groups", [4, 0, -1, 12])
def test_groups_that_do_not_divide_the_samples_are_refused(num_groups):
    for name in ("miwae", "piwae"):
        with pytest.raises(InputError, match="'num_groups' must be a divisor of the 6 samples"):
            run(name, 6, rows=5, weights=Weights(num_groups=num_groups))


def test_the_doubly_reparameterised_gradient_is_that_of_its_formula():
    model = Toy(7)
    z = model.draw(model.x, 4, noise=model.noise(4)).latents["z"].detach()
    log_weight = model.draw(model.x, 4, noise=model.noise(4)).log_weight
    shares = (log_weight - log_weight.logsumexp(0)).exp()
    # ∂ log w/∂z of Gaussians, by hand; ∂z/∂η = 1 and ∂z/∂log τ = z − η.
    along = (
        KNOWN.c * (KNOWN.x - KNOWN.c * z) / KNOWN.s**2 - z + (z - KNOWN.eta) / KNOWN.tau**2
    ).squeeze(-1)
    grads = slopes("dreg", 4, rows=7)
    torch.testing.assert_close(grads["eta"], (shares**2 * along).sum(0))
    by_hand = (shares**2 * along * (z - KNOWN.eta).squeeze(-1)).sum(0)
    torch.testing.assert_close(grads["log_tau"], by_hand)


def test_two_latents_have_no_doubly_reparameterised_gradient():
    class Two(Toy):
        def draw(self, *args, **options):
            draw = super().draw(*args, **options)
            return ToyDraw(draw.log_weight, {"a": draw.latents["z"], "b": draw.latents["z"]}, None)

    model = Two(3)
    with pytest.raises(InputError, match="'objective' must be iwae or stl for a model with lat"):
        OBJECTIVES["dreg"](model, model.x, None, model.noise(2), 2, UNWEIGHTED)


def test_weights_in_double_precision_give_latents_in_single_their_gradient():
    class Wide(Toy):
        def draw(self, *args, **options):
            draw = super().draw(*args, **options)
            return ToyDraw(draw.log_weight.double(), draw.latents, draw.log_likelihood)

    model = Wide(5)
    model.eta = torch.full((5, 1), KNOWN.eta, requires_grad=True)
    model.log_tau, model.c, model.prior = (
        model.log_tau.float(),
        model.c.float(),
        model.prior.float(),
    )
    noise = {"z": model.noise(3)["z"].float()}
    OBJECTIVES["dreg"](model, model.x, None, noise, 3)[0].sum().backward()
    expected = -slopes("dreg", 3, rows=5)["eta"]
    torch.testing.assert_close(model.eta.grad.squeeze(1).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "exponent"), [("iwae", -0.5), ("dreg", 0.5)])
def test_the_encoders_signal_to_noise_ratio_falls_with_samples_or_grows(name, exponent):
    """Rainforth et al. 2018, theorem 1, and Tucker et al. 2019."""
    samples = (1, 4, 16, 64, 256)
    ratios = {"eta": [], "log_tau": []}
    for k in samples:
        # Both estimators have the same mean; dreg's is known well enough to be that of both.
        signal, noisy = slopes("dreg", k, rows=8000), slopes(name, k, rows=8000)
        for parameter, found in ratios.items():
            found.append(float(signal[parameter].mean().abs() / noisy[parameter].std()))
    for found in ratios.values():
        # The theorem is about large K: there the exponent is known better.
        for first, within in ((0, 0.15), (2, 0.06)):
            slope = np.polyfit(np.log(samples[first:]), np.log(found[first:]), 1)[0]
            assert slope == pytest.approx(exponent, abs=within)


def test_more_groups_give_the_encoder_a_better_signal():
    """Theorem 1 again: the ratio grows as √M at a fixed K."""
    ratios = []
    for num_groups in (1, 16):
        grads = slopes("miwae", 4 * num_groups, weights=Weights(num_groups=num_groups))["eta"]
        ratios.append(float(grads.mean() / grads.std()))
    assert ratios[1] / ratios[0] == pytest.approx(4.0, rel=0.15)
