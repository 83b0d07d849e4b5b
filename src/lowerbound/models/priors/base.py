"""The promise of a prior: how much a code costs, and where new ones come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from lowerbound.distributions import Distribution

if TYPE_CHECKING:
    from lowerbound.data import Source
    from lowerbound.models.vae import VAE

__all__ = ["MAX_LOG_SCALE", "MIN_LOG_SCALE", "Prior", "Rates"]

MIN_LOG_SCALE, MAX_LOG_SCALE = -15.0, 10.0
Rates = tuple[dict[str, Tensor], dict[str, Tensor]]


class Prior(nn.Module):
    """The promise of a prior p(z): a log-density, draws, and the rate of a posterior."""

    name: ClassVar[str]
    has_unit_scale: ClassVar[bool] = False
    """Whether a latent that says nothing has variance 1, and one that hardly varies is unused."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of latents (…, d): (…), nats."""
        raise NotImplementedError

    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (num, d)."""
        raise NotImplementedError

    def units(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Latents (B, d) in which one that says nothing is the same for every context: (B, d)."""
        return z

    def rates(
        self,
        q: Distribution,
        z: Tensor,
        context: Tensor | None = None,
        kl: Literal["analytic", "sampled"] = "sampled",
    ) -> Rates:
        """KL(q ‖ p) by name (B,) and its parts by name (B, groups), nats.

        The sampled form is the mean over the draws ``z`` (M, B, d) of log q(z|x) − log p(z). It is
        all there is where the KL has no closed form.
        """
        return {"kl": (q.log_prob(z) - self.log_prob(z, context)).mean(0)}, {}

    def attach(self, model: VAE) -> None:
        """Be told the model that this is the prior of; a VampPrior looks through its encoder."""
        return

    def calibrate(self, source: Source) -> None:
        """Take from the training set what the prior begins with; called once."""
        return
