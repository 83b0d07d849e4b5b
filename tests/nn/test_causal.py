"""The causal transformer: nothing of what comes later, and the same logits code by code."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lowerbound._random import initialised_by
from lowerbound.nn import CausalTransformer


@pytest.fixture(params=[1, 3])
def network(request):
    """Nine codes of five values, of one codebook or three, with weights that say something."""
    with initialised_by(0):
        network = CausalTransformer(5, 9, request.param, width=32, depth=2)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
    return network


def some_codes():
    return torch.randint(5, (6, 9), generator=torch.Generator().manual_seed(0))


def test_logits_depend_on_the_codes_before_and_on_all_of_those(network):
    codes = some_codes()
    logits = network(codes)
    for place in range(9):
        other = codes.clone()
        other[:, place] = (other[:, place] + 1) % 5
        changed = (network(other) != logits).flatten(2).any(2)
        assert not changed[:, : place + 1].any()
        assert changed[:, place + 1 :].all()


def test_one_code_after_another_gives_the_same_logits(network):
    codes, memory = some_codes(), network.remember()
    before = [None, *codes.unbind(1)]
    logits = [network.following(before[i], i, 6, memory) for i in range(9)]
    torch.testing.assert_close(torch.stack(logits, 1), network(codes), rtol=1e-4, atol=1e-4)


def test_a_new_one_says_that_all_codes_are_alike():
    logits = CausalTransformer(5, 4)(torch.zeros(2, 4, dtype=torch.long))
    assert torch.equal(logits, torch.zeros(2, 4, 5))
