"""What the latents carry: known answers, and advice for models made up to have collapsed."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import MODELS, create_model
from lowerbound.data import InMemorySplit, Rows, load_data, make_source
from lowerbound.distributions import DiagonalGaussian, Real
from lowerbound.evaluation import evaluate, latent_means, mutual_information, num_active_units
from lowerbound.evaluation.diagnosis import diagnosis, weighty
from lowerbound.evaluation.latents import are_active
from lowerbound.models import JointPosterior
from tests.oracles import integral


def encodes(model, scale: float, spread: float):
    """A model whose posterior is N(spread · x, scale²) in one dimension."""
    with torch.no_grad():
        model.encoder.matrix.fill_(spread)
        model.encoder.shift.zero_()
        model.encoder.log_scale.fill_(math.log(scale))
    return model


def test_information_of_posteriors_that_do_not_touch_is_log_n_and_of_equal_ones_is_zero(
    make_linear,
):
    model = make_linear(d=1, size=1).model
    x = torch.arange(50.0, dtype=torch.float64)[:, None]
    apart = mutual_information(encodes(model, 0.01, 1.0), InMemorySplit(x))
    assert apart == pytest.approx(math.log(50), abs=1e-6)
    together = mutual_information(encodes(model, 0.5, 0.0), InMemorySplit(x))
    assert together == pytest.approx(0, abs=1e-9)


def test_information_between_gaussians_is_that_of_the_channel(make_linear):
    """z = a x + t ε with x ~ N(0, 1): I = ½ log(1 + a²/t²)."""
    model = encodes(make_linear(d=1, size=1).model, 0.5, 1.5)
    x = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measured = mutual_information(model, InMemorySplit(x))
    assert measured == pytest.approx(0.5 * math.log(1 + 9.0), abs=0.06)


def test_information_of_posteriors_of_unequal_width_is_the_integral(make_linear, monkeypatch):
    """Three kinds of example: I = mean KL(q_i ‖ average of the q), on a grid."""
    loc, scale = torch.tensor([0.0, 0.5, 2.0]).double(), torch.tensor([0.2, 1.5, 0.7]).double()
    model = make_linear(d=1, size=1).model
    kinds = torch.arange(3).repeat(600)

    def encode(x, context=None):
        kind = x[:, 0].long()
        return DiagonalGaussian(loc[kind, None], scale[kind, None].log())

    monkeypatch.setattr(model, "encode", encode)
    measured = mutual_information(model, InMemorySplit(kinds.double()[:, None]))
    grid = torch.linspace(-12, 12, 20_001).double()
    q = torch.distributions.Normal(loc[:, None], scale[:, None]).log_prob(grid)
    average = q.logsumexp(0) - math.log(3)
    exact = integral((q.exp() * (q - average)).mean(0), grid)
    assert measured == pytest.approx(exact, abs=0.06)


def test_information_lies_between_zero_and_the_rate(make_linear):
    known = make_linear(d=2, size=4)
    split = InMemorySplit(known.x)
    rate = float(known.model.bound(known.x).rate.detach().mean())
    assert 0 < mutual_information(known.model, split) < rate
    assert mutual_information(known.model, split) == mutual_information(known.model, split)


def test_active_units_are_those_whose_mean_varies():
    means = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    means *= torch.tensor([1.0, 0.2, 0.05, 0.0])  # variances 1, 0.04, 0.0025, 0
    assert are_active(means).tolist() == [True, True, False, False]
    assert num_active_units(means) == 2


def judged(**changes):
    likelihood = {"num_samples": 1000, "effective_sample_size": 20.0}
    return {"rate_per_latent": [9.0, 8.0, 0.0], "gap": 3.0, "log_likelihood": likelihood} | changes


ACTIVE = torch.tensor([True, True, False])
POOR = {"num_samples": 1000, "effective_sample_size": 1.2}
CASES = {
    "collapsed": (judged(rate_per_latent=[0.01, 0.02, 0.0]), ~ACTIVE & False, "collapsed"),
    "ignores its input": (judged(), ~ACTIVE & False, "0 of 3 active units.*17.00 nats buys"),
    "no parts of the rate": (judged(rate_per_latent=None), ~ACTIVE & False, "0 of 3"),
    "waste": (judged(rate_per_latent=[1.0, 1.0, 5.0]), ACTIVE, "5.00 are paid for latents that"),
    "poor encoder": (judged(log_likelihood=POOR), ACTIVE, "1,000 draws 1.2 count.*--ais 1000"),
}
FINE = {
    "all is well": (judged(), ACTIVE),
    "a small gap": (judged(log_likelihood=POOR, gap=0.5), ACTIVE),
    "too few draws to say": (judged(log_likelihood=POOR | {"num_samples": 10}), ACTIVE),
    "a closed form": (judged(log_likelihood=POOR | {"num_samples": None}), ACTIVE),
    "no likelihood": (judged(rate_per_latent=None, log_likelihood=None, gap=None), ACTIVE),
    "no encoder": (judged(), None),
}


@pytest.mark.parametrize("case", CASES)
def test_advice_is_one_sentence_on_the_gravest_thing(case):
    import re

    result, active, expected = CASES[case]
    advice = diagnosis(result, active)
    assert re.search(expected, advice)
    assert advice.endswith(".")


@pytest.mark.parametrize("case", FINE)
def test_no_advice_where_nothing_is_wrong(case):
    assert diagnosis(*FINE[case]) is None


def gaussian_source(known):
    x = known.x.repeat(10, 1)
    return make_source(Rows(x=x, support=Real(), name="gaussian"))


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [("nothing", "collapsed to the prior"), ("exact", None), ("off", "far from the posterior")],
)
def test_models_made_up_to_be_bad_are_told_apart(make_linear, encoder, expected):
    """An encoder that ignores x, the posterior itself, and one that is far off."""
    known = make_linear(encoder, d=3, size=6)
    result = evaluate(known.model, gaussian_source(known), num_samples=100, baselines=False)
    assert (result["diagnosis"] is None) if expected is None else (expected in result["diagnosis"])
    if encoder == "nothing":
        assert result["active_units"] == 0
        assert result["mutual_information"] == pytest.approx(0, abs=1e-9)


def test_a_latent_that_follows_its_conditional_prior_is_no_active_unit(monkeypatch):
    source = load_data("digits", binarize="threshold", condition="labels")
    options = {"latent_dim": 3, "width": 8, "prior": "conditional"}
    model = create_model("cvae", source, **options)
    torch.nn.init.normal_(model.prior.network.last.bias)
    torch.nn.init.normal_(model.prior.network.last.weight)
    monkeypatch.setattr(model, "encode", lambda x, context: model.prior.given(context))
    assert are_active(latent_means(model, source.test)).all()
    assert evaluate(model, source, num_samples=2, baselines=False)["active_units"] == 0


def test_the_rate_is_shown_by_latent_in_its_order(digits):
    model = create_model("vae", digits, latent_dim=3, width=16).eval()
    result = evaluate(model, digits, num_samples=2, baselines=False, max_rows=30)
    rows = 30
    x = digits.test[slice(0, None)][0]
    from lowerbound.evaluation.judge import subset

    kl = model.bound(subset(digits.test, rows).x).details["kl"].mean(0)
    assert result["rate_per_latent"] == pytest.approx(kl.tolist(), rel=1e-4)
    assert sum(result["rate_per_latent"]) == pytest.approx(
        result["bound"]["terms"]["kl"], rel=1e-4
    )
    assert len(x) > rows


def small_model(name, source):
    from tests.models.test_contract import small

    model = small(name, source)
    model.fit_exactly(source)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_only_a_posterior_beside_a_prior_has_active_units_or_can_collapse(name, digits):
    """0.01 is a share of the prior's variance 1; codes without a prior have their own unit."""
    model = small_model(name, digits)
    result = evaluate(model, digits, num_samples=2, baselines=False, max_rows=30)
    x, context = digits.test[slice(0, 2)]
    gaussian = model.has_encoder and isinstance(
        model.encode(x, context), DiagonalGaussian | JointPosterior
    )
    assert (result["active_units"] is not None) == (gaussian and model.is_likelihood)
    assert (result["reconstruction_mse"] is not None) == model.has_encoder
    if result["active_units"] is None:
        assert result["diagnosis"] is None


