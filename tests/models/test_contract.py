"""What every registered model promises, whatever it is."""

from __future__ import annotations

import math
import shutil
from typing import get_args, get_type_hints

import pytest
import torch

import lowerbound
from lowerbound.build import MODELS, create_model, load_model, model_entry, save_model
from lowerbound.config import TrainingConfig
from lowerbound.data import Classes, Source
from lowerbound.distributions import Binary, Discrete, Real
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate, log_likelihood
from lowerbound.evaluation.judging import scores
from lowerbound.models import VAEOptions
from lowerbound.presets import PRESETS
from lowerbound.run import fit
from lowerbound.training import fit_model
from lowerbound.training.checkpoint import checkpoints_of, load_newest

SMALL = {
    "vae": {
        "latent_dim": 3,
        "width": 16,
        "posterior_steps": 2,
        "prior_components": 20,
        "flow_width": 16,
    },
    "cvae": {"latent_dim": 3, "width": 16},
    "hvae": {"latent_dims": (3, 2), "width": 16},
    "ladder": {"levels": 2, "latent_dim": 3, "width": 16},
    "ppca": {"latent_dim": 3},
    "mixture": {"components": 3},
    "autoencoder": {"latent_dim": 3, "width": 16},
    "lda": {"latent_dim": 3},
    "vqvae": {"latent_dim": 3, "width": 16, "places": 3, "codebook_size": 16, "prior_width": 16},
    "dct": {"latent_dim": 3},
    "diffusion": {"network": "mlp", "width": 16, "sampling_steps": 5},
}

# Every model, and the VAE with every part that its options declare: a new one is tested by being
# declared.
CASES = {name: (name, {}) for name in MODELS} | {
    f"vae-{part}-{value}": ("vae", {part: value})
    for part in ("posterior", "prior")
    for value in get_args(get_type_hints(VAEOptions)[part])
    if value != getattr(VAEOptions, part)
}
CASES |= {
    "diffusion-chain": ("diffusion", {"timesteps": 6, "variance": "learned"}),
    "diffusion-learned": ("diffusion", {"schedule": "learned"}),
}
# Those that may have a context are tested with one as well; slow networks, which hear of it as the
# quick ones of their model do, are not.
LABELS = "labels"
SLOW = {
    "ladder-conv": ("ladder", {"levels": 3, "latent_dim": 2, "width": 8, "network": "conv"}),
    "diffusion-unet": ("diffusion", {"network": "unet", "width": 8}),
    "diffusion-dit": ("diffusion", {"network": "dit", "width": 32, "depth": 1}),
}
CASES |= {
    f"{case}-labels": (name, {**options, "context": LABELS, "context_dim": 8})
    for case, (name, options) in CASES.items()
    if MODELS[name].context == "optional"
}
CASES |= SLOW
# Presets of other parts than these, and priors that other models have.
OWN = {"fsq-vae": {"latent_dim": None, "codebook_size": None}}
CASES |= {
    name: (preset.model, {**preset.options, **OWN.get(name, {})})
    for name, preset in PRESETS.items()
    if preset.training or (preset.model, preset.options) not in CASES.values()
}
TRAINING = {name: preset.training for name, preset in PRESETS.items()}
CASES |= {
    "cvae-prior-conditional": ("cvae", {"prior": "conditional"}),
    "cvae-prior-conditional-flow": ("cvae", {"prior": "conditional-flow", "flow_width": 16}),
    "hvae-prior-flow": ("hvae", {"prior": "flow", "prior_layers": 2, "flow_width": 16}),
}


def small(name: str, source_or_shape, **options):
    """A small model of a kind; a new kind is tested by being registered."""
    is_source = isinstance(source_or_shape, Source)
    if model_entry(name).context == "always" and not is_source:
        options.setdefault("context", LABELS)
    if options.get("context") == LABELS:
        options["context"] = source_or_shape.context if is_source else Classes(4)
    return create_model(name, source_or_shape, **{**SMALL.get(name, {}), **options})


def context_for(model, num: int) -> torch.Tensor | None:
    """A context for a conditional model of classes, each in turn; None for the others."""
    return None if model.context is None else torch.arange(num) % model.context.num_classes


@pytest.fixture(scope="module", params=CASES)
def trained(request, digits):
    """Every model, trained a little on digits."""
    name, options = CASES[request.param]
    model = small(name, digits, **options)
    fit(model, digits, steps=30, validations=3, quiet=True, **TRAINING.get(request.param, {}))
    return model


