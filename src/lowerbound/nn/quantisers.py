"""Quantisers: from vectors to codes of a finite set, and back.

    vq    c = argmin_j ‖z − e_j‖², one learned codebook {e_j} of n vectors
    rvq   M codebooks in turn, each for what the ones before it have left over
    fsq   no codebook: each number is squashed into [−1, 1] and rounded to one of L levels

Rounding has no gradient: behind it the decoder's gradient goes on to the encoder as if nothing had
been rounded (straight through). A codebook follows the vectors that are assigned to it, by moving
averages or by its own gradient. A code that nothing has chosen for a while is set anew, at a
random vector of the batch, by the number of the step.

References:
    van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning, 2017 (moving
    averages: appendix A.1).
    Zeghidour et al., SoundStream, 2021 (residual quantisation, codes set anew).
    Mentzer et al., Finite Scalar Quantization: VQ-VAE Made Simple, 2024.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from lowerbound._parallel import global_mean, global_rows, like, whole, world_size
from lowerbound._random import generator_for
from lowerbound.errors import refuse

__all__ = ["Codebook", "Quantised", "Quantiser", "ScalarQuantiser", "VectorQuantiser"]

DECAY = 0.99  # of the moving averages, per step
PATIENCE = 100  # steps without being chosen, after which a code is set anew
NEVER_SET = -1
STEEP = 1.5  # tanh is 0.905 there
TINY = 1e-20  # share of the vectors below which a mean is not formed


@dataclass(frozen=True)
class Quantised:
    """What quantising (B, P, d) vectors gives.

    Args:
        vectors: those that the codes stand for, (B, P, d); their gradient goes to the input.
        codes: indices (B, P, M), int64: M to a place.
        losses: mean squares by name, (B,): over places, numbers and codebooks. ``"commitment"``
            draws the input to its code (to where it can be moved, without a codebook),
            ``"codebook"`` a codebook with a gradient to its input.
    """

    vectors: Tensor
    codes: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


class Quantiser(nn.Module, ABC):
    """The promise of a quantiser.

    Attributes:
        num_codes: n, how many values a code can take.
        codes_per_place: M.
        size: d, numbers of a vector.
    """

    name: ClassVar[str]
    num_codes: int
    codes_per_place: int
    size: int
    usage: Tensor

    @abstractmethod
    def forward(self, z: Tensor) -> Quantised:
        """Quantise (B, P, d)."""

    @abstractmethod
    def vectors_of(self, codes: Tensor) -> Tensor:
        """What codes (…, M) stand for, (…, d)."""

    @abstractmethod
    def take_in(self, z: Tensor, usable: Tensor, step: int) -> None:
        """Follow the vectors (B, P, d) of a training step; where not ``usable``, do nothing.

        Every process calls it with its own rows of the batch, and ends with the same state.
        """

    def facts(self) -> dict[str, float]:
        """How the codes are used, by moving averages over the steps; means over the codebooks.

        ``codes_used`` counts those with at least a hundredth of an even share; the perplexity is
        the number of equally frequent codes that would carry as much.
        """
        share = self.usage / self.usage.sum(-1, keepdim=True).clamp_min(TINY)
        used = (share * self.num_codes >= 0.01).sum(-1).float().mean()
        perplexity = torch.special.entr(share).sum(-1).exp().mean()
        return {"codes_used": float(used), "code_perplexity": float(perplexity)}


def nearest(z: Tensor, vectors: Tensor) -> Tensor:
    """Codes (…,) of those of ``vectors`` (n, d) that are nearest to z (…, d)."""
    lengths, rows = 0.5 * vectors.square().sum(1), z.detach().flatten(0, -2)
    return torch.addmm(lengths, rows, vectors.mT, alpha=-1).argmin(1).view(z.shape[:-1])


class Codebook(nn.Module):
    """n vectors of d numbers that follow what is assigned to them.

    With moving averages N_j (``mass``) of the share of the vectors that chose code j, and S_j
    (``sums``) of that share times their mean, e_j = S_j / N_j: the mean of what chose it lately,
    whatever the batch size. ``usage`` is N_j as it would be if nothing were ever set anew.

    Args:
        num_codes: n.
        size: d.
        learned: ``"ema"`` by moving averages, or ``"gradient"``.
        decay: of the averages, per step.
        patience: steps without being chosen, after which a code is set anew.
    """

    vectors: Tensor
    usage: Tensor
    mass: Tensor
    sums: Tensor
    idle: Tensor

    def __init__(
        self,
        num_codes: int,
        size: int,
        *,
        learned: Literal["ema", "gradient"] = "ema",
        decay: float = DECAY,
        patience: int = PATIENCE,
    ) -> None:
        super().__init__()
        self.learned, self.decay, self.patience = learned, decay, patience
        initial = torch.randn(num_codes, size) / math.sqrt(size)
        if learned == "gradient":
            self.vectors = nn.Parameter(initial)
        else:
            self.register_buffer("vectors", initial)
        self.register_buffer("usage", torch.zeros(num_codes))
        self.register_buffer("mass", torch.full((num_codes,), 1 / num_codes))
        self.register_buffer("sums", initial / num_codes)
        self.register_buffer("idle", torch.full((num_codes,), NEVER_SET))

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors (…, d) of codes (…,)."""
        return nn.functional.embedding(codes, self.vectors)

    @torch.no_grad()
    def take_in(self, z: Tensor, usable: Tensor, step: int, number: int = 0) -> None:
        """Follow vectors (N, d) of this process, and set anew what was idle for long.

        Args:
            z: the vectors.
            usable: a boolean; where it is false, nothing changes.
            step: which seeds the choice of new vectors,
            number: with that of this codebook among several.
        """
        num_codes = len(self.usage)
        before = whole(self.vectors.detach())
        codes = nearest(z, before)
        # What chose each code: its share of the batch, and the sum of its vectors by that share.
        chosen = (codes.unsqueeze(1) == torch.arange(num_codes, device=z.device)).to(z.dtype)
        share = global_mean(chosen)
        total = global_mean((chosen.mT @ z / len(z)).unsqueeze(0))
        usage, mass = (torch.lerp(t, share, 1 - self.decay) for t in (self.usage, self.mass))
        sums = torch.lerp(self.sums, total, 1 - self.decay)
        vectors = before
        if self.learned == "ema":
            vectors = torch.where(mass.unsqueeze(1) > TINY, sums / mass.unsqueeze(1), before)
        # Codes that nothing chose for long, or that were never set: a vector of the batch each.
        idle = torch.where(share > 0, 0, self.idle + 1)
        dead = (idle >= self.patience) | (self.idle == NEVER_SET)
        vectors = torch.where(dead.unsqueeze(1), _chosen_rows(z, num_codes, step, number), vectors)
        mass = torch.where(dead, 1 / num_codes, mass)
        sums = torch.where(dead.unsqueeze(1), vectors / num_codes, sums)
        idle = torch.where(dead, 0, idle)
        # A step that is not used leaves no trace.
        self.vectors.copy_(like(torch.where(usable, vectors, before), self.vectors))
        for name, value in {"usage": usage, "mass": mass, "sums": sums, "idle": idle}.items():
            old = getattr(self, name)
            old.copy_(torch.where(usable, value, old))


