"""The promise of a model that can be given a context c: all its nats are then of log p(x|c).

c is a class, a vector, or a part of x; networks and priors see e(c), a learned embedding. Where c
is a part of x, that part is certain given c: the bound is on the log-probability of the rest of x
given that part.

A share of the contexts can be withheld while a model is trained (label dropout), so that the same
model also learns p(x). What is judged sees every context.

References:
    Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional Generative
    Models, 2015.
    Ho and Salimans, Classifier-Free Diffusion Guidance, 2022 (label dropout).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from lowerbound.data import Classes, Context, Mask, Source, Vector
from lowerbound.data.stored import sampled_rows
from lowerbound.distributions import Distribution, Product, Support
from lowerbound.errors import refuse
from lowerbound.models.base import Model
from lowerbound.models.completed import Completed
from lowerbound.models.networks import Network, make_encoder
from lowerbound.nn import ClassEmbedding, Embedding, MaskEmbedding, VectorEmbedding

__all__ = ["ContextModel", "ContextOptions", "make_embedding"]

CONTEXT_DIM, CONTEXT_DIM_OF_MASKS = 32, 128
MEASURED_ROWS = 10_000


@dataclass(frozen=True)
class ContextOptions:
    """How a model is told its context; of no use to a model of p(x)."""

    label_dropout: float = 0.0
    """Share of the contexts that training withholds, so that one model also learns p(x)."""
    context_dim: int | None = None
    """Numbers of the context's embedding (32 unless said, 128 for a part of x)."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_dropout <= 1:
            raise refuse("label_dropout", "from 0 to 1", self.label_dropout)
        if self.context_dim is not None and self.context_dim < 1:
            raise refuse("context_dim", "at least 1", self.context_dim)


