"""Sample quality: features by seed, real examples as the floor, every model that draws."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from lowerbound.build import MODELS, create_model, model_entry
from lowerbound.data import Rows, load_data, make_source
from lowerbound.distributions import Real
from lowerbound.errors import DivergedError, InputError
from lowerbound.evaluation import sample_quality
from lowerbound.evaluation.features import train_classifier
from lowerbound.evaluation.quality import default_num_samples
from lowerbound.generation import contexts_for, draw
from lowerbound.nn.lenet import FEATURES, make_classifier
from lowerbound.run import fit
from lowerbound.tables import evaluation_table
from tests.models.test_contract import small

NUMBERS = ("fd", "kd", "precision", "recall")


@pytest.fixture(scope="module")
def classifier(digits):
    return train_classifier(digits, steps=120)


def flat(x):
    return x.flatten(1).float()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 64, 33), (1, 4, 5), (1, 28, 28)])
def test_images_go_through_lenet(shape):
    name, network = make_classifier(shape)
    assert name == "lenet"
    assert network(torch.randn(2, *shape)).shape == (2, FEATURES)
    assert sum(p.numel() for p in network.parameters()) < 700_000  # also of large images


@pytest.mark.parametrize("shape", [(3,), (2, 40), (1, 3, 9)])
def test_everything_else_goes_through_an_mlp(shape):
    name, network = make_classifier(shape)
    assert name == "mlp"
    assert network(torch.randn(2, *shape)).shape == (2, FEATURES)


def test_the_classifier_finds_classes_and_its_features_have_a_unit(digits, classifier):
    assert classifier.accuracy(digits.test) > 0.9
    features = classifier(digits.train.x)
    assert features.shape == (len(digits.train), FEATURES)
    assert features.square().mean() == pytest.approx(1, rel=1e-4)


def test_features_follow_from_the_seed_alone(digits):
    torch.manual_seed(0)
    state, x = torch.get_rng_state(), digits.test.x
    first, again, other = (train_classifier(digits, seed=s, steps=3)(x) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_unit_of_the_data_changes_no_feature():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (300,), generator=generator)
    x = torch.randn(300, 3, generator=generator) + 3 * labels[:, None]
    found = []
    for scale, shift in ((1, 0), (1000, -5e4)):
        rows = Rows(x=scale * x + shift, support=Real(), name="blobs", labels=labels)
        source = make_source(rows)
        found.append(train_classifier(source, steps=50)(source.test.x))
    torch.testing.assert_close(*found, rtol=1e-2, atol=1e-2)


def test_real_examples_are_their_own_floor(digits, classifier):
    result = sample_quality(digits.validation.x, digits, features=classifier, name="lenet")
    floor = result["floor"]
    assert floor["num_samples"] == result["num_samples"] == default_num_samples(digits)
    assert [result[name] for name in NUMBERS] == [floor[name] for name in NUMBERS]
    assert result["num_real"] == len(digits.test)


def test_worse_samples_have_worse_numbers(digits, classifier):
    real = digits.validation.x.float()
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    judged = [
        sample_quality((real + scale * noise).clamp(0, 16), digits, features=classifier)
        for scale in (0, 4, 12)
    ]
    for name, sign in (("fd", 1), ("kd", 1), ("precision", -1)):
        values = [sign * result[name] for result in judged]
        assert values == sorted(values), name
        assert values[0] < values[-1], name
    copies = sample_quality(real[:1].expand(100, 1, 8, 8), digits, features=classifier)
    assert copies["recall"] < 0.05


def test_by_default_a_classifier_is_trained(digits, monkeypatch):
    monkeypatch.setattr("lowerbound.evaluation.features.STEPS", 20)
    samples = digits.train.x[:50]
    result = sample_quality(samples, digits, split="validation")
    assert result["features"] == "lenet"
    assert 0 < result["accuracy"] <= 1
    assert result["floor"]["split"] == "test"
    assert result["floor"]["num_samples"] == len(samples)  # a distance falls with their number
    assert json.loads(json.dumps(result)) == result
    assert sample_quality(samples, digits, split="validation") == result
    assert sample_quality(samples, digits, split="validation", classifier_seed=1) != result


@pytest.mark.parametrize("name", [name for name in MODELS if model_entry(name).samples])
def test_every_model_that_draws_can_be_judged(name, digits):
    model = small(name, digits)
    fit(model, digits, steps=2, quiet=True)
    samples = draw(model, 20, context=contexts_for(model, 20, split=digits.test))
    result = sample_quality(samples, digits, features=flat, name="pixels")
    assert result["features"] == "pixels"
    assert result["accuracy"] is None
    assert result["fd"] > 0


def test_masks_are_no_labels_and_do_not_hide_them(monkeypatch):
    monkeypatch.setattr("lowerbound.evaluation.features.STEPS", 20)
    source = load_data("digits", condition="mask:2")
    model = create_model("cvae", source, latent_dim=2, width=16)
    context = contexts_for(model, 20, split=source.test)
    result = sample_quality(draw(model, 20, context=context), source)
    assert result["features"] == "lenet"


def test_what_cannot_be_compared_is_refused(digits, blobs):
    x = digits.test.x
    with pytest.raises(InputError, match="'quality' must be asked of data with class labels"):
        sample_quality(blobs.test.x, blobs)
    one_class = dataclasses.replace(
        digits.train, labels=torch.zeros(len(digits.train), dtype=torch.int64)
    )
    with pytest.raises(InputError, match="at least two classes, got one class"):
        train_classifier(dataclasses.replace(digits, train=one_class))
    with pytest.raises(InputError, match="'samples' must be of shape 1×8×8, got 1×8×7"):
        sample_quality(x[..., :7], digits)
    with pytest.raises(InputError, match="'samples' must be at least 4 examples, got 3"):
        sample_quality(x[:3], digits)
    with pytest.raises(DivergedError, match="not finite"):
        sample_quality(x / 0.0, digits)


def test_the_python_of_the_page_runs(digits, monkeypatch):
    monkeypatch.setattr("lowerbound.evaluation.features.STEPS", 5)
    page = Path(__file__).parents[2] / "docs" / "how-to" / "sample-quality.md"
    code, _ = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    names = {"source": digits, "network": flat, "samples": digits.train.x[:50]}
    names["model"] = create_model("vae", digits, latent_dim=2, width=16)
    exec(compile(code, str(page), "exec"), names)
    assert names["result"]["features"] == "mine"


def test_the_table_names_the_features_and_shows_the_floor(digits, classifier):
    quality = sample_quality(digits.train.x[:40], digits, features=classifier, name="lenet")
    empty = dict.fromkeys(("bound", "log_likelihood", "reconstruction_mse", "active_units"))
    rows = evaluation_table({**empty, "baselines": {}, "quality": {**quality, "seed": 3}})
    found = {name: (value, what) for name, value, what in rows}
    value, what = found["FD-lenet"]
    assert float(value) == pytest.approx(quality["fd"], rel=1e-3)
    assert what.startswith("40 samples, seed 3, against 179 test examples; ")
    assert f"{quality['floor']['fd']:.4g} of real ones (40 validation)" in what
    assert {"KD-lenet", "precision-lenet", "recall-lenet"} < set(found)
