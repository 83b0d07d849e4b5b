"""A part of x that is known: it is certain, costs nothing, and only what it says is read."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import Mask
from lowerbound.distributions import LIKELIHOODS, Discrete, ProductLikelihood
from lowerbound.generation import complete, reconstruct
from lowerbound.models.completed import Completed
from tests.distributions.families import SUPPORTS, extremes, head, raw_outputs
from tests.models.test_conditional import SHAPE, contexts, drawn_anew, examples, small

CASES = [
    pytest.param(cls, support, id=f"{name}-{support}")
    for name, cls in LIKELIHOODS.items()
    for support in SUPPORTS
    if isinstance(support, cls.supports) and cls is not ProductLikelihood
]


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_a_part_and_the_rest_cost_together_what_the_whole_costs(cls, support):
    likelihood = head(cls, support, (2, 3))
    p = likelihood(raw_outputs(likelihood, 4))
    generator = torch.Generator().manual_seed(0)
    x, other = p.sample(generator).float(), p.sample(generator).float()
    mask = torch.rand(x.shape, generator=generator) < 0.5
    part, rest = (Completed.of(p, torch.stack([x * m, m.to(x)], 1)) for m in (mask, ~mask))
    torch.testing.assert_close(part.log_prob(x) + rest.log_prob(x), p.log_prob(x))
    # What is observed is not looked at, be it something that data cannot be.
    for value in (*extremes(support), math.nan, -7.5):
        assert torch.equal(part.log_prob(torch.where(mask, value, x)), part.log_prob(x))
    assert torch.equal(part.log_prob(torch.where(mask, x, other)), part.log_prob(other))
    nothing, all_ = (Completed.of(p, torch.stack([x, m * torch.ones_like(x)], 1)) for m in (0, 1))
    torch.testing.assert_close(nothing.log_prob(x), p.log_prob(x))
    assert torch.equal(all_.log_prob(other), torch.zeros(4))
    for made in (part.mean, part.sample(generator)):
        assert torch.equal(made[mask].float(), x[mask])
    torch.testing.assert_close(part.mean[~mask], p.mean[~mask])


def test_what_is_observed_costs_nothing_whatever_it_is():
    model = create_model(
        "cvae", SHAPE, context=Mask(), support=Discrete(9), latent_dim=3, width=16
    )
    x = torch.randint(0, 9, (5, *SHAPE), generator=torch.Generator().manual_seed(0))
    whole = torch.stack([x, torch.ones_like(x)], 1)
    assert torch.equal(model.bound(x, whole).reconstruction, torch.zeros(5))
    mask = torch.zeros_like(x)
    mask[..., :3] = 1
    given = torch.stack([x * mask, mask], 1)
    z = torch.zeros(5, 3)
    p = model.decode(z, given)
    changed = torch.where(mask == 1, 8 - x, x)
    assert torch.equal(p.log_prob(changed), p.log_prob(x))
    assert (p.log_prob(torch.where(mask == 0, 8 - x, x)) != p.log_prob(x)).all()


def test_what_a_context_holds_outside_its_mask_is_never_read():
    model = small(Mask(), prior="conditional")
    drawn_anew(model)
    x, given = examples(5), contexts(Mask(), 5)
    under = torch.where(given[:, 1] == 1, given[:, 0], torch.full_like(given[:, 0], 7.0))
    other = torch.stack([under, given[:, 1]], 1)
    torch.testing.assert_close(model.bound(x, other).value, model.bound(x, given).value)
    under[given[:, 1] == 0] = math.nan
    assert torch.equal(
        model.embedding(torch.stack([under, given[:, 1]], 1)), model.embedding(given)
    )
    model.embedding.measure(given)
    measured = model.embedding.shift.clone(), model.embedding.scale.clone()
    model.embedding.measure(torch.stack([under, given[:, 1]], 1))
    assert torch.equal(model.embedding.shift, measured[0])
    assert torch.equal(model.embedding.scale, measured[1])


def test_completions_and_reconstructions_keep_what_was_observed():
    model = small(Mask())
    x, given = examples(5), contexts(Mask(), 5)
    given[:, 0] = x * given[:, 1]
    seen = given[:, 1] == 1
    completions = complete(model, given, 4)
    assert completions.shape == (4, 5, *SHAPE)
    samples = model.sample(5, given, generator=torch.Generator().manual_seed(0))
    for made in (*completions, samples, reconstruct(model, x, given)):
        assert torch.equal(made[seen], x[seen])
        assert (made[~seen] != x[~seen]).all()
    rest = completions[:, ~seen]
    assert (rest[0] != rest[1]).all()  # several draws, not one
