"""Images of which a part is observed: the context that completion is learned from.

An image is cut into four quadrants, of which one, two or three are observed. With ``mask:K`` they
are always the same, those of Sohn et al. and of Pyro's example: 1 the lower left, 2 the left half,
3 all but the lower right. With ``mask`` they are drawn for each example among the fourteen choices
of one to three: anew at every step of a training, once and for all where examples are judged.

References:
    Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional Generative
    Models, 2015.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound._shapes import shown_shape
from lowerbound.data.base import InMemorySplit, Source, Split
from lowerbound.data.contexts import Mask
from lowerbound.errors import refuse

__all__ = ["MaskedSplit", "conditioned", "masked_rows"]

CONDITIONS = ("labels", "mask", "mask:1", "mask:2", "mask:3")
OBSERVED = {1: (2,), 2: (0, 2), 3: (0, 1, 2)}
"""Which quadrants ``mask:K`` observes: 0 and 1 are the upper ones, 2 and 3 the lower."""


@dataclass(frozen=True)
class MaskedSplit:
    """A split whose context is a part of each example; see `lowerbound.data.contexts.Mask`.

    Args:
        inner: where the examples come from.
        masks: the masks that there are (P, 1, H, W), uint8.
        choice: the mask of each example (N,).
        is_fresh: `draw` chooses the masks anew.
    """

    inner: Split
    masks: Tensor
    choice: Tensor
    is_fresh: bool = False

    @property
    def in_memory(self) -> bool:
        """As the examples are."""
        return self.inner.in_memory

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        return self._with_part(self.inner[indices][0], self._chosen(indices))

    @property
    def x(self) -> Tensor:
        """Every example (N, *event), where they are in memory."""
        return self.inner.x

    @property
    def labels(self) -> Tensor | None:
        """Class indices (N,), or None; they are not the context."""
        return self.inner.labels

    @property
    def is_random(self) -> bool:
        """Whether training draws examples, or masks, anew."""
        return self.is_fresh or self.inner.is_random

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch with fresh examples and masks, where they are drawn anew."""
        x = self.inner.draw(indices, generator)[0]
        if not self.is_fresh:
            return self._with_part(x, self._chosen(indices))
        where = {"generator": generator, "device": generator.device}
        return self._with_part(x, torch.randint(len(self.masks), (len(x),), **where))  # type: ignore[call-overload]

    def take(self, indices: Tensor) -> MaskedSplit:
        """The examples at ``indices`` (B,) with their masks, as a split of their own."""
        return MaskedSplit(self.inner.take(indices), self.masks, self._chosen(indices))

    def to(self, device: torch.device | str) -> MaskedSplit:
        """The same split, giving its tensors on ``device``."""
        tensors = (self.masks.to(device), self.choice.to(device))
        return MaskedSplit(self.inner.to(device), *tensors, self.is_fresh)

    def _chosen(self, indices: Tensor | slice) -> Tensor:
        """The masks' numbers of some examples; those of a disk are asked for by indices there."""
        if isinstance(indices, Tensor):
            indices = indices.to(self.choice.device)
        return self.choice[indices]

    def _with_part(self, x: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        """Examples (B, C, H, W) and what is observed of them, (B, 2, C, H, W)."""
        mask = self.masks.to(x)[choice.to(x.device)].expand_as(x)
        return x, torch.stack([x * mask, mask], 1)


def conditioned(source: Source, condition: str, seed: int = 0) -> Source:
    """A source whose context is what ``condition`` says.

    Args:
        source: the data.
        condition: labels, as they come; or mask, mask:1, mask:2, mask:3.
        seed: of the masks of examples that are judged.

    Raises:
        InputError: no such condition, or masks for data that are not images.
    """
    context = parse_condition(condition)
    if context is None:
        return source
    parts: dict[str, Any] = {
        name: masked(source.split(name), source.event_shape, context, name, seed)
        for name in ("train", "validation", "test")
    }
    parts["train"] = dataclasses.replace(parts["train"], is_fresh=context.quadrants is None)
    return dataclasses.replace(source, context=context, **parts)


def masked_rows(x: Tensor, context: Mask, seed: int = 0) -> Tensor:
    """What is observed of rows that are not split, (N, 2, C, H, W), by ``seed``."""
    return masked(InMemorySplit(x), x.shape[1:], context, "rows", seed)[slice(None)][1]


def parse_condition(condition: str) -> Mask | None:
    """The mask that a condition names; None for labels."""
    if condition not in CONDITIONS:
        raise refuse("condition", f"one of {', '.join(CONDITIONS)}", condition)
    if condition == "labels":
        return None
    _, _, number = condition.partition(":")
    return Mask(int(number) if number else None)


def masked(
    split: Split, event_shape: Sequence[int], context: Mask, name: str, seed: int
) -> MaskedSplit:
    """A split with masks that are chosen once, by (seed, name)."""
    if len(event_shape) != 3 or min(event_shape[1:]) < 2:
        remedy = "a mask has quadrants: use images, or condition on labels"
        raise refuse("condition", f"labels for {shown_shape(event_shape)} data", context, remedy)
    masks = _masks(event_shape, context.quadrants)
    generator = generator_for("masks", name, seed)
    choice = torch.randint(len(masks), (len(split),), generator=generator)
    return MaskedSplit(split, masks, choice)


def _masks(event_shape: Sequence[int], quadrants: int | None) -> Tensor:
    """The masks (P, 1, H, W) of the chosen quadrants, or of every one to three of them."""
    _, height, width = event_shape
    lower = (torch.arange(height) >= height // 2).int()[:, None]
    right = (torch.arange(width) >= width // 2).int()
    place = 2 * lower + right  # (H, W), the number of each pixel's quadrant
    chosen = [OBSERVED[quadrants]] if quadrants else _some_of_four()
    masks = [torch.isin(place, torch.tensor(seen)) for seen in chosen]
    return torch.stack(masks).to(torch.uint8).unsqueeze(1)


def _some_of_four() -> list[tuple[int, ...]]:
    """The fourteen sets of one to three quadrants."""
    sets = [tuple(i for i in range(4) if bits >> i & 1) for bits in range(16)]
    return [s for s in sets if 1 <= len(s) <= 3]
