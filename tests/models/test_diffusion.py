"""Diffusion by real networks: gradients, weightings, noise, precision, options."""

from __future__ import annotations

import math
import re

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.distributions import Binary, Discrete, Real
from lowerbound.errors import InputError
from lowerbound.models import Diffusion
from lowerbound.models.weightings import WEIGHTINGS, weight
from lowerbound.nn import DiT, MlpDenoiser, UNet
from lowerbound.noising import PREDICTIONS, alpha, denoised, sigma, target
from lowerbound.schedules import SCHEDULES, LearnedSchedule, make_schedule
from tests.models.gaussian_diffusion import optimal_model

SMALL = {"network": "mlp", "width": 16, "depth": 2}


def small(shape=(6,), support="discrete:17", **options) -> Diffusion:
    """A small model whose weights, none of them zero, make it say something."""
    model = create_model("diffusion", shape, support=support, **{**SMALL, **options})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def data(num: int, shape=(6,)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 17, (num, *shape), generator=generator).float()


def gradients(model, value) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, found, strict=True) if g is not None}


# --- the three terms ------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_says_the_target_has_no_error(prediction):
    """Whatever is predicted: the diffusion term of a network that knows ε is zero."""
    model = small(prediction=prediction).double()
    x = data(5).double()
    y, noise = model.end.scaled(x), model.noise(5, 2, torch.Generator().manual_seed(0))
    eps = noise["eps"].double()
    gamma = model.schedule.gamma(noise["time"].double()).reshape(-1, 1)
    said = target(prediction, y.expand(2, -1, -1).flatten(0, 1), eps.flatten(0, 1), gamma, 1.0)
    model.network.forward = lambda z, level, extra=None: said
    bound = model.bound(x, num_samples=2, noise=noise)
    torch.testing.assert_close(
        bound.rates["diffusion"], torch.zeros(5).double(), atol=1e-6, rtol=0
    )


def test_continuous_time_is_half_the_slope_times_the_squared_error():
    model = small(schedule="cosine", prediction="eps")
    x, noise = data(4), model.noise(4, 3, torch.Generator().manual_seed(0))
    level = model.schedule(noise["time"].flatten())
    y, eps = model.end.scaled(x).repeat(3, 1), noise["eps"].flatten(0, 1)
    gamma = level.gamma[:, None]
    z = alpha(gamma) * y + sigma(gamma) * eps
    error = eps - model.denoise(z, level.gamma).eps
    expected = 0.5 * level.rate * error.square().sum(1)  # summed over dimensions
    rate = model.bound(x, num_samples=3, noise=noise).rates["diffusion"]
    torch.testing.assert_close(rate, expected.unflatten(0, (3, 4)).mean(0))


def test_a_learned_variance_that_is_fixed_is_the_fixed_one():
    """v → 0 is Q itself; a better v costs less than it."""
    model = small(timesteps=4, variance="learned")
    x, noise = data(8), model.noise(8, 1, torch.Generator().manual_seed(0))
    plain = small(timesteps=4)
    v = torch.tensor(-30.0)
    raw = model.network.forward
    model.network.forward = lambda *a: torch.cat([raw(*a)[:, :6], v.expand(8, 6)], 1)
    plain.network.forward = lambda *a: raw(*a)[:, :6]
    rate, other = (m.bound(x, noise=noise).rates["diffusion"] for m in (model, plain))
    torch.testing.assert_close(rate, other)
    v.fill_(3.0)
    assert (model.bound(x, noise=noise).rates["diffusion"] < other).any()


def test_many_levels_tend_to_continuous_time():
    chain, continuous = small(timesteps=4000), small()
    chain.load_state_dict(continuous.state_dict())
    x = data(6)
    noise = chain.noise(6, 400, torch.Generator().manual_seed(0))
    chain, continuous = (m.bound(x, num_samples=400, noise=noise) for m in (chain, continuous))
    torch.testing.assert_close(chain.value, continuous.value, rtol=0.02, atol=0)


# --- randomness -----------------------------------------------------------------------------


def test_times_of_one_call_are_spread_evenly_and_each_is_uniform():
    model = small()
    calls = [model.noise(4, 2, torch.Generator().manual_seed(i))["time"] for i in range(400)]
    for time in calls[:20]:
        assert torch.equal(torch.floor(time.flatten().sort().values * 8), torch.arange(8.0))
        gaps = time.sort(0).values.diff(dim=0)  # those of one example too
        torch.testing.assert_close(gaps, torch.full((1, 4), 0.5))
    each = torch.stack(calls)  # (400, 2, 4)
    assert ((each >= 0) & (each < 1)).all()
    assert ((each.mean(0) - 0.5).abs() < 4 / math.sqrt(12 * 400)).all()
    assert ((each.std(0) - 1 / math.sqrt(12)).abs() < 0.04).all()


