"""What a step is made of: its precision and compilation by a fixed rule, and the same numbers."""

from __future__ import annotations

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.errors import InputError
from lowerbound.training import fit_model
from lowerbound.training.checkpoint import load_newest
from lowerbound.training.compiling import find_compiler, resolve_compile
from lowerbound.training.logs import Console
from lowerbound.training.schedule import Length
from lowerbound.training.step import Step


def tiny_vae(source):
    return create_model("vae", source, latent_dim=4, width=16, depth=0)


CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LONG, SHORT = Length(10**9, None), Length(10, None)


def compiled(device, length, model, choice="auto", precision="bf16", devices=1):
    config = TrainingConfig(compile=choice, precision=precision, devices=devices)
    return resolve_compile(config, device, length, model)


def test_a_learned_schedule_is_never_compiled():
    options = {"network": "mlp", "width": 8, "schedule": "learned"}
    model = create_model("diffusion", (3,), **options)
    assert not compiled(CUDA, Length(10**6, None), model)
    with pytest.raises(InputError, match="'compile' must be never or auto"):
        compiled(CUDA, Length(10**6, None), model, "always")
    chain = create_model("diffusion", (3,), timesteps=5, **options)
    assert compiled(CUDA, Length(10**6, None), chain)


def test_an_objective_that_works_by_hooks_is_never_compiled(digits):
    length = Length(10**6, None)
    for options, can in (({}, False), ({"elbo_first": 0.5}, False), ({"objective": "stl"}, True)):
        config = TrainingConfig(**{"objective": "dreg", "precision": "bf16", **options})
        assert resolve_compile(config, CUDA, length, tiny_vae(digits)) is can
    asked = TrainingConfig(objective="dreg", compile="always")
    with pytest.raises(InputError, match="'compile' must be never or auto for the objective dreg"):
        resolve_compile(asked, CUDA, length, tiny_vae(digits))


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A machine with a compiler of a name of its own."""
    path = tmp_path / "some-compiler"
    path.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(path))
    return path


@pytest.mark.parametrize(("device", "seconds"), [(CPU, 120.0), (CUDA, 300.0)])
def test_compiling_is_left_to_runs_that_are_long_enough(device, seconds, digits, compiler):
    model = tiny_vae(digits)
    assert compiled(device, LONG, model)
    assert not compiled(device, SHORT, model)
    assert compiled(device, Length(None, seconds), model)
    assert not compiled(device, Length(None, seconds - 1), model)
    assert compiled(device, SHORT, model, "always")
    assert not compiled(device, LONG, model, "never")


def test_the_usual_run_on_a_processor_is_not_compiled(digits, compiler):
    usual = Length.of(TrainingConfig(), 100_000)
    assert not compiled(CPU, usual, tiny_vae(digits))


def test_a_processor_compiles_only_what_was_measured_to_gain(digits, compiler):
    model, conv = tiny_vae(digits), create_model("vae", digits, network="conv", width=4)
    assert compiled(CPU, LONG, model)
    assert not compiled(CPU, LONG, model, precision="float32")
    assert not compiled(CPU, LONG, model, devices=2)
    assert not compiled(CPU, LONG, conv)
    assert compiled(CUDA, LONG, conv)
    assert not compiled(CPU, LONG, create_model("vae", digits, network="mlp", width=4, depth=20))
    compiler.unlink()
    assert find_compiler() is None
    assert not compiled(CPU, LONG, model)


def test_a_processor_compiles_a_unet_for_longer_runs(digits, compiler):
    unet = create_model("diffusion", digits, network="unet", width=8)
    assert compiled(CPU, LONG, unet)
    assert compiled(CPU, Length(None, 1200.0), unet)
    assert not compiled(CPU, Length(None, 1199.0), unet)
    assert not compiled(CPU, LONG, create_model("diffusion", digits, network="dit", width=32))


def test_a_step_that_cannot_be_compiled_is_run_as_it_is(digits):
    """One word about it, the same numbers, and never tried again."""
    model, said = tiny_vae(digits), []
    config = TrainingConfig(beta_warmup=0.5)
    noise = model.noise(64, 1, torch.Generator().manual_seed(0))
    x = digits.train[slice(0, 64)][0]

    def broken(*args):
        raise RuntimeError("no\ncompiler")

    step = Step(model, config, "float32", compiled=True)
    step.faster, step.say = broken, said.append
    plain, _ = Step(model, config, "float32")(x, None, noise, 0.25)
    for _ in range(2):
        assert torch.equal(step(x, None, noise, 0.25)[0], plain)
    assert len(said) == 1
    assert "(no compiler)" in said[0]
    assert step.compiled is False


def test_a_run_that_could_not_be_compiled_is_continued_as_it_was(digits, tmp_path, monkeypatch):
    def broken(*args, **options):
        def fails(*args):
            raise RuntimeError("no")

        return fails

    monkeypatch.setattr(torch, "compile", broken)
    config = TrainingConfig(steps=10, validations=2, compile="always", precision="float32")
    fit_model(tiny_vae(digits), digits, config, folder=tmp_path)
    checkpoint, _ = load_newest(tmp_path)
    assert checkpoint.state["facts"]["compile"] == "always"
    assert checkpoint.state["place"]["compiled"] is False
    console, said = Console(quiet=True), []
    console.say = lambda text: said.append(text) if text else None
    checkpoint.state["position"] |= {"step": 5, "validations": 1, "finished": False}
    fit_model(
        tiny_vae(digits), digits, config, folder=tmp_path, checkpoint=checkpoint, console=console
    )
    assert not [text for text in said if "compiled" in text]


@pytest.mark.nightly
@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_a_compiled_run_is_the_run(digits, warmup):
    """The same losses to rounding, for a beta that stands still and one that rises."""
    rows = []
    for choice in ("never", "always"):
        config = TrainingConfig(
            steps=20,
            batch_size=64,
            validations=2,
            beta_warmup=warmup,
            precision="float32",
            compile=choice,
            device="cpu",
        )
        rows.append(fit_model(tiny_vae(digits), digits, config).rows[-1])
    assert rows[1]["bound"] == pytest.approx(rows[0]["bound"], rel=1e-4)


@pytest.mark.nightly
def test_the_compiled_step_is_one_graph(digits):
    """No break: what is compiled is the whole objective."""
    model = tiny_vae(digits)
    step = Step(model, TrainingConfig(), "bf16")
    noise = model.noise(64, 1, torch.Generator().manual_seed(0))
    x = digits.train[slice(0, 64)][0]
    whole = torch.compile(step._run, fullgraph=True, backend="eager")
    loss, _ = whole(x, None, noise, step.weights(0.5), "elbo")
    torch.testing.assert_close(loss, step(x, None, noise, 0.5)[0])


NETWORKS = [
    ("vae", {"network": "mlp"}),
    ("vae", {"network": "hybrid"}),
    ("vae", {"network": "conv"}),
    ("hvae", {"network": "conv"}),
    ("ladder", {"network": "mlp", "levels": 3}),
    ("ladder", {"network": "conv", "levels": 3}),
    ("vqvae", {"network": "grid"}),
    ("diffusion", {"network": "unet", "widths": (1, 2)}),
    ("diffusion", {"network": "dit", "width": 32}),
]


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=str)
def test_a_compiled_gradient_is_the_gradient(name, options, digits):
    """In bfloat16, parameter by parameter: a part whose gradient is lost still trains the rest."""
    model = create_model(name, digits, **{"width": 16, **options})
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # away from the zeros that hide gradients
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    x = digits.train[slice(0, 64)][0]
    noise = model.noise(64, 1, generator)
    found = []
    for is_compiled in (False, True):
        step = Step(model, TrainingConfig(), "bf16", compiled=is_compiled)
        model.zero_grad()
        step(x, None, noise, 0.5)[0].mean().backward()
        assert step.compiled is is_compiled
        found.append([p.grad.norm() if p.grad is not None else None for p in model.parameters()])
    for (key, _), eager, quick in zip(model.named_parameters(), *found, strict=True):
        if eager is None or eager < 1e-6:
            continue
        assert float(quick) == pytest.approx(float(eager), rel=0.2), key
