"""The likelihood of a row of a table: a product over columns, each of its own kind.

log p(x|z) = Σ_j log p_j(x_j|z). Columns are independent given z; what they have in common, z must
carry. Nats of the columns add up whatever their kinds; bits only where every column is discrete.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from lowerbound._shapes import num_elements, shown_shape
from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.location_scale import Sigma
from lowerbound.distributions.support import Product, Support
from lowerbound.errors import refuse

__all__ = ["ProductDistribution", "ProductLikelihood"]


@dataclass(frozen=True)
class ProductDistribution(Distribution):
    """Independent groups of columns of a vector.

    Args:
        parts: a distribution over vectors per group.
        columns: the columns of each group, 1-d integer tensors that together count every column
            once.
        event_ndim: 1.
    """

    parts: tuple[Distribution, ...]
    columns: tuple[Tensor, ...]
    event_ndim: int = 1

    @property
    def support(self) -> Product:
        """The support of each column."""
        listed = [
            (j, part.support)
            for part, columns in zip(self.parts, self.columns, strict=True)
            for j in columns.tolist()
        ]
        return Product(tuple(one for _, one in sorted(listed, key=lambda pair: pair[0])))  # type: ignore[misc]

    @property
    def mean(self) -> Tensor:
        """Expectation of each column, (…, D)."""
        return _joined((part.mean for part in self.parts), self.columns)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density, or log-mass, of rows ``x`` (…, D), nats, (…)."""
        terms = [
            part.log_prob(x.index_select(-1, columns))
            for part, columns in zip(self.parts, self.columns, strict=True)
        ]
        return torch.stack(terms).sum(0)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of rows, float."""
        return _joined((part.sample(generator) for part in self.parts), self.columns)


def _joined(parts: Iterable[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """Groups (…, D_g) as rows (…, D), each column in its place."""
    order = torch.cat(list(columns)).argsort()
    given = [part if part.is_floating_point() else part.float() for part in parts]
    return torch.cat(given, -1).index_select(-1, order)


class ProductLikelihood(Likelihood):
    """p(x|z) for rows of a table, from one decoder.

    Args:
        event_shape: (D,).
        support: `Product` of D parts.
        columns: name of the likelihood of each column, ``"auto"`` or left out for the one that
            its support chooses.
        sigma: of the real columns; ``"auto"`` is one per column.
        components: of the columns with a mixture.
    """

    name: ClassVar[str] = "product"
    supports: ClassVar[tuple[type[Support], ...]] = (Product,)
    options: ClassVar[tuple[str, ...]] = ("columns", "sigma", "components")

    def __init__(
        self,
        event_shape: Sequence[int],
        support: Support,
        columns: Sequence[str] = (),
        sigma: Sigma | Literal["auto"] = "auto",
        components: int | None = None,
    ) -> None:
        super().__init__(event_shape, support)
        kinds = support.parts  # type: ignore[union-attr]
        if self.event_shape != (len(kinds),):
            given = shown_shape(self.event_shape)
            raise refuse("support", f"a product of one part per column of {given}", support)
        if columns and len(columns) != len(kinds):
            raise refuse("columns", f"one likelihood for each of {len(kinds)}", len(columns))
        if sigma == "optimal":
            raise refuse("sigma", "scalar, dimension, decoder or a number in a product", sigma)
        # Columns of one kind share a likelihood: few large operations, not one per column.
        groups: dict[tuple[Support, str], list[int]] = {}
        for j, kind in enumerate(kinds):
            name = columns[j] if columns and columns[j] != "auto" else kind.likelihood
            groups.setdefault((kind, name), []).append(j)
        self.parts = nn.ModuleList(_parts(groups, {"sigma": sigma, "components": components}))
        for i, members in enumerate(groups.values()):
            self.register_buffer(f"columns_{i}", torch.tensor(members), persistent=False)
        self.sizes = [
            part.num_outputs * num_elements(part.event_shape) for part, _ in self._groups()
        ]
        # Rounded up to whole numbers per column; a decoder has a few outputs to spare.
        self.num_outputs = math.ceil(sum(self.sizes) / len(kinds))

    def _groups(self) -> list[tuple[Likelihood, Tensor]]:
        """Each likelihood with its columns."""
        return [
            (cast(Likelihood, part), cast(Tensor, getattr(self, f"columns_{i}")))
            for i, part in enumerate(self.parts)
        ]

    def calibrate(self, x: Tensor | Iterable[Tensor]) -> None:
        """Measure the unit of each column on training examples ``x`` (N, D), or blocks of them."""
        if isinstance(x, Tensor):
            self.check(x)
        for part, columns in self._groups():
            if isinstance(x, Tensor):
                part.calibrate(x.index_select(-1, columns))
            else:  # of a table: the columns of one kind are few enough to be held
                part.calibrate([block.index_select(-1, columns) for block in x])

    def standardized(self, x: Tensor) -> Tensor:
        """Each column as its own likelihood standardises it, (…, D)."""
        groups = self._groups()
        return _joined(
            [part.standardized(x.index_select(-1, columns)) for part, columns in groups],
            [columns for _, columns in groups],
        )

    def forward(self, raw: Tensor, x: Tensor | None = None) -> ProductDistribution:
        """Product of the columns' distributions from raw outputs; see `Likelihood.forward`."""
        raws = raw.flatten(1)[:, : sum(self.sizes)].split(self.sizes, dim=1)
        groups = self._groups()
        parts = [
            part(own, None if x is None else x.index_select(-1, columns))
            for (part, columns), own in zip(groups, raws, strict=True)
        ]
        return ProductDistribution(tuple(parts), tuple(columns for _, columns in groups))

    def notes(self) -> list[str]:
        """What each column's likelihood has to say, once."""
        said = [note for part, _ in self._groups() for note in part.notes()]
        return list(dict.fromkeys(said))


def _parts(
    groups: Mapping[tuple[Support, str], Sequence[int]], options: Mapping[str, Any]
) -> list[Likelihood]:
    """A likelihood per group, with the options that it takes; one that none takes is refused."""
    from lowerbound.distributions.registry import likelihood_class, make_likelihood, was_given

    taken = {option for _, name in groups for option in likelihood_class(name).options}
    for option, value in options.items():
        if was_given(option, value) and option not in taken:
            raise refuse(option, "left out where no column's likelihood takes it", value)
    return [
        make_likelihood(
            (len(members),),
            kind,
            name,
            **{k: v for k, v in options.items() if k in likelihood_class(name).options},
        )
        for (kind, name), members in groups.items()
    ]