def _chosen_rows(z: Tensor, num: int, step: int, number: int) -> Tensor:
    """``num`` random rows of the global batch of vectors, all different where there are enough."""
    total = world_size() * len(z)
    order = torch.randperm(total, generator=generator_for("codes", number, step))
    return global_rows(z)[order.repeat(-(-num // total))[:num].to(z.device)]


class VectorQuantiser(Quantiser):
    """Codebooks in turn, each for the remainder of the ones before; one of them is plain vq.

    Args:
        num_codes: n, of each codebook.
        size: d.
        num_codebooks: M.
        learned: ``"ema"`` by moving averages, or ``"gradient"``.
        decay: of the averages, per step.
        patience: steps without being chosen, after which a code is set anew.
    """

    name: ClassVar[str] = "rvq"

    def __init__(
        self,
        num_codes: int,
        size: int,
        num_codebooks: int = 1,
        *,
        learned: Literal["ema", "gradient"] = "ema",
        decay: float = DECAY,
        patience: int = PATIENCE,
    ) -> None:
        super().__init__()
        self.num_codes, self.size, self.codes_per_place = num_codes, size, num_codebooks
        self.learned = learned
        self.codebooks = nn.ModuleList(
            Codebook(num_codes, size, learned=learned, decay=decay, patience=patience)
            for _ in range(num_codebooks)
        )

    @property
    def books(self) -> list[Codebook]:
        """The codebooks, in turn."""
        return cast(list[Codebook], list(self.codebooks))

    @property
    def usage(self) -> Tensor:  # type: ignore[override]
        """Moving average of each code's share of the vectors, (M, n)."""
        return torch.stack([book.usage for book in self.books])

    def forward(self, z: Tensor) -> Quantised:
        """See `Quantiser.forward`; always in full precision."""
        with torch.autocast(z.device.type, enabled=False):
            residual = z if z.dtype == torch.float64 else z.float()
            z, codes, total = residual, [], torch.zeros_like(residual)
            commitment = codebook = torch.zeros(len(z), device=z.device, dtype=z.dtype)
            for book in self.books:
                chosen = nearest(residual, book.vectors.detach())
                vectors = book(chosen)
                commitment = commitment + _mean_square(residual - vectors.detach())
                if self.learned == "gradient":
                    codebook = codebook + _mean_square(residual.detach() - vectors)
                residual, total = residual - vectors.detach(), total + vectors.detach()
                codes.append(chosen)
        num = len(self.codebooks)
        losses = {"commitment": commitment / num}
        if self.learned == "gradient":
            losses["codebook"] = codebook / num
        return Quantised(_straight_through(z, total), torch.stack(codes, -1), losses)

    def vectors_of(self, codes: Tensor) -> Tensor:
        """See `Quantiser.vectors_of`: the sum over the codebooks."""
        books = zip(self.books, codes.unbind(-1), strict=True)
        return torch.stack([book(chosen) for book, chosen in books]).sum(0)

    @torch.no_grad()
    def take_in(self, z: Tensor, usable: Tensor, step: int) -> None:
        """See `Quantiser.take_in`; each codebook follows what the new ones before it leave."""
        residual = z.flatten(0, -2)
        for number, book in enumerate(self.books):
            book.take_in(residual, usable, step, number)
            if number < self.codes_per_place - 1:
                vectors = whole(book.vectors.detach())
                residual = residual - vectors[nearest(residual, vectors)]


class ScalarQuantiser(Quantiser):
    """Each of d numbers rounded to one of L_i levels: n = Π L_i codes, and no codebook to learn.

        u = (L − 1) (tanh z + 1) / 2 ∈ [0, L − 1],   level = round(u),   code = 2 level/(L − 1) − 1

    Levels lie evenly in [−1, 1], both ends included, for odd and for even L alike. (The paper
    shifts even L by half a level; this form needs no case.) The code is Σ level_i Π_{j<i} L_j.

    Where the tanh is flat nothing is learned, and encoders drift there until all codes are the
    same: ``"commitment"`` is the mean square of what lies beyond ±`STEEP`.

    Args:
        levels: L_i, each at least 2.
        decay: of the average of their use, per step.

    Raises:
        InputError: no level, or one below 2.
    """

    name: ClassVar[str] = "fsq"
    levels: Tensor
    strides: Tensor

    def __init__(self, levels: Sequence[int], *, decay: float = DECAY) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise refuse("levels", "one or more numbers of at least 2", tuple(levels))
        self.num_codes, self.size, self.codes_per_place = math.prod(levels), len(levels), 1
        self.decay = decay
        steps = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("strides", torch.tensor(steps), persistent=False)
        self.register_buffer("usage", torch.zeros(1, self.num_codes))

    def forward(self, z: Tensor) -> Quantised:
        """See `Quantiser.forward`; the gradient passes the tanh."""
        with torch.autocast(z.device.type, enabled=False):
            inside = torch.tanh(z if z.dtype == torch.float64 else z.float())
            codes = self._codes(inside)
            vectors = _straight_through(inside, self.vectors_of(codes).to(inside.dtype))
            beyond = _mean_square(z.to(inside.dtype) - z.to(inside.dtype).clamp(-STEEP, STEEP))
        return Quantised(vectors, codes, {"commitment": beyond})

    def _codes(self, inside: Tensor) -> Tensor:
        """Codes (…, 1) of numbers in [−1, 1], (…, d); what is not finite has one too."""
        top = self.levels - 1
        level = ((inside.detach().nan_to_num() + 1) / 2 * top).round().long()
        return (level * self.strides).sum(-1, keepdim=True)

    def vectors_of(self, codes: Tensor) -> Tensor:
        """See `Quantiser.vectors_of`."""
        level = codes // self.strides % self.levels
        return 2 * level / (self.levels - 1) - 1

    @torch.no_grad()
    def take_in(self, z: Tensor, usable: Tensor, step: int) -> None:
        """See `Quantiser.take_in`: counts how often each code is used."""
        codes = self._codes(torch.tanh(z)).flatten()
        ones = torch.ones(len(codes), device=z.device)
        counts = torch.zeros(self.num_codes, device=z.device).scatter_add_(0, codes, ones)
        share = global_mean((counts / len(codes)).unsqueeze(0))
        self.usage.copy_(
            torch.where(usable, torch.lerp(self.usage[0], share, 1 - self.decay), self.usage[0])
        )


def _mean_square(x: Tensor) -> Tensor:
    """Over places and numbers, (B, P, d) -> (B,)."""
    return x.square().flatten(1).mean(1)


def _straight_through(z: Tensor, rounded: Tensor) -> Tensor:
    """The value of ``rounded`` with the gradient of ``z``."""
    return z + (rounded - z).detach()