def test_the_noises_of_the_two_ends_are_not_the_same():
    noise = small().noise(3, 2, torch.Generator().manual_seed(0))
    assert noise["eps"].shape == noise["eps_0"].shape == (2, 3, 6)
    assert not torch.isclose(noise["eps"], noise["eps_0"]).any()


def test_each_end_of_the_bound_has_a_noise_of_its_own():
    """With one for both the mean is right too, and the two terms vary together."""
    model = create_model("diffusion", (4,), support="discrete:17", network="mlp", width=8).eval()
    x, noise = torch.randint(17, (5, 4)), model.noise(5, 1, torch.Generator().manual_seed(0))
    whole = model.bound(x, noise=noise)
    for name, is_of_the_end in (("eps", False), ("eps_0", True)):
        other = model.bound(x, noise={**noise, name: noise[name].flip(-1) + 1})
        kept = torch.equal(other.rates["diffusion"], whole.rates["diffusion"])
        assert kept is is_of_the_end
        assert torch.equal(other.reconstruction, whole.reconstruction) is not is_of_the_end


def test_half_precision_stays_inside_the_network():
    model = small()
    x, noise = data(64), model.noise(64, 1, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.bound(x, noise=noise)
    full = model.bound(x, noise=noise)
    assert all(t.dtype == torch.float32 for t in half.terms().values())
    assert torch.equal(half.reconstruction, full.reconstruction)
    assert torch.equal(half.rates["prior"], full.rates["prior"])
    assert not torch.equal(half.rates["diffusion"], full.rates["diffusion"])
    torch.testing.assert_close(half.rates["diffusion"], full.rates["diffusion"], rtol=0.1, atol=1)


# --- what training follows ------------------------------------------------------------------


@pytest.mark.parametrize("learn_ends", [False, True])
def test_the_interior_follows_the_variance_and_everything_else_the_bound(learn_ends):
    model = small(schedule="learned", learn_ends=learn_ends)
    x, noise = data(32), model.noise(32, 2, torch.Generator().manual_seed(0))
    given = {"num_samples": 2, "noise": noise}
    plain = gradients(model, -model.bound(x, **given).value.mean())
    y = model.end.scaled(x)
    rate = model.rates_at(y, noise["eps"], noise["time"])[0]
    squared = gradients(model, 0.5 * rate.square().mean() / rate.detach().mean())
    model.train()
    trained = gradients(model, -model.bound(x, **given).value.mean())
    for name, gradient in trained.items():
        interior = name.startswith("schedule.") and "gamma" not in name
        expected = squared[name] if interior else plain[name]
        torch.testing.assert_close(
            gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )
    assert {n for n in trained if n.startswith("schedule.")} >= {"schedule.heights"}
    assert ("schedule.gamma_0" in trained) == ("schedule.gamma_1" in trained) == learn_ends
    assert not torch.allclose(trained["schedule.heights"], plain["schedule.heights"], rtol=1e-2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_fixed_schedule_has_nothing_to_average_or_to_learn(name):
    model = small(schedule=name)
    learned = [n for n, _ in model.named_parameters() if n.startswith("schedule")]
    assert bool(learned) == (name == "learned")
    assert not any("gamma_" in n for n in learned)


@pytest.mark.parametrize("timesteps", [None, 7])
@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_a_weighting_changes_the_loss_and_never_the_bound(kind, timesteps):
    given = {"timesteps": timesteps, "schedule": "cosine"}
    plain, weighed = (small(weighting=k, **given) for k in ("bound", kind))
    x, noise = data(5), plain.noise(5, 1, torch.Generator().manual_seed(0))
    bound, other = plain.bound(x, noise=noise), weighed.bound(x, noise=noise)
    assert torch.equal(bound.value, other.value)
    assert (bound.surrogate, other.surrogate is None) == (None, kind == "bound")
    if kind != "bound":
        weights = (other.reconstruction - other.rates["prior"] - other.surrogate) / other.rates[
            "diffusion"
        ]
        assert (weights > 0).all()
        assert not torch.allclose(weights, torch.ones(5), rtol=0.05)


def test_weights_are_those_of_their_definitions():
    """Each weighted bound is the loss that its paper writes, up to one constant."""
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    schedule = make_schedule("cosine", -9.0, 6.0).double()
    gamma, rate, _ = schedule(t)
    width = torch.tensor(15.0, dtype=torch.float64)

    def constant(kind, per_time):
        """Of weight · bound's own ½ γ' per ‖ε − ε̂‖², over what the paper weighs it by."""
        ratio = weight(kind, gamma, rate, width) * rate / per_time
        torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))

    snr = torch.exp(-gamma)
    constant("bound", rate)
    constant("simple", torch.ones_like(t))
    constant("min-snr", torch.minimum(snr, torch.tensor(5.0)) / snr)
    # Flow: z = (1 − τ) x + τ ε at uniform τ, so that γ = 2 log τ/(1 − τ) and the velocity's error
    # is ‖ε − ε̂‖/(1 − τ).
    tau = torch.sigmoid(gamma / 2)
    constant("flow", (1 - tau) ** -2 * tau * (1 - tau) * rate)
    # EDM: log σ = γ/2 ~ N(−1.2, 1.2²), λ(σ) = (σ² + ¼)/(σ/2)², ‖x − x̂‖² = σ²‖ε − ε̂‖².
    bell = torch.exp(-0.5 * ((gamma / 2 + 1.2) / 1.2) ** 2)
    squared = gamma.exp()
    constant("edm", bell * (squared + 0.25) / (squared * 0.25) * squared * rate)