@pytest.fixture
def likelihood(trained):
    """Those of the trained models that have log p(x)."""
    if not trained.is_likelihood:
        pytest.skip("not a likelihood")
    return trained


@pytest.fixture
def weighted(likelihood):
    """Those of them that have importance weights."""
    if not likelihood.has_weights:
        pytest.skip("the bound is all there is")
    return likelihood


@pytest.fixture
def x(digits):
    return digits.test[slice(0, 12)][0]


@pytest.fixture
def context(trained):
    return context_for(trained, 12)


def test_a_model_is_in_eval_mode_after_fit_and_knows_its_data(trained, digits):
    assert not trained.training
    assert (trained.event_shape, trained.support) == (digits.event_shape, digits.support)


def test_the_bound_is_per_example_finite_and_deterministic(trained, x, context):
    before = x.clone()
    bound = trained.bound(x, context)
    assert bound.value.shape == (12,)
    assert bound.value.isfinite().all()
    assert all(rate.shape == (12,) for rate in bound.rates.values())
    assert torch.equal(trained.bound(x, context).value, bound.value)
    assert torch.equal(x, before)


def test_details_sum_to_their_rate(trained, x, context):
    bound = trained.bound(x, context)
    for name, parts in bound.details.items():
        torch.testing.assert_close(parts.sum(1), bound.rates[name])


def test_the_value_is_reconstruction_minus_rates(trained, x, context):
    bound = trained.bound(x, context)
    torch.testing.assert_close(bound.value, bound.reconstruction - sum(bound.rates.values()))


def test_batches_change_nothing(trained, x, context):
    noise = trained.judging_noise(range(12))
    whole = trained.bound(x, context, noise=noise).value
    ones = []
    for row in (slice(i, i + 1) for i in range(12)):
        own = {k: v[:, row] for k, v in noise.items()}
        given = None if context is None else context[row]
        ones.append(trained.bound(x[row], given, noise=own).value)
    torch.testing.assert_close(whole, torch.cat(ones), rtol=1e-5, atol=1e-4)


def test_judging_noise_is_a_function_of_seed_and_row(trained):
    if not trained.noise(1):
        pytest.skip("deterministic")
    some, more = trained.judging_noise([3, 5]), trained.judging_noise(range(6))
    for name, tensor in some.items():
        assert torch.equal(tensor, more[name][:, [3, 5]])
    other = trained.judging_noise([3, 5], seed=1)
    assert any(not torch.equal(some[name], other[name]) for name in some)


def test_nothing_reads_or_moves_the_global_random_state(trained, x, context):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = trained.bound(x, context).value
    if model_entry(trained.name).samples:
        trained.sample(3, generator=torch.Generator().manual_seed(0))
    if trained.is_likelihood and trained.has_weights:
        log_likelihood(trained, x, num_samples=3, context=context)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(trained.bound(x, context).value, first)


def test_a_weight_is_the_joint_density_over_that_of_the_draw(likelihood, x, context):
    if likelihood.closed_form or not likelihood.has_encoder:
        pytest.skip("no importance weights that are more than the evidence")
    draw = likelihood.draw(x, 3, context)
    latents = draw.latents
    if "z" not in latents:  # several, which stand side by side in what is encoded
        latents = {"z": likelihood.joined(latents, context)}
    log_q = likelihood.encode(x, context).log_prob(latents["z"])
    log_joint = likelihood.log_joint(x, latents, context)
    torch.testing.assert_close(log_joint - log_q, draw.log_weight)


def test_the_log_likelihood_is_at_least_the_bound_and_rises_with_the_samples(weighted, x, context):
    likelihood = weighted
    noise = likelihood.judging_noise(range(12), 500)
    elbo = likelihood.bound(x, context, num_samples=500, noise=noise).value
    one, ten, many = (
        log_likelihood(likelihood, x, num_samples=k, context=context) for k in (1, 10, 500)
    )
    slack = 1e-3 + 4 * float(one.value.std()) / math.sqrt(12)
    assert float(ten.value.mean()) >= float(one.value.mean()) - slack
    assert float(many.value.mean()) >= float(elbo.detach().mean()) - 1e-3
    assert ((many.effective_sample_size >= 1) & (many.effective_sample_size <= 500)).all()