class ContextModel(Model):
    """Base of the models that can be given a context; without one they are models of p(x).

    A model says where its networks see the embedding. It asks here for the context of a batch
    (`_given_context`), what the networks see of it (`_embedded`), and p(x|z) where a part of x is
    known (`_completed`); its `noise` ends in `_with_drop`, its `_calibrate` begins with ours.

    Args:
        event_shape: shape of one example.
        support: what values an element can take.
        context: what every example is given; None for a model of p(x).
        embedding: of that context, (B, …) -> (B, E).
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        support: Support,
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        super().__init__(event_shape, support)
        self.context, self.embedding = context, embedding

    @property
    def label_dropout(self) -> float:
        """Share of the contexts that training withholds; 0 for a model from parts alone."""
        return float(getattr(self.options, "label_dropout", 0.0))

    # --- what the parts of a model see ------------------------------------------------------

    def _given_context(self, context: Tensor | None, num: int) -> Tensor | None:
        """The context of ``num`` examples; None, whatever is given, for a model of p(x).

        Raises:
            InputError: one that does not fit, or none for a model that was never trained without.
        """
        if self.context is None:
            return None
        if context is None:
            if not self.label_dropout:
                required = f"given to a '{self.name}' without label dropout: {self.context}"
                raise refuse("context", required, context)
            context = self.context.unknown(num, self.event_shape)
        elif not self.training:  # which would wait for the device at every step
            is_dropped = bool(self.label_dropout)
            self.context.check(context, self.event_shape, may_be_unknown=is_dropped)
            if len(context) != num:
                raise refuse("context", f"one for each of {num} examples", f"{len(context)}")
        return context.to(self.calibrated.device)

    def _embedded(self, context: Tensor | None) -> tuple[Tensor, ...]:
        """What the networks see beside their input: an embedding (B, E), or nothing."""
        return () if self.embedding is None else (self.embedding(context),)

    def _completed(self, p: Distribution, context: Tensor | None) -> Distribution:
        """``p`` where what was observed of x is certain, and costs nothing."""
        if context is None or not isinstance(self.context, Mask):
            return p
        return Completed.of(p, context)

    # --- training ---------------------------------------------------------------------------

    def _with_drop(
        self,
        noise: dict[str, Tensor],
        batch_size: int,
        num_samples: int,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """``noise``, and while training with label dropout uniform ``drop`` beside it, (M, B)."""
        if self.training and self.context is not None and self.label_dropout:
            drop = torch.empty(num_samples, batch_size, device=self.calibrated.device)
            noise["drop"] = drop.uniform_(generator=generator)
        return noise

    def dropped(self, context: Tensor | None, noise: Any) -> Tensor | None:
        """``context`` (B, …) of which the share ``label_dropout`` says nothing.

        Only a training step asks for it: what is judged sees every context.
        """
        if context is None or self.context is None or "drop" not in noise:
            return context
        return self.context.dropped(context, noise["drop"][0] < self.label_dropout)

    def _calibrate(self, source: Source) -> None:
        """Refuse contexts that are none, and measure all embeddings on the training set's."""
        if self.context is None:
            return
        if isinstance(self.context, Classes):
            known = source.train.labels  # every one, also of data on a disk
        else:
            known = source.train[sampled_rows(len(source.train), MEASURED_ROWS)][1]
        assert known is not None
        is_dropped = bool(self.label_dropout)
        self.context.check(known, self.event_shape, may_be_unknown=is_dropped)
        for part in self.modules():
            if isinstance(part, Embedding):
                part.measure(known)

    # --- generation -------------------------------------------------------------------------

    def draw_context(self, num: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Classes (num,) as often as in the training set; None for a model of p(x).

        Raises:
            InputError: the context is none of classes: the data must give it.
        """
        if self.context is None:
            return None
        if not isinstance(self.embedding, ClassEmbedding):
            remedy = "take it from a split: split[:10][1]"
            raise refuse("context", f"given to a '{self.name}' of {self.context}", None, remedy)
        frequencies = self.embedding.frequencies
        return torch.multinomial(frequencies, num, replacement=True, generator=generator)

    @property
    def unseen(self) -> list[int]:
        """Classes that the training set does not hold; nothing has been learned of them."""
        if not isinstance(self.embedding, ClassEmbedding):
            return []
        found: list[int] = (self.embedding.frequencies == 0).nonzero().flatten().tolist()
        return found

    def check_seen(self, context: Tensor) -> None:
        """Refuse to make anything of classes that the training set does not hold.

        They can be judged: the bound holds, however low it is.
        """
        for index in self.unseen:
            if (context == index).any():
                assert isinstance(self.context, Classes)
                seen = [n for i, n in enumerate(self.context.labels) if i not in self.unseen]
                required = f"one of the classes in the training set: {', '.join(seen[:20])}"
                raise refuse("label", required, self.context.labels[index])

    def _context_to_draw(
        self, num: int, context: Tensor | None, generator: torch.Generator | None
    ) -> Tensor | None:
        """What ``num`` draws are given: ``context``, checked, or one that is drawn as well."""
        if self.context is None:
            return None
        if context is None:
            return self.draw_context(num, generator)
        self.check_seen(context)
        return self._given_context(context, num)

    def notes(self) -> list[str]:
        """Classes that were never seen; which part of x the nats are of, given the other."""
        if self.unseen:
            assert isinstance(self.context, Classes)
            names = ", ".join(self.context.labels[i] for i in self.unseen)
            said = f"No example of the training set is of these classes: {names}."
            return [*super().notes(), said]
        if not isinstance(self.context, Mask):
            return super().notes()
        note = (
            "The nats are of the part of x that is not observed, given the part that is; bits/dim "
            "divide them by the number of dimensions that are not observed."
        )
        return [*super().notes(), note]


def make_embedding(
    context: Context | None,
    event_shape: Sequence[int],
    support: Support,
    options: ContextOptions,
    *,
    network: Network = "auto",
    width: int | None = None,
    depth: int = 1,
) -> Embedding | None:
    """The embedding that fits a context; None without one.

    Args:
        context: what every example is given.
        event_shape: shape of one example.
        support: what values an element can take.
        options: those of the model, its likelihood's among them where it has one.
        network: of a part of x, as for `make_encoder`.
        width: of that network.
        depth: of that network.

    Raises:
        InputError: options of a context without one, or a likelihood that a part of x cannot be
            left out of.
    """
    if context is None:
        for name in ("label_dropout", "context_dim"):
            if given := getattr(options, name):
                remedy = "say --condition labels, or context=…"
                raise refuse(name, "left out for a model of p(x)", given, remedy)
        return None
    usual = CONTEXT_DIM_OF_MASKS if isinstance(context, Mask) else CONTEXT_DIM
    size = options.context_dim or usual
    if isinstance(context, Classes):
        return ClassEmbedding(context.num_classes, size)
    if isinstance(context, Vector):
        return VectorEmbedding(context.size, size)
    _refuse_dependent(options, support)
    shape = (2 * event_shape[0], *event_shape[1:])
    own = make_encoder(shape, size, network, like=event_shape, width=width, depth=depth)
    return MaskEmbedding(own, cast(tuple[int, ...], tuple(event_shape)), size)


def _refuse_dependent(options: Any, support: Support) -> None:
    """A part of x can be left out of a sum over elements, and of nothing else."""
    remedy = "the observed part of x would be counted in it"
    if isinstance(support, Product) or getattr(options, "likelihood", None) == "product":
        raise refuse("likelihood", "one of single elements for a masked x", "product", remedy)
    if getattr(options, "sigma", None) == "optimal":
        raise refuse("sigma", "learned or fixed for a masked x", "optimal", remedy)
