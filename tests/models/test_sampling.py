"""Draws of a diffusion: by every solver, any number of steps, guided; the same weights for all."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import Classes, Mask, Vector
from lowerbound.errors import InputError
from lowerbound.generation import draw
from lowerbound.models import Diffusion, Sampling
from lowerbound.renoising import inpaint
from lowerbound.schedules import LinearSchedule
from lowerbound.solvers import METHODS
from tests.models.gaussian_diffusion import LAMBDA, optimal_model
from tests.models.test_conditional import contexts, drawn_anew

SEED = 3


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def told(context, **options) -> Diffusion:
    given = {"network": "mlp", "width": 16, "sampling_steps": 4, "label_dropout": 0.2, **options}
    model = create_model("diffusion", (5,), support="discrete:9", context=context, **given)
    drawn_anew(model.network)
    return model


@pytest.mark.parametrize("learn_variance", [False, True])
def test_an_ancestral_draw_is_the_chain_step_by_step(learn_variance):
    model = optimal_model(LinearSchedule(-6.0, 4.0), 4, 0.7, 13, learn_variance)
    generator = seeded()
    z, gammas = model.white(6, generator), model.schedule.levels(13).flip(0)
    for gamma_t, gamma_s in itertools.pairwise(gammas):
        p = model.reverse(z, gamma_s, gamma_t)
        fresh = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        z = p.mean + p.variance.sqrt() * fresh
    drawn = model.sample(6, generator=seeded(), mean=True)
    torch.testing.assert_close(drawn, model.clean(z).mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", METHODS)
def test_every_sampler_draws_the_data(sampler):
    model = optimal_model(LinearSchedule(-9.0, 7.0), 4, 0.7).with_sampler(sampler, steps=150)
    x = model.sample(3000, generator=seeded()).flatten()
    error = 4 * math.sqrt(2 / len(x))
    assert float(x.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(x.var()) == pytest.approx(LAMBDA, rel=error + 0.05)  # Euler's is of first order


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm++", 2), ("heun", 2)])
def test_the_same_noise_gives_the_same_draw_whatever_the_steps(sampler, order):
    model = optimal_model(LinearSchedule(-9.0, 7.0), 4, 0.7)
    few, more, most = (
        model.with_sampler(sampler, steps=steps).sample(20, generator=seeded(), mean=True)
        for steps in (60, 120, 2000)
    )
    far, near = ((x - most).abs().mean() for x in (few, more))
    assert far < 0.05
    assert near < far / (1.6 if order == 1 else 2.5)


def test_another_sampler_is_another_model_of_the_same_weights(digits):
    model = create_model("diffusion", digits, network="mlp", width=16, sampling_steps=5)
    other = model.with_sampler("dpm++", steps=3)
    assert model.sampling == Sampling("ancestral", 5)
    assert other.sampling == Sampling("dpm++", 3)
    assert other.with_sampler(eta=0.5).sampling == Sampling("dpm++", 3, 0.5)
    own = dict(model.named_parameters())
    assert all(p is own[name] for name, p in other.named_parameters())
    x = digits.test.x[:3]
    assert torch.equal(model.bound(x).value, other.bound(x).value)
    drawn_anew(model)
    assert torch.equal(draw(other, 4), draw(model.with_sampler("dpm++", steps=3), 4))
    assert not torch.equal(draw(other, 4), draw(model, 4))


def test_the_network_is_asked_once_per_step_and_twice_by_heun():
    model, calls = told(Classes(3)), []
    model.network.register_forward_hook(lambda *given: calls.append(len(given[2])))
    for sampler, scale, expected in (
        ("ancestral", 1.0, [2] * 4),
        ("ddim", 3.0, [4] * 4),
        ("ddim", 0.0, [2] * 4),
        ("heun", 1.0, [2] * 8),
    ):
        calls.clear()
        model.with_sampler(sampler, guidance=scale).sample(2, generator=seeded())
        assert calls == expected


@pytest.mark.parametrize("sampler", METHODS)
def test_the_network_of_a_chain_is_never_asked_where_it_was_never_trained(sampler):
    model, levels = create_model("diffusion", (5,), network="mlp", width=16, timesteps=5), []
    drawn_anew(model.network)
    model.network.register_forward_hook(lambda _, given, out: levels.append(given[1].unique()))
    model.bound(torch.zeros(400, 5), generator=seeded())
    trained = torch.cat(levels).unique()
    levels.clear()
    drawing = model.with_sampler(sampler)
    drawing.sample(2, generator=seeded())
    inpaint(drawing, torch.zeros(2, 5), torch.tensor([True, False, True, False, True]))
    asked = torch.cat(levels).unique()
    assert len(trained) == 4
    assert (asked[:, None] - trained).abs().min(1).values.max() < 1e-3


@pytest.mark.parametrize("context", [Classes(4), Vector(3)], ids=lambda c: c.kind)
@pytest.mark.parametrize("variance", ["fixed", "learned"])
def test_guidance_goes_through_what_is_said_without_and_with_the_context(context, variance):
    chain = {"timesteps": 5} if variance == "learned" else {}
    model, given = told(context, variance=variance, **chain), contexts(context, 4)
    z, gamma = torch.randn(4, 5, generator=seeded()), torch.tensor(-1.0)
    nothing = context.unknown(4, (5,))
    with torch.no_grad():
        plain, without = model.denoise(z, gamma, given), model.denoise(z, gamma, nothing)
        for scale in (0.0, 1.0, 2.5):
            x, eps, *v = model.with_sampler(guidance=scale).denoiser(given)(z, gamma)
            torch.testing.assert_close(x, without.x + scale * (plain.x - without.x))
            torch.testing.assert_close(eps, without.eps + scale * (plain.eps - without.eps))
            assert len(v) == (variance == "learned")
    assert not torch.allclose(plain.x, without.x, rtol=1e-2)


def test_guidance_draws_further_towards_the_class():
    """Two hills at ±1: the more guidance, the further out on the right side."""

    class Hills(torch.nn.Module):
        """x̂ of N(±1, 1), or of 0 where the class is not known, by an embedding of ±1 or 0."""

        def forward(self, z, level, extra=None):
            gamma = (-6 + level / 1000 * 12)[:, None]
            a, s2 = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma)
            return extra + a / (a**2 + s2) * (z - a * extra)

    base = told(Classes(2))
    embedding = base.embedding
    with torch.no_grad():
        embedding.table = torch.nn.Embedding(3, 1)
        embedding.table.weight.copy_(torch.tensor([[1.0], [-1.0], [0.0]]))
    end = optimal_model(dims=1).end
    given = {"prediction": "x", "context": Classes(2), "embedding": embedding}
    model = Diffusion(Hills(), LinearSchedule(-6.0, 6.0), end, **given)
    model.options = base.options
    means = [
        float(model.with_sampler("ddim", guidance=s).sample(500, c, generator=seeded()).mean())
        for c in (torch.zeros(500).long(), torch.ones(500).long())
        for s in (0.0, 1.0, 2.0)
    ]
    up, down = means[:3], means[3:]
    assert up[0] == pytest.approx(down[0], abs=1e-6)
    assert up[1] == pytest.approx(1, abs=0.15)
    assert down[1] == pytest.approx(-1, abs=0.15)
    assert up[2] > up[1] + 0.5
    assert down[2] < down[1] - 0.5


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({}, {"sampler": "plms"}, "'sampler' must be one of ancestral, ddim, dpm.*, got plms"),
        ({}, {"steps": 0}, "'steps' must be at least 1, got 0"),
        ({}, {"eta": 0.5}, "'eta' must be 0 for the sampler ancestral, got 0.5; choose"),
        ({}, {"sampler": "ddim", "eta": 1.5}, "'eta' must be from 0 to 1, got 1.5"),
        ({}, {"guidance": math.nan}, "'guidance' must be a number of at least 0, got nan"),
        (
            {"timesteps": 9},
            {"steps": 9},
            "'steps' must be at most 8, the steps of a chain of T = 9",
        ),
        (
            {"label_dropout": 0.0},
            {"guidance": 2.0},
            "'guidance' must be 1 for a 'diffusion' trained",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, changes, message):
    with pytest.raises(InputError, match=message):
        told(Classes(3), **options).with_sampler(**changes)


def test_guidance_of_a_model_of_p_of_x_is_refused():
    model = create_model("diffusion", (5,), network="mlp", width=16)
    with pytest.raises(InputError, match=r"'guidance' must be 1 for a 'diffusion' of p\(x\), got"):
        model.with_sampler(guidance=3.0)


def test_guidance_of_a_model_that_is_given_a_part_of_x_is_refused():
    model = create_model("diffusion", (1, 8, 8), width=8, context=Mask(), label_dropout=0.1)
    with pytest.raises(InputError, match="'guidance' must be 1 for a 'diffusion' given a part of"):
        model.with_sampler(guidance=2.0)


def test_a_chain_draws_by_some_of_its_own_levels():
    model = optimal_model(LinearSchedule(-6.0, 4.0), 1, 0.0, 13)
    own = model.schedule.levels(13).flip(0)
    torch.testing.assert_close(model.levels(), own)
    for sampler in METHODS:
        some = model.with_sampler(sampler, steps=5).levels()
        assert len(some) == 6
        assert (some[0], some[-1]) == (own[0], own[-1])
        assert all(torch.isclose(own, level, atol=1e-6).any() for level in some)


def test_where_levels_lie_follows_the_sampler():
    model = optimal_model(LinearSchedule(-6.0, 4.0), 1)
    spaced = {
        "ancestral": lambda g: g,
        "heun": lambda g: (g / 14).exp(),
        "euler": lambda g: torch.sigmoid(g / 2),
    }
    for sampler, place in spaced.items():
        gammas = model.with_sampler(sampler, steps=7).levels()
        steps = place(gammas).diff()
        torch.testing.assert_close(steps, steps[:1].expand(7))
        assert (float(gammas[0]), float(gammas[-1])) == (4, -6)


def test_a_part_of_x_that_is_given_is_seen_without_its_noise():
    model = told(Mask(), label_dropout=0.0)
    x, mask = torch.full((2, 5), 4.0), torch.tensor([1.0, 1, 0, 0, 1]).expand(2, 5)
    context, gamma = torch.stack([x * mask, mask], 1), torch.tensor(2.0)
    z, rest = torch.randn(2, 5, generator=seeded()), mask == 0
    other = torch.where(rest, z, z + 3)
    with torch.no_grad():
        one, two = (model.denoise(some, gamma, context).eps for some in (z, other))
        moved = model.denoise(z, gamma, torch.stack([(x + 3) * mask, mask], 1)).eps
    assert torch.equal(one[rest], two[rest])
    assert not torch.isclose(one[rest], moved[rest]).any()