# --- networks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "kind"),
    [
        ((1, 8, 8), {}, UNet),
        ((3, 9, 11), {}, UNet),
        ((1, 7, 9), {}, MlpDenoiser),
        ((5,), {}, MlpDenoiser),
        ((2, 6), {"network": "dit"}, DiT),
    ],
)
def test_the_network_fits_the_shape(shape, options, kind):
    options = {"network": "auto", "width": 32, "support": "discrete:256", **options}
    model = small(shape, **options, timesteps=5, variance="learned")
    assert type(model.network.network) is kind
    assert model.network.features.exponents == (7, 8)
    z = torch.randn(2, *shape)
    out = model.network(z, torch.tensor([0.0, 900.0]))
    assert out.shape == (2, 2 * shape[0], *shape[1:])


def test_fourier_features_are_those_that_are_asked_for():
    assert small(fourier=()).network.network.first.in_features == 6
    assert small(fourier=(1, 2)).network.features.exponents == (1, 2)
    assert small(support="real").network.features.exponents == ()


def test_the_unet_of_small_images_is_small():
    light, heavy = (
        create_model("diffusion", shape, support="binary").num_parameters
        for shape in ((1, 8, 8), (1, 28, 28))
    )
    assert 2 * light < heavy


def test_the_network_is_told_levels_from_0_to_1000():
    model, seen = small(), []
    model.network.forward = lambda z, level, extra=None: (seen.append(level), z[:, :6])[1]
    model.denoise(torch.zeros(3, 6), model.schedule.gamma_0)
    model.denoise(torch.zeros(2, 6), torch.stack([model.schedule.gamma_1, model.schedule.gamma_0]))
    assert torch.equal(seen[0], torch.zeros(3))
    assert torch.equal(seen[1], torch.tensor([1000.0, 0.0]))


def test_parts_that_make_no_chain_are_refused():
    parts = optimal_model(dims=2)
    network, schedule, end = parts.network, parts.schedule, parts.end
    with pytest.raises(InputError, match="'timesteps' must be at least 2"):
        Diffusion(network, schedule, end, timesteps=1)
    with pytest.raises(InputError, match="'variance' must be fixed in continuous time"):
        Diffusion(network, schedule, end, learn_variance=True)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_what_the_denoiser_says_explains_z(prediction):
    model = small(prediction=prediction)
    z, gamma = torch.randn(5, 6), torch.linspace(-6, 4, 5)
    x, eps = model.denoise(z, gamma)
    torch.testing.assert_close(alpha(gamma)[:, None] * x + sigma(gamma)[:, None] * eps, z)
    assert denoised("eps", z, eps, gamma[:, None]).x.shape == x.shape