@pytest.mark.parametrize("name", ["dct", "mixture", "autoencoder", "lda", "ppca"])
def test_the_unit_of_the_data_changes_no_advice(name, digits):
    """In a unit of ten thousand, codes vary by 1e-8, and no encoder ignores its input."""
    x = digits.train.x[:300].flatten(1).double() * 1e-4
    rows = Rows(x=x, labels=digits.train.labels[:300], support=Real(), name="small")
    source = make_source(rows)
    result = evaluate(small_model(name, source), source, num_samples=2, baselines=False)
    assert result["diagnosis"] is None


def test_one_component_is_a_choice_without_a_price_and_no_collapse(blobs):
    model = create_model("mixture", blobs, components=1)
    model.fit_exactly(blobs)
    result = evaluate(model, blobs, num_samples=2)
    assert (result["active_units"], result["diagnosis"]) == (None, None)


def test_one_example_that_decides_the_mean_is_named():
    bound = torch.randn(1000, generator=torch.Generator().manual_seed(0)).double() - 80
    assert weighty(bound) == []
    bound[17] = -1e6
    (said,) = weighty(bound)
    rest = torch.cat([bound[:17], bound[18:]])
    error = float(rest.std()) / math.sqrt(999)
    assert "number 17 of those judged" in said
    assert f"moves the mean bound by {float(bound.mean() - rest.mean()):.2f} nats" in said
    assert f"it is {float(rest.mean()):.2f} ± {error:.2f}" in said
    assert weighty(bound[:50]) == []
