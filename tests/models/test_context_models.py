"""Every model that can be given a context: what it is of, what sees it, what refuses it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

import lowerbound
from lowerbound.build import MODELS, create_model, save_model
from lowerbound.config import TrainingConfig
from lowerbound.data import Classes, InMemorySplit, Mask, Source, Vector, load_data
from lowerbound.distributions import Real
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate
from lowerbound.generation import class_context, draw
from lowerbound.models import ContextModel, Hierarchy
from lowerbound.run import fit
from lowerbound.training.step import Step
from tests.models.test_conditional import CONTEXTS, SHAPE, contexts, drawn_anew, examples
from tests.models.test_contract import SMALL

NAMES = [name for name, entry in MODELS.items() if entry.conditional]
VARIANTS: dict[str, tuple[str, dict]] = {name: (name, {}) for name in NAMES} | {
    "ladder-conv": ("ladder", {"network": "conv", "levels": 2, "latent_dim": 2}),
    "vqvae-grid": ("vqvae", {"network": "grid", "places": None, "halvings": 1}),
    "vqvae-uniform": ("vqvae", {"prior": "uniform"}),
    "diffusion": ("diffusion", {"depth": 1}),
    "diffusion-chain": ("diffusion", {"depth": 1, "timesteps": 6, "variance": "learned"}),
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_name = pytest.mark.parametrize("name", NAMES)
each_context = pytest.mark.parametrize("context", CONTEXTS, ids=lambda c: c.kind)


def made(variant: str, context, shape=SHAPE, **options) -> ContextModel:
    name, own = VARIANTS[variant]
    options = {**SMALL.get(name, {}), "depth": 0, **own, **options}
    return create_model(name, shape, context=context, **options)


def as_without(model: nn.Module, plain: nn.Module) -> None:
    """The weights of a model of p(x), and nothing that is said of a context."""
    own = model.state_dict()
    for key, tensor in own.items():
        if tensor.is_floating_point():
            own[key].zero_()
    for key, weight in plain.state_dict().items():
        names = [key]
        first, _, rest = key.partition(".")
        names.append(f"{first}.network.{rest}")
        second, _, more = rest.partition(".")
        names.append(f"{first}.{second}.network.{more}")
        target = own[next(name for name in names if name in own)]
        if target.shape == weight.shape:
            target.copy_(weight)
        else:  # the first layer, which sees the embedding behind its input
            target[:, : weight.shape[1]] = weight


@each_variant
@each_context
def test_a_model_that_is_told_nothing_is_that_of_p_of_x(variant, context):
    if VARIANTS[variant][0] == "cvae":
        pytest.skip("compared with the VAE elsewhere")
    one_place = {"places": 1} if variant in ("vqvae", "vqvae-uniform") else {}
    plain = made(variant, None, **one_place).double()
    assert plain.context is None
    drawn_anew(plain)
    model = made(variant, context, **one_place).double()
    as_without(model, plain)
    x, given = examples(5).double(), contexts(context, 5)
    if isinstance(context, Mask):  # else what is observed costs nothing
        given = context.unknown(5, SHAPE)
    noise = plain.noise(5, 3, torch.Generator().manual_seed(0))
    sides = [
        model.bound(x, given, num_samples=3, noise=noise),
        plain.bound(x, num_samples=3, noise=noise),
    ]
    for name, term in sides[1].terms().items():
        torch.testing.assert_close(sides[0].terms()[name], term, rtol=1e-6, atol=1e-6)
    if model.has_weights:
        weights = model.log_weight(x, 3, given, noise=noise), plain.log_weight(x, 3, noise=noise)
        torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("variant", ["hvae", "ladder", "ladder-conv"])
@each_context
def test_every_level_has_a_prior_that_starts_standard_and_may_see_the_context(variant, context):
    given, other = contexts(context, 4), contexts(context, 4).roll(1, 0)
    model = made(variant, context)
    fixed = [torch.randn(4, *shape) for shape in model.shapes]

    def priors(c: Tensor):
        return model._generate(4, lambda i, _: fixed[i - 1], model.embedding(c))[0]

    for p in priors(given):
        assert not p.loc.any()
        assert not p.log_scale.any()
    drawn_anew(model)
    for one, two in zip(priors(given), priors(other), strict=True):
        assert (one.loc != two.loc).flatten(1).any(1).all()


@each_variant
@each_context
def test_what_x_is_given_z_depends_on_the_context(variant, context):
    model = made(variant, context)
    drawn_anew(model)
    x, given = examples(4), contexts(context, 4)
    both = given, given.roll(1, 0)
    if model.has_encoder:
        z = model.encode(x, given).mean
        raw = [model.decode(z, c).mean.flatten(1) for c in both]
    else:
        raw = [model.denoise(x, torch.tensor(0.0), c).x.flatten(1) for c in both]
    assert (raw[0] != raw[1]).any(1).all()


@pytest.mark.parametrize("variant", ["cvae", "hvae", "ladder"])
@pytest.mark.parametrize("context", CONTEXTS[:2], ids=lambda c: c.kind)
def test_weights_of_the_posterior_and_draws_of_the_prior_agree_on_the_evidence(variant, context):
    options = {"prior": "conditional"} if variant == "cvae" else {}
    model = made(variant, context, shape=(2,), sigma=1.0, **options).double()
    drawn_anew(model, 3)
    with torch.no_grad():  # q is near p, so that few draws weigh all the rest
        for parameter in model.parameters():
            parameter.mul_(0.5)
    x, given, num = examples(3, (2,)).double(), contexts(context, 3), 20_000
    with torch.no_grad():
        noise = model.noise(3, num, torch.Generator().manual_seed(1))
        by_posterior = model.log_weight(x, num, given, noise=noise).logsumexp(0) - math.log(num)
        for i in range(3):
            c = given[i : i + 1].expand(num, *given.shape[1:])
            z = model.prior.sample(num, c, torch.Generator().manual_seed(2))
            by_prior = model.decode(z, c).log_prob(x[i]).logsumexp(0) - math.log(num)
            assert float(by_prior) == pytest.approx(float(by_posterior[i]), abs=0.1)


@pytest.mark.parametrize("variant", ["cvae", "hvae", "ladder"])
@each_context
def test_rates_in_closed_form_are_those_of_the_weights(variant, context):
    options = {"prior": "conditional"} if variant == "cvae" else {}
    model, num = made(variant, context, **options).double(), 4000
    drawn_anew(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
        x, given = examples(3).double(), contexts(context, 3)
        noise = model.noise(3, num, torch.Generator().manual_seed(1))
        bound = model.bound(x, given, num_samples=num, noise=noise).value
        weights = model.log_weight(x, num, given, noise=noise)
    error = 4 * weights.std(0) / math.sqrt(num)
    assert ((weights.mean(0) - bound).abs() < error + 1e-9).all()


@pytest.mark.parametrize("variant", ["vqvae", "vqvae-uniform"])
@each_context
def test_codes_given_a_context_are_a_distribution_and_drawn_from_it(variant, context):
    model = made(variant, context, places=2, codebook_size=3)
    drawn_anew(model)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    given = contexts(context, 2)
    log_p = model.prior.log_prob(every.unsqueeze(1).expand(-1, 2, -1), given).detach()
    torch.testing.assert_close(log_p.logsumexp(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert torch.allclose(log_p[:, 0], log_p[:, 1]) == (variant == "vqvae-uniform")
    num = 20_000
    for i in range(2):
        many = given[i : i + 1].expand(num, *given.shape[1:])
        codes = model.prior.sample(num, many, torch.Generator().manual_seed(i))
        share = torch.bincount(3 * codes[:, 0] + codes[:, 1], minlength=9) / num
        p = log_p[:, i].exp()
        assert ((share - p).abs() < 5 * (p / num).sqrt() + 1e-4).all()


@each_variant
def test_what_is_observed_is_certain_and_kept(variant):
    model = made(variant, Mask())
    x = examples(3)
    everything = torch.stack([x, torch.ones_like(x)], 1)
    bound = model.bound(x, everything)
    assert not bound.reconstruction.any()
    if not model.has_encoder:  # nothing is left to be encoded, and nothing is paid for
        assert not bound.value.any()
    half = everything.clone()
    half[..., :3] = 0
    made_of = model.sample(3, half, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made_of[..., 3:], x[..., 3:])
    assert (made_of[..., :3] != x[..., :3]).all()
    assert any("not observed" in note for note in model.notes())


@each_variant
@each_context
def test_a_model_is_saved_with_its_context(variant, context, tmp_path):
    model = made(variant, context)
    drawn_anew(model)
    save_model(tmp_path, model)
    loaded = lowerbound.load(tmp_path)
    x, given = examples(4), contexts(context, 4)
    assert loaded.context == context
    assert torch.equal(loaded.bound(x, given).value, model.bound(x, given).value)


@each_name
def test_contexts_are_withheld_in_training_alone(name):
    model = made(name, Classes(4), label_dropout=0.3)
    x, given = examples(8), contexts(Classes(4), 8)
    assert "drop" not in model.noise(8)
    torch.testing.assert_close(model.bound(x).value, model.bound(x, torch.full((8,), 4)).value)
    model.train()
    noise = model.noise(4000, 1, torch.Generator().manual_seed(0))
    seen = model.dropped(torch.zeros(4000, dtype=torch.int64), noise)
    assert float((seen == 4).double().mean()) == pytest.approx(0.3, abs=0.03)
    step = Step(model, TrainingConfig(), "float32")
    drawn_anew(model)
    loss, _ = step(x, given, model.noise(8, 1, torch.Generator().manual_seed(0)), 0.5)
    loss.mean().backward()
    assert model.embedding.table.weight.grad[-1].any()


def two_hills(num: int = 400) -> Source:
    """Rows around (8, 8) and around (−8, −8), by their class."""
    labels = torch.arange(num) % 2
    noise = torch.randn(num, 2, generator=torch.Generator().manual_seed(0))
    x = noise + 8.0 * (1 - 2 * labels.unsqueeze(1))
    split = InMemorySplit(x, labels)
    return Source(split, split, split, (2,), Real(), Classes(2, ("up", "down")), "hills")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.nightly] if n == "vqvae" else []) for n in NAMES]
)
def test_what_is_learned_of_a_class_is_drawn_and_judged(name):
    source = two_hills()
    options = {**SMALL[name], **({"places": 2} if name == "vqvae" else {})}
    model = create_model(name, source, context=source.context, **options)
    fit(model, source, steps=150, batch_size=512, learning_rate=3e-3, quiet=True)
    x, labels = source.test[slice(0, 100)]
    right, wrong = (model.bound(x, c).value.mean() for c in (labels, 1 - labels))
    assert right > wrong + 3
    for index, sign in ((0, 1), (1, -1)):
        made_of = draw(model, 50, context=torch.full((50,), index))
        assert (sign * made_of.mean(1) > 0).double().mean() > 0.9
    result = evaluate(model, source, num_samples=2, max_rows=50, baselines=False)
    assert "log p(x | context)" in result["notes"][0]


@each_name
@pytest.mark.parametrize("kind", ["mask:2", "vector"])
def test_parts_of_images_and_vectors_are_trained_with_and_judged(name, kind):
    source = load_data("digits", condition="labels" if kind == "vector" else kind)
    if kind == "vector":
        numbers = {
            part: InMemorySplit(s.x, s.labels.float().unsqueeze(1))
            for part in ("train", "validation", "test")
            for s in (source.split(part),)
        }
        source = dataclasses.replace(source, context=Vector(1), **numbers)
    model = create_model(name, source, context=source.context, **SMALL[name])
    fit(model, source, steps=3, quiet=True)
    result = evaluate(model, source, num_samples=2, max_rows=20, baselines=False)
    assert math.isfinite((result["log_likelihood"] or result["bound"])["value"])
    assert result["context"] == str(source.context)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "diffusion"])
def test_an_optimal_sigma_is_that_of_means_given_the_class(name):
    source = two_hills()
    options = {**SMALL[name], **({"places": 2} if name == "vqvae" else {})}
    model = create_model(name, source, context=source.context, sigma="optimal", **options)
    drawn_anew(model)
    model.settle(source)
    x, labels = source.train[slice(None)]
    with torch.no_grad():
        if name == "vqvae":
            z = model.codes(x)
        else:
            draws = model.draw(x, 1, labels).latents
            z = (draws["z"] if "z" in draws else model.joined(draws, labels))[0]
        error = (x - model.decode(z, labels).mean).square().mean()
        sigma = model.decode(z, labels).stddev
    torch.testing.assert_close(sigma.square().mean(), error, rtol=1e-3, atol=0)


# --- what is refused


@each_variant
@each_context
def test_a_context_that_does_not_fit_is_refused_by_every_door(variant, context):
    model = made(variant, context)
    x, given = examples(3), contexts(context, 3)
    wrong = given + 4 if isinstance(context, Classes) else given[:, :1]
    doors = [lambda c: model.bound(x, c)]
    if model.has_encoder:
        z = model.encode(x, given).mean
        doors += [lambda c: model.encode(x, c), lambda c: model.decode(z, c)]
        doors += [lambda c: model.log_weight(x, 2, c)]
    else:
        doors += [lambda c: model.denoise(x, torch.tensor(0.0), c)]
    for c in (wrong, None, given[:2]):
        for door in doors:
            with pytest.raises(InputError, match="'context' must be"):
                door(c)
    with pytest.raises(InputError, match="'context' must be"):
        model.sample(3, wrong)


@each_name
def test_a_class_that_is_not_known_is_refused_without_label_dropout(name):
    model, x = made(name, Classes(4)), examples(2)
    with pytest.raises(InputError, match=r"got 4, a class that is not known; .*label_dropout=0.1"):
        model.bound(x, torch.tensor([0, 4]))
    split = InMemorySplit(examples(20), torch.arange(20) % 5)
    source = Source(split, split, split, SHAPE, Real(), Classes(4), "half labelled")
    with pytest.raises(InputError, match="got 4, a class that is not known"):
        create_model(name, source, context=source.context, **{**SMALL[name], "width": 8})


@each_name
def test_a_class_that_training_never_saw_is_judged_but_not_drawn(name):
    labels = 2 * (torch.arange(60) % 2)
    split = InMemorySplit(examples(60, (4,)), labels)
    context = Classes(3, ("cat", "dog", "owl"))
    source = Source(split, split, split, (4,), Real(), context, "pets")
    model = create_model(name, source, context=context, **SMALL[name])
    assert model.unseen == [1]
    assert any("of these classes: dog" in note for note in model.notes())
    message = "'label' must be one of the classes in the training set: cat, owl, got dog"
    for call in (
        lambda: model.sample(2, torch.tensor([0, 1])),
        lambda: draw(model, 2, context=torch.tensor([1, 1])),
        lambda: class_context(model, "dog", 1),
    ):
        with pytest.raises(InputError, match=message):
            call()
    assert not (model.draw_context(200, torch.Generator().manual_seed(0)) == 1).any()
    assert model.bound(split.x[:2], torch.tensor([1, 1])).value.isfinite().all()


@pytest.mark.parametrize("name", [n for n in NAMES if MODELS[n].context == "optional"])
def test_options_of_a_context_need_one(name):
    for option in ({"label_dropout": 0.1}, {"context_dim": 4}):
        with pytest.raises(InputError, match="must be left out for a model of p"):
            create_model(name, SHAPE, **option)
    if name == "diffusion":  # which has no sigma
        return
    with pytest.raises(InputError, match="'sigma' must be learned or fixed for a masked x"):
        create_model(name, SHAPE, context=Mask(), sigma="optimal")


@each_name
def test_another_context_than_that_of_the_data_is_refused(name):
    source = two_hills()
    with pytest.raises(InputError, match="'context' must be the source's own"):
        create_model(name, source, context=Classes(3))
    model = create_model(name, (2,), context=Vector(2))
    with pytest.raises(InputError, match=f"'condition' must be vector for this '{name}'"):
        fit(model, source, steps=1, quiet=True)


def test_a_hierarchy_of_p_of_x_ignores_the_labels_of_its_data():
    source = two_hills()
    model = create_model("ladder", source, **SMALL["ladder"])
    assert isinstance(model, Hierarchy)
    assert model.context is None
    x, labels = source.test[slice(0, 5)]
    assert torch.equal(model.bound(x, labels).value, model.bound(x).value)
