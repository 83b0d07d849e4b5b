"""A prior that is fitted afterwards: what stays, what rises, and what is refused."""

from __future__ import annotations

import json
from typing import get_args

import pytest
import torch

import lowerbound
from lowerbound.build import create_model, save_model
from lowerbound.data import Rows, make_source
from lowerbound.distributions import Real
from lowerbound.errors import InputError
from lowerbound.models.priors import PriorName
from lowerbound.run import fit
from tests.commands.calling import call, refused

KINDS = [kind for kind in get_args(PriorName) if kind != "normal"]
SMALL = {"prior_components": 20, "prior_layers": 4, "flow_width": 16, "steps": 150}


@pytest.fixture(scope="module")
def trained(digits):
    model = create_model("vae", digits, latent_dim=4, width=32)
    fit(model, digits, steps=150, quiet=True)
    return model


@pytest.fixture(scope="module")
def forgotten(trained):
    """The trained model with its prior moved away from its codes."""
    import copy

    model = copy.deepcopy(trained)
    with torch.no_grad():
        model.encoder.last.bias[:4] += 2.0
        shift = model.decoder.first.weight @ torch.full((4,), 2.0)
        model.decoder.first.bias -= shift
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_stay_and_the_bound_rises_by_the_rate(kind, forgotten, digits):
    before = {k: v.clone() for k, v in forgotten.state_dict().items()}
    fitted = lowerbound.fit_prior(forgotten, digits, kind, **SMALL)
    assert fitted.is_better
    assert fitted.after > fitted.before + 2.0  # N(0, I) pays ½ · 2² nats for each latent
    assert fitted.model is not forgotten
    assert fitted.model.options.prior == fitted.model.prior.name == kind
    assert not fitted.model.training
    assert all(p.requires_grad for p in fitted.model.parameters())
    after = fitted.model.state_dict()
    for key, tensor in before.items():
        assert torch.equal(forgotten.state_dict()[key], tensor)
        assert torch.equal(after[key], tensor) or key.startswith("prior.")
    x = digits.test[slice(0, 20)][0]
    one, two = forgotten.bound(x), fitted.model.bound(x)
    assert torch.equal(one.reconstruction, two.reconstruction)


@pytest.mark.parametrize("name", ["hvae", "ladder"])
@pytest.mark.parametrize("kind", ["mixture", "flow", "autoregressive"])
def test_the_top_of_a_hierarchy_is_fitted_and_the_rest_stays(name, kind, digits):
    sizes = {"hvae": {"latent_dims": (4, 3)}, "ladder": {"levels": 2, "latent_dim": 3}}[name]
    model = create_model(name, digits, width=16, **sizes)
    fit(model, digits, steps=100, quiet=True)
    with torch.no_grad():  # move the top's codes away from N(0, I)
        top = model.encoders[-1].last if name == "hvae" else model.network.rungs[-1].direct
        top.bias[:3] += 2.0
    fitted = lowerbound.fit_prior(model, digits, kind, **SMALL)
    assert fitted.after > fitted.before + 2.0
    x = digits.validation[slice(None)][0]
    with torch.no_grad():
        one, two = model.bound(x), fitted.model.bound(x)
    assert torch.equal(one.reconstruction, two.reconstruction)
    assert torch.equal(one.rates["kl_1"], two.rates["kl_1"])
    gain = float((one.rates["kl_2"] - two.rates["kl_2"]).mean())
    assert gain == pytest.approx(fitted.after - fitted.before, abs=1)
    after = fitted.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in model.state_dict().items())


def test_the_top_of_a_hierarchy_has_no_vamp(digits):
    model = create_model("hvae", digits, latent_dims=(4, 3), width=16)
    with pytest.raises(InputError, match="'kind' must be one of mixture, flow, autoreg"):
        lowerbound.fit_prior(model, digits, "vamp")


def test_a_prior_that_is_no_better_is_not_taken():
    """Codes that are N(0, I) already: a mixture of one far too short a training away from it."""
    x = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    source = make_source(Rows(x=x, support=Real(), name="noise"))
    model = create_model("vae", source, latent_dim=2, width=8)
    with torch.no_grad():
        model.encoder.last.weight.zero_()
        model.encoder.last.bias.zero_()
    fitted = lowerbound.fit_prior(model, source, "mixture", prior_components=1, steps=1)
    assert not fitted.is_better
    assert fitted.after < fitted.before
    assert fitted.model is model
    assert model.options.prior == "normal"


