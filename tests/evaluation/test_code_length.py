"""Bits per dimension are the length of a code: of digits, beside a real code's words."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lowerbound.build import create_model
from lowerbound.data import InMemorySplit, Source
from lowerbound.distributions import Discrete
from lowerbound.evaluation import evaluate
from tests.oracles import cross_entropy, huffman_lengths


class Constant(nn.Module):
    """A network that answers the same whatever it is given."""

    def __init__(self, answer: torch.Tensor):
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, x):
        return self.answer.expand(len(x), *self.answer.shape)


@pytest.fixture(scope="module")
def pixels() -> tuple[Source, torch.Tensor]:
    """The digits, their pixels one by one, and how frequent each of the 17 levels is."""
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().data).to(torch.uint8)
    p = torch.bincount(x.flatten().long(), minlength=17).double()
    split = InMemorySplit(x)
    return Source(split, split, split, (64,), Discrete(17), name="digits"), p / p.sum()


def bits(source: Source, q: torch.Tensor) -> float:
    """What a VAE whose latents say nothing and whose pixels have the levels' shares q is told."""
    logits = q.log().repeat_interleave(64).float()  # level by level, each for all pixels
    model = create_model(
        "vae",
        source,
        likelihood="categorical",
        latent_dim=2,
        encoder=Constant(torch.zeros(4)),
        decoder=Constant(logits),
    )
    result = evaluate(model.eval(), source, num_samples=2, baselines=False)
    assert result["bound"]["terms"]["kl"] == pytest.approx(0, abs=1e-6)
    return result["bits_per_dim"]


def test_the_right_model_costs_the_entropy_and_a_real_code_less_than_a_bit_more(pixels):
    source, p = pixels
    entropy = bits(source, p)
    assert entropy == pytest.approx(cross_entropy(p, p), abs=1e-5)
    paid = float((p * huffman_lengths(p)).sum())
    assert entropy - 1e-5 <= paid < entropy + 1


def test_a_wrong_model_costs_the_divergence_on_top(pixels):
    source, p = pixels
    assert bits(source, torch.full_like(p, 1 / 17)) == pytest.approx(torch.tensor(17.0).log2())
    wrong = p.flip(0)
    assert bits(source, wrong) == pytest.approx(cross_entropy(p, wrong), abs=1e-5)