def test_samples_have_the_shape_and_the_support_and_repeat_with_their_generator(trained):
    if not model_entry(trained.name).samples:
        with pytest.raises(InputError, match=f"'{trained.name}' has no prior to draw from"):
            trained.sample(5)
        return
    draws = [trained.sample(5, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert draws[0].shape == (5, *trained.event_shape)
    assert trained.support.contains(draws[0])
    assert torch.equal(*draws)
    means = trained.sample(5, generator=torch.Generator().manual_seed(1), mean=True)
    assert means.shape == draws[0].shape
    assert means.isfinite().all()


def test_saving_and_loading_gives_the_same_bits(trained, x, tmp_path, context):
    save_model(tmp_path, trained)
    loaded = lowerbound.load(tmp_path)
    assert torch.equal(loaded.bound(x, context).value, trained.bound(x, context).value)
    assert loaded.state_dict().keys() == trained.state_dict().keys()
    assert loaded.context == trained.context
    assert not loaded.training


@pytest.mark.parametrize("wrong", [(1, 8, 7), (64,), (3, 8, 8)])
def test_examples_of_another_shape_are_refused_by_name(trained, wrong):
    with pytest.raises(InputError, match=r"'x' must be examples of shape 1×8×8, got"):
        log_likelihood(trained, torch.zeros(2, *wrong), num_samples=2)


def test_values_outside_the_support_are_refused(trained):
    for bad in (17.0, -1.0, 0.5, math.nan):
        with pytest.raises(InputError, match="'x' must be discrete:17 data"):
            log_likelihood(trained, torch.full((2, 1, 8, 8), bad), num_samples=2)


def test_a_model_that_is_no_likelihood_gives_no_nats(trained, x, digits):
    if trained.is_likelihood:
        pytest.skip("a likelihood")
    result = evaluate(trained, digits, num_samples=5, max_rows=50)
    assert result["reason"] == "not a likelihood"
    for key in ("bound", "log_likelihood", "gap", "bits_per_dim"):
        assert result[key] is None
    assert result["reconstruction_mse"] > 0
    for judged in (lambda: log_likelihood(trained, x), lambda: scores(trained, x, 1)):
        with pytest.raises(InputError, match="not a likelihood"):
            judged()


def test_a_model_without_weights_says_so_and_is_judged_by_its_bound(trained, x, context):
    if trained.has_weights or not trained.is_likelihood:
        pytest.skip("has weights, or no nats")
    with pytest.raises(InputError, match="has no importance weights; use its bound"):
        log_likelihood(trained, x, num_samples=2, context=context)
    with pytest.raises(InputError, match="'objective' must be elbo"):
        trained.check_objective("iwae")
    nats, bits = scores(trained, x, 3, context)
    assert nats.isfinite().all()
    assert torch.allclose(bits, -nats / (64 * math.log(2)))


def test_codes_go_to_the_data_and_back(trained, x, context):
    if not trained.has_encoder:
        pytest.skip("no encoder")
    z = trained.encode(x, context)
    decoded = trained.decode(z.mean, context)
    assert decoded.mean.shape == decoded.sample().shape == x.shape
    assert z.stddev.shape == z.mean.shape
    assert (z.stddev >= 0).all()
    torch.testing.assert_close(trained.encode(x, context).mean, z.mean)


def test_latents_and_examples_of_another_shape_are_refused_by_encoder_and_decoder(
    trained, x, context
):
    if not trained.has_encoder:
        pytest.skip("no encoder")
    z = trained.encode(x, context).mean
    d = z.shape[1]
    for wrong in (z[:, :-1], torch.cat([z, z], 1), z.unsqueeze(0), z[0], z[0, 0]):
        with pytest.raises(InputError, match=rf"'z' must be latents of shape N×{d}, got"):
            trained.decode(wrong, context)
    for wrong in (x[..., :-1], x.flatten(1), x[0]):
        with pytest.raises(InputError, match=r"'x' must be examples of shape 1×8×8, got"):
            trained.encode(wrong, context)


def test_evaluation_has_the_promised_keys_and_its_terms_add_up(likelihood, digits):
    result = evaluate(likelihood, digits, num_samples=5, max_rows=50)
    for key in (
        "format_version model data split num_examples unit parameters seconds bound "
        "log_likelihood gap bits_per_dim reconstruction_mse active_units baselines"
    ).split():
        assert key in result
    bound = result["bound"]
    rates = sum(v for k, v in bound["terms"].items() if k != "reconstruction")
    assert bound["term_errors"].keys() == bound["terms"].keys()
    assert bound["value"] == pytest.approx(bound["terms"]["reconstruction"] - rates, abs=1e-4)
    assert result["bits_per_dim"] == pytest.approx(-bound["value"] / (64 * math.log(2)))
    assert len(result["fingerprint"]) == 64
    if likelihood.has_weights:
        assert result["gap"] == pytest.approx(result["log_likelihood"]["value"] - bound["value"])
    else:
        assert result["gap"] is result["log_likelihood"] is None
    assert result["num_examples"] == 50


@pytest.mark.parametrize("case", CASES)
def test_a_training_that_is_continued_ends_with_the_same_bits(case, digits, tmp_path):
    name, options = CASES[case]
    training = {"steps": 6, "batch_size": 100, "validations": 3, "precision": "float32"}
    config = TrainingConfig(**training, **TRAINING.get(case, {}))
    whole, again = (small(name, digits, **options) for _ in range(2))
    fit_model(whole, digits, config, folder=tmp_path)
    checkpoints = checkpoints_of(tmp_path)
    if not checkpoints:
        pytest.skip("fitted in closed form")
    shutil.rmtree(checkpoints[0])  # the last of three: it is made again
    fit_model(again, digits, config, folder=tmp_path, checkpoint=load_newest(tmp_path)[0])
    assert checkpoints_of(tmp_path)[0].name == checkpoints[0].name
    ends = whole.state_dict(), again.state_dict()
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("support", [Binary(), Discrete(9), Discrete(256), Real()], ids=str)
@pytest.mark.parametrize("shape", [(5,), (1, 6, 5), (3, 7, 4)], ids=str)
def test_any_shape_and_support_gives_a_finite_bound(case, shape, support):
    name, options = CASES[case]
    if options.get("network") in ("conv", "unet", "dit") and len(shape) == 1:
        pytest.skip("networks of images")
    model = small(name, shape, support=support, **options)
    top = 1 if isinstance(support, Real | Binary) else support.levels - 1
    for x in (torch.zeros(2, *shape), torch.full((2, *shape), float(top))):
        assert model.bound(x, context_for(model, 2)).value.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_the_table_speaks_the_truth(name):
    entry = model_entry(name)
    model_class, options = entry.load()
    assert model_class.name == name
    assert model_class.is_likelihood == entry.is_likelihood
    assert entry.conditional == (entry.context != "never")
    assert (small(name, (4,)).context is not None) == (entry.context == "always")
    assert entry.summary.endswith(".")
    assert options.__doc__


@pytest.mark.parametrize("case", CASES)
def test_initial_weights_follow_from_the_seed_alone(case):
    torch.manual_seed(5)
    state, (name, parts) = torch.get_rng_state(), CASES[case]
    one, two, other = (
        small(name, (1, 4, 4), seed=seed, **parts).state_dict() for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], two[key]) for key in one)
    if dict(small(name, (1, 4, 4)).named_parameters()):
        assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", MODELS)