def test_a_prior_that_has_learned_nothing_is_judged_as_the_old_one(trained, digits):
    still = {"flow_width": 8, "steps": 1, "learning_rate": 1e-12}
    fitted = lowerbound.fit_prior(trained, digits, "flow", **still)
    assert fitted.after == pytest.approx(fitted.before, abs=1e-4)


def test_a_fit_repeats_and_is_saved_and_loaded(forgotten, digits, tmp_path):
    from lowerbound.build import save_model

    one, two = (lowerbound.fit_prior(forgotten, digits, "vamp", **SMALL) for _ in range(2))
    assert (one.before, one.after) == (two.before, two.after)
    save_model(tmp_path, one.model)
    x = digits.test[slice(0, 5)][0]
    loaded = lowerbound.load(tmp_path)
    assert torch.equal(loaded.bound(x).value, two.model.bound(x).value)


def test_what_cannot_be_fitted_is_refused(trained, digits):
    with pytest.raises(InputError, match="'model' must be a vae, cvae, hvae or ladder of"):
        lowerbound.fit_prior(create_model("ppca", digits, latent_dim=2), digits)
    with pytest.raises(InputError, match=r"'kind' must be one of mixture, .*got flows; did you"):
        lowerbound.fit_prior(trained, digits, "flows")
    with pytest.raises(InputError, match="'objective' must be a size of the prior or an option"):
        lowerbound.fit_prior(trained, digits, objective="iwae")
    with pytest.raises(InputError, match="'prior_layers' must be at least 1"):
        lowerbound.fit_prior(trained, digits, prior_layers=0)
    with pytest.raises(InputError, match="'prior_components' must be at most the"):
        lowerbound.fit_prior(trained, digits, "vamp", prior_components=10_000)


def test_the_codes_may_have_been_shaped_by_a_penalty(digits, tmp_path):
    model = create_model("vae", digits, latent_dim=2, width=8, penalty="mmd")
    new = lowerbound.fit_prior(model, digits, "flow", flow_width=8, steps=100).model
    assert new.options.prior == "flow"
    save_model(tmp_path, new)
    x = digits.test[slice(0, 5)][0]
    assert torch.equal(lowerbound.load(tmp_path).bound(x).value, new.bound(x).value)


@pytest.mark.parametrize("posterior", ["full", "iaf"])
def test_the_codes_may_come_from_any_posterior(posterior, digits):
    model = create_model("vae", digits, latent_dim=2, width=8, posterior=posterior)
    fitted = lowerbound.fit_prior(model, digits, "flow", flow_width=8, steps=20)
    assert fitted.before == pytest.approx(fitted.after, abs=20)


def test_the_command_makes_a_run_that_the_others_use(tmp_path, capsys):
    run, out = tmp_path / "one", tmp_path / "two"
    sizes = ("--latent-dim", 2, "--width", 16, "--steps", 60)
    assert call("train", "digits", "--out", run, *sizes, "--quiet") == 0
    flags = ("--prior-layers", 4, "--flow-width", 16, "--steps", 300)
    assert call("refit", run, *flags, "--out", out, "--quiet") == 0
    document = json.loads((out / "config.json").read_text())
    assert document["options"]["prior"] == "flow"
    judged = json.loads((out / "evaluation.json").read_text())
    before = json.loads((run / "evaluation.json").read_text())
    assert judged["bound"]["value"] > before["bound"]["value"]
    assert any("fitted afterwards" in note for note in judged["notes"])
    assert (out / "report.html").is_file()
    assert call("evaluate", out, "--samples", 5) == 0
    assert call("sample", out, "--num", 4, "--out", tmp_path / "x.npz") == 0
    assert "empty or new folder" in refused(capsys, "refit", run, *flags, "--out", out)
    kept = (out / "evaluation.json").read_bytes()
    again = ("refit", run, "--out", out, "--overwrite", "--quiet")
    assert "at least 1" in refused(capsys, *again, "--prior-layers", 0)
    assert (out / "evaluation.json").read_bytes() == kept  # refused: what was there still is
    in_place = ("refit", run, *flags, "--out", run, "--overwrite", "--quiet")
    assert call(*in_place) == 0
    assert json.loads((run / "config.json").read_text())["options"]["prior"] == "flow"
    assert not (run / ".replaced").exists()
    assert "'prior_layers' must be at least 1" in refused(
        capsys, "refit", run, "--prior-layers", 0, "--out", tmp_path / "three"
    )
    assert not (tmp_path / "three").exists()
