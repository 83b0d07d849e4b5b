"""A model with a context is judged by log p(x|context): every number, against the exact one.

    z | c ~ N(u_c, I),   x | z, c ~ N(W (z − u_c) + m_c, s²),   so that   p(x|c) = p_0(x − m_c)

with p_0 a linear-Gaussian model whose evidence is known. Prior, encoder and decoder all need c,
and the means m_c lie so far apart that a wrong class costs hundreds of nats.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lowerbound.build import create_model
from lowerbound.data import Classes, InMemorySplit, Source
from lowerbound.distributions import DiagonalGaussian, Real
from lowerbound.engine import Engine
from lowerbound.errors import InputError
from lowerbound.evaluation import (
    Judge,
    annealed_importance_sampling,
    evaluate,
    latent_means,
    log_likelihood,
    mutual_information,
    prior_monte_carlo,
)
from lowerbound.evaluation.judging import scores
from lowerbound.generation import decode_plane, draw, interpolate, reconstruct
from lowerbound.models import Draw, Model, StandardNormal
from lowerbound.objectives import Bound

CPU = torch.device("cpu")
NUM_CLASSES = 3


class ShiftedPrior(StandardNormal):
    """p(z|c) = N(u_c, I)."""

    def __init__(self, centres):
        super().__init__(centres.shape[1])
        self.double()
        self.centres = centres

    def log_prob(self, z, context=None):
        return super().log_prob(z - self.centres[context])

    def sample(self, num, context=None, generator=None):
        return super().sample(num, None, generator) + self.centres[context]


class Conditional(Model):
    """A model of p(x) moved to another place for each class; it refuses to go without one."""

    name = "conditional"

    def __init__(self, inner, means, centres):
        super().__init__(inner.event_shape, inner.support)
        self.inner, self.means, self.centres = inner, means, centres
        self.prior, self.latent_dim = ShiftedPrior(centres), inner.latent_dim
        self.context = Classes(len(means))

    def noise(self, batch_size, num_samples=1, generator=None):
        return self.inner.noise(batch_size, num_samples, generator)

    def draw(self, x, num_samples, context=None, *, noise=None, path=False):
        drawn = self.inner.draw(x - self.means[context], num_samples, noise=noise, path=path)
        return Draw(drawn.log_weight, {"z": drawn.latents["z"] + self.centres[context]})

    def log_joint(self, x, latents, context=None):
        z = latents["z"] - self.centres[context]
        return self.inner.log_joint(x - self.means[context], {"z": z})

    def bound(self, x, context=None, *, num_samples=1, noise=None, generator=None):
        inner = self.inner.bound(x - self.means[context], num_samples=num_samples, noise=noise)
        return Bound(inner.reconstruction, inner.rates, inner.details)

    def encode(self, x, context=None):
        q = self.inner.encode(x - self.means[context])
        return DiagonalGaussian(q.loc + self.centres[context], q.log_scale)

    def decode(self, z, context=None):
        p = self.inner.decode(z - self.centres[context])
        return DiagonalGaussian(p.mean + self.means[context], p.log_scale)

    def sample(self, num, context=None, *, generator=None, mean=False):
        if context is None:
            context = torch.zeros(num, dtype=torch.long)
        p = self.decode(self.prior.sample(num, context, generator), context)
        return p.mean if mean else p.sample(generator)


@dataclass
class Known:
    model: Conditional
    x: Tensor
    context: Tensor
    evidence: Tensor
    source: Source


@pytest.fixture(scope="module")
def make(make_linear):
    def made(encoder="exact", kl="sampled"):
        linear = make_linear(encoder)
        linear.model.kl = kl
        generator = torch.Generator().manual_seed(7)
        means = 20 * torch.randn(NUM_CLASSES, 4, generator=generator, dtype=torch.float64)
        centres = 3 * torch.randn(NUM_CLASSES, 2, generator=generator, dtype=torch.float64)
        model = Conditional(linear.model, means, centres).double().eval()
        context = torch.arange(len(linear.x)) % NUM_CLASSES
        x = linear.x + means[context]
        split = InMemorySplit(x, context)
        source = Source(split, split, split, (4,), Real(), Classes(NUM_CLASSES), "made up")
        return Known(model, x, context, linear.log_evidence, source)

    return made


def test_every_estimate_of_the_table_is_of_the_examples_given_their_classes(make, monkeypatch):
    for module in ("judging", "judge", "latents"):
        monkeypatch.setattr(f"lowerbound.evaluation.{module}.BATCH", 5)
    known = make()
    exact = float(known.evidence.mean())
    result = evaluate(known.model, known.source, num_samples=5, ais=1, baselines=False)
    # With the true posterior every weight, and every draw of the bound, is the evidence itself.
    assert result["bound"]["value"] == pytest.approx(exact, abs=1e-8)
    assert result["log_likelihood"]["value"] == pytest.approx(exact, abs=1e-8)
    assert result["ais"]["log_likelihood"] == pytest.approx(exact, abs=1e-8)
    mse = (known.x - reconstruct(known.model, known.x, known.context)).square().mean()
    assert result["reconstruction_mse"] == pytest.approx(float(mse))
    assert float(mse) < 0.3
    assert "log p(x | context)" in result["notes"][0]
    # Of few draws from the prior the table knows no more than the function, which is tested below.
    given = {"context": known.context}
    few = prior_monte_carlo(known.model, known.x, num_samples=5, **given).value.mean()
    assert result["prior_monte_carlo"]["value"] == pytest.approx(float(few))
    one = annealed_importance_sampling(known.model, known.x, num_steps=1, **given).value.mean()
    assert result["ais"]["value"] == pytest.approx(float(one))


def test_the_classes_decide(make):
    known = make()
    wrong = InMemorySplit(known.x, known.context.roll(1))
    source = dataclasses.replace(known.source, test=wrong)
    result = evaluate(known.model, source, num_samples=5, baselines=False)
    assert result["bound"]["value"] < float(known.evidence.mean()) - 100
    assert result["log_likelihood"]["value"] < float(known.evidence.mean()) - 100


def test_a_model_of_p_of_x_is_never_handed_the_labels(make_linear):
    linear = make_linear()
    given = []

    def spy(name):
        real = getattr(linear.model, name)

        def wrapped(first, *args, **options):
            given.extend(a for a in (*args, options.get("context")) if isinstance(a, Tensor))
            return real(first, *args, **options)

        return wrapped

    for name in ("bound", "encode", "decode", "draw", "log_weight"):
        setattr(linear.model, name, spy(name))
    split = InMemorySplit(linear.x, torch.arange(len(linear.x)) % 3)
    source = Source(split, split, split, (4,), Real(), Classes(3), "made up")
    result = evaluate(linear.model, source, num_samples=3, baselines=False)
    Judge(split, Engine(CPU), 10)(linear.model)
    assert given == []
    assert not any("context" in note for note in result["notes"])


@pytest.mark.parametrize("importance", [False, True])
def test_the_judge_of_training_hands_over_the_classes_of_the_rows_it_picked(make, importance):
    known = make()
    split = InMemorySplit(known.x.repeat(5, 1), known.context.repeat(5))
    evidence = known.evidence.repeat(5)
    judge = Judge(split, Engine(CPU), 41, num_samples=2, importance=importance)
    rows = [int((split.x == x).all(1).nonzero()[0]) for x in judge.split.x]
    assert judge(known.model)["bound"] == pytest.approx(float(evidence[rows].mean()), abs=1e-8)


def test_scores_and_log_likelihoods_are_those_of_each_row(make):
    known = make()
    nats, _ = scores(known.model, known.x, 2, known.context)
    torch.testing.assert_close(nats, known.evidence)
    value = log_likelihood(known.model, known.x, num_samples=3, context=known.context).value
    torch.testing.assert_close(value, known.evidence)


def test_draws_from_the_prior_are_from_that_of_each_class(make):
    known = make("nothing")  # the encoder plays no part
    estimate = prior_monte_carlo(
        known.model, known.x, num_samples=40_000, context=known.context, seed=1
    )
    deviations = (estimate.value - known.evidence) / estimate.standard_error
    assert float(deviations.abs().max()) < 4.5
    few = prior_monte_carlo(known.model, known.x[3:5], num_samples=300, context=known.context[3:5])
    all_of_them = prior_monte_carlo(known.model, known.x, num_samples=300, context=known.context)
    torch.testing.assert_close(few.value, all_of_them.value[3:5])


@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_chains_end_in_the_posterior_of_each_class(make, start):
    known = make("wide")
    estimate = annealed_importance_sampling(
        known.model, known.x, num_steps=200, num_chains=32, context=known.context, start=start
    )
    torch.testing.assert_close(estimate.value, known.evidence, rtol=0, atol=0.25)


def test_latents_are_those_of_each_example_in_its_class(make):
    known = make()
    split = InMemorySplit(known.x, known.context)
    expected = known.model.inner.encode(known.x - known.model.means[known.context]).loc
    expected = expected + known.model.centres[known.context]
    torch.testing.assert_close(latent_means(known.model, split), expected.detach())


def test_information_is_beyond_what_the_class_tells(make):
    """q = p(z|c): the latents say which class, which was known, and nothing of the example."""
    known = make("nothing")
    split = InMemorySplit(known.x, known.context)
    assert mutual_information(known.model, split) == pytest.approx(0, abs=1e-9)
    informed = make()
    split = InMemorySplit(informed.x, informed.context)
    # Of four examples per class at most log 4, whatever lies between the classes.
    inside = mutual_information(informed.model, split)
    assert 0.3 < inside <= torch.tensor(4.0).log() + 1e-9


def test_what_is_made_is_made_of_the_class_that_was_asked_for(make, monkeypatch):
    monkeypatch.setattr("lowerbound.generation.BATCH", 9)
    known = make()
    asked = torch.tensor([2, 0, 1, 2] * 200)
    made = draw(known.model, 800, context=asked)
    for c in range(NUM_CLASSES):
        torch.testing.assert_close(
            made[asked == c].mean(0), known.model.means[c], rtol=0, atol=0.5
        )
    again = draw(known.model, 2, context=torch.tensor([0, 1]), mean=True)
    there = draw(known.model, 2, context=torch.tensor([1, 1]), mean=True)
    torch.testing.assert_close(again[1], there[1])
    assert not torch.allclose(again[0], there[0])
    plane, quantiles = decode_plane(known.model, 3, torch.tensor(1))
    z = torch.stack([quantiles[0], quantiles[-1]])[None]  # top left
    expected = known.model.decode(z, torch.tensor([1])).mean[0]
    torch.testing.assert_close(plane[0, 0], expected.detach())


def test_walks_between_classes_begin_and_end_at_the_reconstructions(make):
    known = make()
    x, context = known.x[:4], torch.tensor([0, 1, 2, 0])
    ends = reconstruct(known.model, x, context)
    frames = interpolate(known.model, x[:2], x[2:], 5, contexts=(context[:2], context[2:]))
    torch.testing.assert_close(frames[:, 0], ends[:2])
    torch.testing.assert_close(frames[:, -1], ends[2:])
    assert frames.shape == (2, 5, 4)


def test_data_without_labels_and_contexts_of_another_number_are_refused(make):
    known = make()
    bare = dataclasses.replace(known.source, test=InMemorySplit(known.x))
    with pytest.raises(InputError, match="'labels' must be in the data of a 'conditional'"):
        evaluate(known.model, bare, num_samples=2)
    with pytest.raises(InputError, match="'context' must be one for each of the 3 draws"):
        draw(known.model, 3, context=torch.tensor([0]))


def test_no_model_has_a_context_that_it_did_not_ask_for(blobs):
    assert Model.context is None
    assert create_model("vae", blobs, latent_dim=2, width=8).context is None