# --- defaults and refusals ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("support", "gamma_0"), [(Discrete(256), -13.29), (Binary(), -3.58), (Real(), -13.3)]
)
def test_the_clean_end_fits_the_levels(support, gamma_0):
    model = create_model("diffusion", (2,), support=support, **SMALL)
    assert float(model.schedule.gamma_0) == pytest.approx(gamma_0, abs=0.01)
    assert float(model.schedule.gamma_1) == 5
    own = create_model("diffusion", (2,), support=support, **SMALL, gamma_min=-4, gamma_max=3)
    assert (float(own.schedule.gamma_0), float(own.schedule.gamma_1)) == (-4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": 0}, "'timesteps' must be at least 2, .*, got 0; leave it out for cont"),
        ({"timesteps": 1}, "'timesteps' must be at least 2"),
        ({"gamma_min": 6.0}, "'gamma_max' must be finite and above gamma_min = 6"),
        ({"schedule": "slow"}, "'schedule' .* not valid"),
        ({"variance": "learned"}, "'variance' must be fixed in continuous time.*--timesteps"),
        ({"schedule": "learned", "weighting": "simple"}, "'schedule' must be fixed for a weigh"),
        ({"learn_ends": True, "weighting": "flow"}, "'learn_ends' must be left out for a weigh"),
        ({"network": "unet"}, "'network' must be mlp for data of shape 6, got unet"),
        ({"depth": 0}, "'depth' must be at least 1"),
        ({"width": 0}, "'width' must be at least 1"),
        ({"sampling_steps": 0}, "'sampling_steps' must be at least 1"),
        (
            {"sampling_steps": 7, "timesteps": 7},
            "'sampling_steps' must be at most 6, the steps of",
        ),
        ({"sampler": "slow"}, "'sampler' .* not valid"),
        ({"patch": 0, "network": "dit"}, "'patch' must be at least 1"),
        ({"patch": 2}, "'patch' must be left out for a mlp: dit has it, got 2"),
        ({"dropout": 1.0}, "'dropout' must be from 0 to below 1"),
        ({"widths": (1, 0)}, "'widths' must be numbers of at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)


def test_more_stages_than_pixels_are_refused_with_the_number_that_fits():
    with pytest.raises(
        InputError, match="'widths' must be at most 4 stages for 8×8 pixels, got 5"
    ):
        create_model("diffusion", (1, 8, 8), support="binary", widths=(1, 1, 1, 1, 1))


def test_learned_ends_of_a_density_are_refused():
    with pytest.raises(InputError, match="'learn_ends' must be left out for real data"):
        small(support="real", learn_ends=True)


def test_an_end_that_leaves_signal_is_warned_of_in_bits(digits):
    model = create_model("diffusion", digits, **SMALL, gamma_max=0.0)
    (said,) = model.warnings()
    assert "gamma_max = 0, leaves signal" in said
    y = model.end.scaled(digits.train[slice(0, None)][0])
    bits = float(model.prior_rate(y).mean()) / (64 * math.log(2))
    assert f"costs {bits:.3f} bits per dimension" in said
    assert said in model.notes()
    assert not create_model("diffusion", digits, **SMALL).warnings()


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_an_end_that_blurs_levels_is_warned_of_in_bits(levels):
    """What is said is the mean of log p(x|z_0), of a level with others on either side."""
    given = {"support": f"discrete:{levels}", **SMALL}
    model = create_model("diffusion", (40_000,), **given, gamma_min=2 * math.log(1.5 / levels))
    (said,) = model.warnings()
    x = torch.full((1, 40_000), float(levels // 2))
    bound = model.bound(x, noise=model.noise(1, 1, torch.Generator().manual_seed(0)))
    bits = -float(bound.reconstruction) / 40_000 / math.log(2)
    assert float(re.search(r"costs up to ([\d.]+) bits", said)[1]) == pytest.approx(bits, abs=0.03)
    assert not create_model("diffusion", (4,), **given).warnings()
    ddpm = create_model("diffusion", (4,), **given, schedule="ddpm")
    assert bool(ddpm.warnings()) == (levels == 256)


def test_levels_that_are_all_looked_at_are_looked_at_in_fewer_rows():
    sizes = {"network": "mlp", "width": 8, "support": "discrete:256"}
    usual, learned = (
        create_model("diffusion", (1000,), learn_ends=ends, **sizes) for ends in (False, True)
    )
    assert usual.rows_together(500) == 500
    assert learned.rows_together(500) == 2**24 // 256_000


def test_a_weighting_from_parts_learns_no_schedule():
    model = small()
    with pytest.raises(InputError, match="'schedule' must be fixed for a weighting, got learned"):
        Diffusion(model.network, LearnedSchedule(-9.0, 5.0), model.end, weighting="simple")


def test_only_what_trains_an_interior_measures_it_over_all_processes(monkeypatch):
    def alone(tensor):
        raise AssertionError("asked all processes for a mean")

    monkeypatch.setattr("lowerbound.models.variance.global_mean", alone)
    learned, x = small(schedule="learned"), data(4)
    assert learned.bound(x).value.isfinite().all()  # judged, by one process or with others
    assert small().train().bound(x).value.isfinite().all()
    with pytest.raises(AssertionError, match="all processes"):
        learned.train().bound(x)


@pytest.mark.parametrize("reweighing", ["beta", "beta_warmup", "kl_balancing"])
def test_what_a_weighting_would_lose_is_refused(reweighing):
    small().check_objective("elbo", reweighing if reweighing != "kl_balancing" else None)
    for model in (small(weighting="simple"), small(learn_ends=True)):
        with pytest.raises(InputError, match=f"'{reweighing}' must be left out"):
            model.check_objective("elbo", reweighing)
