"""Linear-Gaussian models with an encoder of one's choice: log p(x) is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from lowerbound.distributions import Real
from lowerbound.models import VAE
from lowerbound.models.vae import VAEOptions


class Chosen(nn.Module):
    """An encoder N(Ax + b, exp(2 log_scale)), whatever the posterior is."""

    def __init__(self, matrix: Tensor, shift: Tensor, log_scale: Tensor):
        super().__init__()
        self.matrix, self.shift = nn.Parameter(matrix), nn.Parameter(shift)
        self.log_scale = nn.Parameter(log_scale)

    def forward(self, x):
        loc = x @ self.matrix.mT + self.shift
        return torch.cat([loc, self.log_scale.expand_as(loc)], dim=-1)


@dataclass
class Linear:
    """z ~ N(0, I), x|z ~ N(Wz, s²): its VAE, examples of it, and their exact log p(x)."""

    model: VAE
    x: Tensor
    log_evidence: Tensor


def linear(encoder: str = "exact", d: int = 2, size: int = 4, sigma: float = 0.3) -> Linear:
    """``encoder``: the ``exact`` posterior, far ``off``, ``wide``, or blind to x (``nothing``)."""
    generator = torch.Generator().manual_seed(d)
    # Orthogonal columns, so that the posterior is diagonal.
    columns = torch.linalg.qr(torch.randn(size, d, generator=generator, dtype=torch.float64)).Q
    weight = columns * torch.linspace(1.5, 0.8, d, dtype=torch.float64)
    precision = weight.square().sum(0) + sigma**2  # times 1/s²
    matrix, log_scale = weight.mT / precision[:, None], 0.5 * torch.log(sigma**2 / precision)
    shift = torch.zeros(d, dtype=torch.float64)
    if encoder == "off":
        shift, log_scale = shift + 1, log_scale - 0.5
    elif encoder == "wide":
        shift, log_scale = shift + 0.5, log_scale + 1
    elif encoder == "nothing":
        matrix, log_scale = torch.zeros_like(matrix), torch.zeros_like(log_scale)
    decoder = nn.Linear(d, size, bias=False)
    options = VAEOptions(latent_dim=d, likelihood="gaussian", sigma=sigma)
    network = Chosen(matrix.float(), shift.float(), log_scale.float())
    model = VAE.build((size,), Real(), options, encoder=network, decoder=decoder).double().eval()
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), (matrix, shift, log_scale), strict=True):
            parameter.copy_(value)
        decoder.weight.copy_(weight)
    covariance = weight @ weight.mT + sigma**2 * torch.eye(size, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(size).double(), covariance)
    noise = torch.randn(12, size, generator=generator, dtype=torch.float64)
    x = noise @ torch.linalg.cholesky(covariance).mT
    return Linear(model, x, normal.log_prob(x))


@pytest.fixture(scope="session")
def make_linear():
    return linear
