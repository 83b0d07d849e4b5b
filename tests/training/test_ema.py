"""The average: its recursion, its warm-up, and nothing forgotten before it is judged."""

from __future__ import annotations

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.training.ema import UPDATE_EVERY, Average


def walked(decay: float, num_steps: int, judged_at=()):
    """An average of weights that equal the step's number, and the same by the plain recursion."""
    model = create_model("vae", (3,), latent_dim=1, width=4)
    weight = model.encoder.first.bias
    with torch.no_grad():
        weight.zero_()
        average = Average(model, decay)
        for step in range(1, num_steps + 1):
            weight.fill_(float(step))
            average.update(step)
            if step in judged_at:
                average.judged(step)
    return average, float(average.judged(num_steps).encoder.first.bias[0])


@pytest.mark.parametrize("num_steps", [1, 3, 7, 8, 9, 20])
def test_no_step_is_left_out_of_what_is_judged(num_steps):
    average, value = walked(0.999, num_steps)
    assert average.step == num_steps
    assert num_steps / 2 < value <= num_steps


def test_without_a_decay_the_average_is_the_last_weights():
    assert walked(0.0, 13)[1] == 13


@pytest.mark.parametrize("num_steps", [5_000, 5_003])
def test_after_the_warm_up_it_is_the_exponential_average_of_every_eighth_step(num_steps):
    decay, plain = 0.99, 0.0
    for step in range(1, num_steps + 1):
        plain = decay * plain + (1 - decay) * step
    # An average with the weights of every eighth step alone lags by less than those eight steps.
    assert walked(decay, num_steps)[1] == pytest.approx(plain, abs=UPDATE_EVERY)


def test_judging_on_the_way_takes_in_each_step_once():
    often = walked(0.9, 400, judged_at=range(3, 400, 7))[1]
    assert often == pytest.approx(walked(0.9, 400)[1], abs=UPDATE_EVERY)
