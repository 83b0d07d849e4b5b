"""What training may weigh the noise levels by, always shown beside the bound: bound × w(γ).

    −bound's diffusion term  ½ ∫ ‖ε − ε̂‖² dγ        weighted  ½ ∫ w(γ) ‖ε − ε̂‖² dγ

    bound    w = 1
    simple   w = (γ_1 − γ_0)/γ'(t): the mean squared error of ε̂ under the schedule's own times
    min-snr  simple × min(SNR, 5)/SNR
    edm      w = 4 N(γ; −2.4, 2.4²) (e^γ + ¼) (γ_1 − γ_0): times by a bell, errors of F
             for data of standard deviation ½
    flow     w = e^{γ/2}: squared errors of the velocity ε − x at uniform times of a line

Samples look better where low noise, which costs most nats, weighs less. Nothing but the loss of
training ever sees a weight.

References:
    Kingma and Gao, Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation,
    2023: each of them as a function of γ.
    Hang et al., Efficient Diffusion Training via Min-SNR Weighting Strategy, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from lowerbound.errors import refuse

__all__ = ["WEIGHTINGS", "Weighting", "weight"]

Weighting = Literal["bound", "simple", "min-snr", "edm", "flow"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)

MOST_SNR = 5.0  # of min-snr
EDM_CENTRE, EDM_WIDTH, EDM_DATA = -2.4, 2.4, 0.5  # of γ = 2 log σ, and σ of the data


def weight(kind: Weighting, gamma: Tensor, rate: Tensor, width: Tensor) -> Tensor:
    """w(γ) ≥ 0, without gradient, of the shape of ``gamma``.

    Args:
        kind: one of `WEIGHTINGS`.
        gamma: −log SNR, any shape.
        rate: γ'(t) there, the same shape.
        width: γ_1 − γ_0, ().

    Raises:
        InputError: no such weighting.
    """
    if kind not in _FORMULAS:
        raise refuse("weighting", f"one of {', '.join(WEIGHTINGS)}", kind)
    return _FORMULAS[kind](gamma.detach(), rate.detach(), width.detach())


def _edm(gamma: Tensor, rate: Tensor, width: Tensor) -> Tensor:
    bell = torch.exp(-0.5 * ((gamma - EDM_CENTRE) / EDM_WIDTH).square())
    bell = bell / (EDM_WIDTH * math.sqrt(2 * math.pi))
    return bell * (gamma.exp() + EDM_DATA**2) / EDM_DATA**2 * width


_FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "bound": lambda gamma, rate, width: torch.ones_like(gamma),
    "simple": lambda gamma, rate, width: width / rate,
    "min-snr": lambda gamma, rate, width: width / rate * (MOST_SNR * gamma.exp()).clamp_max(1.0),
    "edm": _edm,
    "flow": lambda gamma, rate, width: torch.exp(gamma / 2),
}