def test_a_context_is_taken_by_those_that_have_one_and_asked_for_by_no_other(name):
    if model_entry(name).context == "always":
        with pytest.raises(InputError, match=f"'context' must be in the data of a '{name}', got"):
            create_model(name, (4,))
    elif model_entry(name).context == "optional":
        assert small(name, (4,)).context is None
        assert small(name, (4,), context=Classes(3)).context == Classes(3)
    else:
        with pytest.raises(
            InputError, match=f"'context' must be left out for a '{name}', a model"
        ):
            create_model(name, (4,), context=Classes(3))


def test_a_misspelt_model_or_option_is_named_with_the_nearest():
    with pytest.raises(
        InputError, match=r"'model' must be one of .*, got vea; did you mean 'vae'"
    ):
        create_model("vea", (3,))
    with pytest.raises(InputError, match="unknown key 'latent_dims'; did you mean 'latent_dim'"):
        create_model("vae", (3,), latent_dims=3)
    with pytest.raises(InputError, match=r"'latent_dim' .* not valid"):
        create_model("vae", (3,), latent_dim="many")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_the_dtype_of_the_examples_changes_nothing(trained, x, dtype, context):
    value = trained.bound(x.to(dtype), context).value
    torch.testing.assert_close(value, trained.bound(x, context).value)
