"""Codes as latents: the point that an example is encoded to, and what a sequence of codes costs.

Codes are integers (…, S) below n. Their priors are normalised over all n^S sequences, in nats:

    uniform            log p(c) = −S log n
    autoregressive     log p(c) = Σ_i log p(c_i | c_1 … c_{i−1}), by a causal network

A causal network can be told a context beside the codes; a uniform prior is the same for every one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import repeated_rows
from lowerbound.distributions import Distribution
from lowerbound.distributions.categorical import draw_index
from lowerbound.errors import refuse
from lowerbound.models.priors import Prior
from lowerbound.nn import CausalTransformer, Embedding

__all__ = ["AutoregressiveCodes", "CodePrior", "PointMass", "UniformCodes"]


@dataclass(frozen=True)
class PointMass(Distribution):
    """All probability at ``loc`` (…, d), one of countably many points.

    Args:
        loc: the point.
    """

    loc: Tensor
    event_ndim: int = 1

    @property
    def mean(self) -> Tensor:
        """The point, (…, d)."""
        return self.loc

    @property
    def stddev(self) -> Tensor:
        """A standard deviation of 0 everywhere, (…, d)."""
        return torch.zeros_like(self.loc)

    @property
    def log_scale(self) -> Tensor:
        """Log of a standard deviation of 0: −∞ everywhere, (…, d)."""
        return torch.full_like(self.loc, -torch.inf)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-mass (…), nats: 0 at the point, −∞ elsewhere."""
        is_there = (x == self.loc).all(-1)
        return torch.where(is_there, 0.0, -torch.inf)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The point itself, (…, d)."""
        return self.loc.detach()


class CodePrior(Prior):
    """The promise of a prior over sequences of S codes below n.

    Args:
        num_codes: n.
        length: S.
    """

    name: ClassVar[str]

    def __init__(self, num_codes: int, length: int) -> None:
        super().__init__()
        self.num_codes, self.length = num_codes, length

    def log_probs(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-mass of each code (…, B, S) given those before it and a context (B, …): nats.

        Returns:
            (…, B, S).
        """
        raise NotImplementedError

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-mass of codes (…, S): (…), nats."""
        return self.log_probs(z, context).sum(-1)

    def rates(self, q: Any, z: Tensor, context: Tensor | None = None, kl: Any = "sampled") -> Any:
        """What codes (B, S) cost, −log p(c): ``"codes"`` (B,), and its parts (B, S), nats.

        Integers carry no gradient: it goes to this prior alone, never to an encoder or a codebook.
        """
        parts = -self.log_probs(z, context)
        return {"codes": parts.sum(-1)}, {"codes": parts}


class UniformCodes(CodePrior):
    """Every sequence alike: log p(c) = −S log n."""

    name: ClassVar[str] = "uniform"
    anchor: Tensor

    def __init__(self, num_codes: int, length: int) -> None:
        super().__init__(num_codes, length)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def log_probs(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """−log n for each code (…, S)."""
        return (self.anchor - math.log(self.num_codes)).expand(codes.shape)

    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Codes (num, S)."""
        shape = (num, self.length)
        return torch.randint(self.num_codes, shape, generator=generator, device=self.anchor.device)


class AutoregressiveCodes(CodePrior):
    """Each code given those before it, by a causal network.

    Args:
        network: logits (N, S, n) of codes (N, S), those at i of the codes before i alone.
        embedding: of contexts (B, …) -> (B, E), of its own; None where it is told nothing.
    """

    name: ClassVar[str] = "autoregressive"

    def __init__(self, network: CausalTransformer, embedding: Embedding | None = None) -> None:
        super().__init__(network.num_codes, network.length)
        self.network, self.embedding = network, embedding

    def log_probs(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """See `CodePrior.log_probs`; always in full precision behind the network."""
        rows = codes.flatten(0, -2)
        beside = self._embedded(context)
        logits = self.network(rows, *(repeated_rows(e, len(rows) // len(e)) for e in beside))
        logits = logits if logits.dtype == torch.float64 else logits.float()
        flat = codes.reshape(-1, self.length, 1)
        return torch.log_softmax(logits, -1).gather(-1, flat).view(codes.shape)

    @torch.no_grad()
    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Codes (num, S), drawn one place after another."""
        memory, drawn = self.network.remember(), list[Tensor]()
        beside = self._embedded(context)
        for place in range(self.length):
            before = drawn[-1] if drawn else None
            logits = self.network.following(before, place, num, memory, *beside)
            drawn.append(draw_index(logits, generator))
        return torch.stack(drawn, 1)

    def _embedded(self, context: Tensor | None) -> tuple[Tensor, ...]:
        """What the network sees beside codes: an embedding (B, E), or nothing.

        Raises:
            InputError: no context, where it has to be told one.
        """
        if self.embedding is None:
            return ()
        if context is None:
            raise refuse("context", "given to a prior over codes that is told one", context)
        return (self.embedding(context.to(self.network.start.device)),)
