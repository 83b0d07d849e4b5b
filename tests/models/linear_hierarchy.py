"""Two layers z_2 → z_1 → x, linear and Gaussian, as an hvae and as a ladder: log p(x) is known.

    z_2 ~ N(0, I),   z_1 | z_2 ~ N(A z_2 + a, S²),   x | z_1 ~ N(B z_1 + b, σ²)

A, S and BᵀB are diagonal, so that the posteriors p(z_1|x), p(z_2|z_1), p(z_2|x) and p(z_1|z_2, x)
have diagonal covariances too and both models can have them exactly.
"""

from __future__ import annotations

import torch
from torch import nn

from lowerbound.distributions import Real, make_likelihood
from lowerbound.models import HierarchicalVAE, LadderVAE
from lowerbound.nn import Ladder

A = torch.tensor([0.9, -0.5], dtype=torch.float64)
OFFSET = torch.tensor([0.3, -0.2], dtype=torch.float64)
S = torch.tensor([0.6, 0.8], dtype=torch.float64)
B = torch.tensor([[1.0, 0.5], [0.5, -1.0], [0.0, 0.0]], dtype=torch.float64)
SHIFT = torch.tensor([0.1, 0.2, -0.4], dtype=torch.float64)
SIGMA = 0.7
# Precisions: of z_1 alone, of what x says of it, of z_1 given z_2.
MARGINAL = 1 / (A**2 + S**2)
SAID = (B**2).sum(0) / SIGMA**2
GIVEN = 1 / S**2
X = torch.tensor([[0.5, -1.0, 0.2], [1.5, 0.3, -0.4]], dtype=torch.float64)


def evidence() -> torch.distributions.MultivariateNormal:
    """p(x)."""
    covariance = B @ torch.diag(1 / MARGINAL) @ B.T + SIGMA**2 * torch.eye(3)
    return torch.distributions.MultivariateNormal(B @ OFFSET + SHIFT, covariance)


class Affine(nn.Module):
    """x ↦ (W x + c, constants): what a linear Gaussian is made of."""

    def __init__(self, weight, bias, scale, wrong=0.0):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias + wrong)
        self.log_scale = nn.Parameter(scale.log() + wrong)

    def forward(self, x):
        loc = x @ self.weight.T + self.bias
        return torch.cat([loc, self.log_scale.expand_as(loc)], 1)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(B.clone()), nn.Parameter(SHIFT.clone())

    def forward(self, z):
        return z @ self.weight.T + self.bias


def _of_x(precision):
    """p(z_1|x) where z_1 has a prior of this precision and mean 0: weight and scale."""
    total = precision + SAID
    weight = torch.diag(1 / total) @ B.T / SIGMA**2
    return weight, total**-0.5


def head():
    return make_likelihood((3,), Real(), "gaussian", sigma=SIGMA)


def linear_hvae(wrong=0.0):
    """q is the posterior, or off by ``wrong`` in every mean and log-scale."""
    weight, scale = _of_x(MARGINAL)
    mean_0 = OFFSET * MARGINAL / (MARGINAL + SAID) - weight @ SHIFT
    up = Affine(weight, mean_0, scale, wrong)
    gain = A * MARGINAL  # E[z_2|z_1] = gain (z_1 − a)
    top = Affine(torch.diag(gain), -gain * OFFSET, (1 - A * gain).sqrt(), wrong)
    down = Affine(torch.diag(A), OFFSET, S)
    return HierarchicalVAE([up, top], [down], Decoder(), head(), (2, 2)).double().eval()


class LinearLadder(Ladder):
    """h_2 = 0, h_1 = z_2, h_0 = z_1."""

    def __init__(self, wrong):
        super().__init__([(2,), (2,)])
        # p(z_2|x): x tells of z_2 through z_1.
        said = 1 / (1 / SAID + S**2)
        scale_2 = (1 + A**2 * said) ** -0.5
        weight = torch.diag(scale_2**2 * A * said / SAID) @ B.T / SIGMA**2
        self.top = Affine(weight, -weight @ SHIFT - scale_2**2 * A * said * OFFSET, scale_2, wrong)
        # p(z_1|z_2, x) as an offset from p(z_1|z_2).
        weight, scale = _of_x(GIVEN)
        self.share = nn.Parameter(SAID / (GIVEN + SAID))
        self.below = Affine(weight, -weight @ SHIFT, scale / S, wrong)
        self.down, self.decoder = Affine(torch.diag(A), OFFSET, S), Decoder()

    def features(self, x):
        return [x, x]

    def start(self, num):
        return torch.zeros(num, 2, dtype=torch.float64)

    def prior(self, rung, h):
        return self.down(h) if rung == 1 else torch.zeros(len(h), 4, dtype=torch.float64)

    def offset(self, rung, h, features):
        x = features.repeat(len(h) // len(features), 1)
        if rung == 2:
            return self.top(x)
        loc, log_ratio = self.below(x).chunk(2, 1)
        prior_loc = self.down(h).chunk(2, 1)[0]
        return torch.cat([loc - self.share * prior_loc, log_ratio], 1)

    def descend(self, rung, h, z):
        return z

    def output(self, h):
        return self.decoder(h)


def linear_ladder(wrong=0.0):
    """q is the posterior, or off by ``wrong`` in every mean and log-scale."""
    return LadderVAE(LinearLadder(wrong), head()).double().eval()


LINEAR = {"hvae": linear_hvae, "ladder": linear_ladder}
ENCODERS = {"hvae": ("encoders",), "ladder": ("network.top", "network.below")}
"""Names of the parameters that belong to q alone."""
