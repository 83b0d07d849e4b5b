"""What was given stays, and the rest follows from it."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.errors import InputError
from lowerbound.noising import alpha, sigma
from lowerbound.solvers import METHODS, inpaint, noised, part_way, renoise, solve
from tests.solvers.gaussian import FIRST, LAST, Optimal, diagonal, levels, normal

# Two numbers of unit variance that go together.
PAIR = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
KNOWN, MASK = torch.tensor([1.5, 0.0], dtype=torch.float64), torch.tensor([True, False])


def test_noising_twice_is_noising_once():
    # The mean factor and the variance of z_t are those of q(z_t|x), by way of z_s or not.
    for s, t in ((-6.0, -5.999), (-13.0, 5.0), (0.0, 0.0)):
        s, t = torch.tensor(s, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)
        one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        shrink, spread = renoise(one, s, t, none), renoise(none, s, t, one)
        torch.testing.assert_close(alpha(s) * shrink[0], alpha(t))
        total = (sigma(s) * shrink[0]) ** 2 + spread[0] ** 2
        torch.testing.assert_close(total, sigma(t) ** 2)
        torch.testing.assert_close(noised(one, t, none)[0], alpha(t))
        torch.testing.assert_close(noised(none, t, one)[0], sigma(t))


def test_part_of_the_way_starts_at_its_level_and_does_its_share_of_the_steps():
    x, gammas = normal(10_000, 5), levels(20)
    for strength, left in ((1.0, 20), (0.5, 10), (0.07, 1), (0.0, 0)):
        z, rest = part_way(2 + x, gammas, strength)
        assert torch.equal(rest, gammas[20 - left :])
        residual = (z - alpha(rest[0]) * (2 + x)) / sigma(rest[0])
        assert abs(float(residual.mean())) < 0.02
        assert float(residual.std()) == pytest.approx(1, abs=0.02)
    own = torch.Generator().manual_seed(4)
    z, _ = part_way(x, gammas, 0.5, generator=own)
    assert not torch.equal(z, part_way(x, gammas, 0.5)[0])


def test_the_less_noise_the_closer_to_the_image():
    x, gammas = diagonal().eigenvalues.sqrt() * normal(500, 5), levels(60)
    distances = []
    for strength in (0.2, 0.5, 0.8, 1.0):
        z, rest = part_way(x, gammas, strength)
        found = solve(diagonal(), z, rest, method="dpm++")
        distances.append(float((found - x).square().mean()))
    assert distances == sorted(distances)
    assert distances[0] < 0.01 < distances[-1]


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_known_part_stays_as_it_was_given(method, repeats):
    known, mask = normal(4, 5), normal(4, 5, seed=1) > 0
    found = inpaint(
        diagonal(), normal(4, 5), levels(6), known, mask, method=method, repeats=repeats, jump=2
    )
    assert torch.equal(found[mask], known[mask])
    assert found.isfinite().all()
    spoilt = torch.where(mask, known, torch.nan)  # what is not known is not looked at
    again = inpaint(
        diagonal(), normal(4, 5), levels(6), spoilt, mask, method=method, repeats=repeats, jump=2
    )
    assert torch.equal(again, found)


def test_the_known_part_is_as_noisy_as_its_level_from_the_first_on():
    seen, gammas = [], levels(6)

    def denoise(z, gamma):
        seen.append(z[:, 0])
        return Optimal(PAIR)(z, gamma)

    inpaint(denoise, normal(10_000, 2), gammas, KNOWN, MASK)
    assert len(seen) == len(gammas)
    for z, gamma in zip(seen, gammas, strict=True):
        noise = (z - alpha(gamma) * KNOWN[0]) / sigma(gamma)
        assert abs(float(noise.mean())) < 0.05
        assert float(noise.std()) == pytest.approx(1, abs=0.04)


def moments(repeats, jump=1, steps=40, n=2_000):
    found = inpaint(
        Optimal(PAIR), normal(n, 2), levels(steps), KNOWN, MASK, repeats=repeats, jump=jump
    )[:, 1]
    return float(found.mean()), float(found.var())


def test_repeats_lead_to_the_conditional_distribution():
    # Given the first number the second is N(0.8 · 1.5, 1 − 0.8²).
    exact_mean, exact_variance = 1.2, 0.36
    alone, repeated = moments(1), moments(12)
    assert (
        abs(repeated[0] - exact_mean) < 0.1
    )  # what 12 repeats and 40 steps leave, and 2,000 draws
    assert abs(repeated[1] - exact_variance) < 0.1
    assert alone[0] < 0.8


def test_nothing_known_is_sampling_and_all_known_is_all():
    z, gammas = normal(3, 2), levels(8)
    nothing = inpaint(Optimal(PAIR), z, gammas, KNOWN, torch.zeros(2), method="ddim")
    x = Optimal(PAIR)(solve(Optimal(PAIR), z, gammas), gammas[-1]).x
    torch.testing.assert_close(nothing, x)
    everything = inpaint(Optimal(PAIR), z, gammas, KNOWN, torch.ones(2))
    assert torch.equal(everything, KNOWN.expand(3, 2))


@pytest.mark.parametrize(("steps", "jump", "repeats"), [(6, 2, 3), (5, 2, 2), (4, 9, 2)])
def test_every_stretch_is_walked_as_often_as_it_was_asked(steps, jump, repeats):
    denoise = Optimal(PAIR)
    inpaint(denoise, normal(1, 2), levels(steps), KNOWN, MASK, jump=jump, repeats=repeats)
    assert denoise.calls == steps * repeats + 1


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].draws != "always"])
def test_a_stretch_walked_again_starts_anew(method):
    # Its first step must not remember what was seen at the end of the time before.
    seen, gammas, nothing = [], levels(4), torch.zeros(2)

    def denoise(z, gamma):
        seen.append(z)
        return Optimal(PAIR)(z, gamma)

    found = inpaint(
        denoise, normal(3, 2), gammas, KNOWN, nothing, method=method, repeats=2, jump=2
    )
    again = seen[6 * METHODS[method].evaluations]
    alone = inpaint(Optimal(PAIR), again, gammas[2:], KNOWN, nothing, method=method)
    torch.testing.assert_close(found, alone)


def test_randomness_is_private_and_repeats():
    state = torch.get_rng_state()
    args = (Optimal(PAIR), normal(3, 2), levels(4), KNOWN, MASK)
    own = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    one, same, other = (inpaint(*args, generator=g, repeats=2) for g in own)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(inpaint(*args), inpaint(*args))
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_input_is_refused_by_name():
    args = (diagonal(), normal(1, 5), levels(3), normal(1, 5), torch.ones(5))
    for name in ("repeats", "jump"):
        with pytest.raises(InputError, match=f"'{name}' must be at least 1, got 0"):
            inpaint(*args, **{name: 0})
    for strength in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="'strength' must be between 0 and 1"):
            part_way(normal(1, 5), levels(3), strength)
    with pytest.raises(InputError, match="'gammas' must be finite and falling"):
        part_way(normal(1, 5), torch.tensor([LAST, FIRST]), 0.5)
