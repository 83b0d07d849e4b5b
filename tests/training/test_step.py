"""What a step is made of: its precision and compilation by a fixed rule, and the same numbers."""

from __future__ import annotations

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.training import fit_model
from lowerbound.training.schedule import Length
from lowerbound.training.step import Step, resolve_compile


def tiny_vae(source):
    return create_model("vae", source, latent_dim=4, width=16, depth=0)


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("choice", "device", "length", "compiled"),
    [
        ("always", CPU, Length(1, None), True),
        ("never", CUDA, Length(10**9, None), False),
        ("auto", CUDA, Length(10**9, None), True),
        ("auto", CUDA, Length(10, None), False),
        ("auto", CUDA, Length(None, 10.0), False),
        ("auto", CUDA, Length(None, 3600.0), True),
    ],
)
def test_compiling_follows_a_rule_of_device_and_length(choice, device, length, compiled):
    assert resolve_compile(choice, device, length) is compiled


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
    loss, _ = whole(x, None, noise, step.weights(0.5))
    torch.testing.assert_close(loss, step(x, None, noise, 0.5)[0])
