"""What the configuration of a run comes to: data, model, and what depends on the machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lowerbound.build import create_model
from lowerbound.conditions import asked_context, data_condition
from lowerbound.config import RunConfig
from lowerbound.data import Rows, Source, load_data, load_rows
from lowerbound.data.base import binarized
from lowerbound.engine import resolve_device
from lowerbound.models import Model
from lowerbound.training.compiling import resolve_compile
from lowerbound.training.schedule import Length
from lowerbound.training.step import resolve_precision

__all__ = ["length_of", "model_of", "resolved", "rows_of", "source_of"]


def source_of(config: RunConfig, data: str | None = None) -> Source:
    """The data of a run, or other data prepared in the same way."""
    return load_data(
        data or config.data,
        binarize=config.binarize,
        image_size=config.image_size,
        labels=config.labels,
        support=config.support,
        on_bad=config.on_bad,
        layout=config.layout,
        condition=data_condition(config.condition),
        seed=config.data_seed,
    )


def rows_of(config: RunConfig, data: str | None = None) -> Rows:
    """Every example of the data, in its own order, prepared as for the run."""
    rows = load_rows(
        data or config.data,
        image_size=config.image_size,
        labels=config.labels,
        support=config.support,
        on_bad=config.on_bad,
        layout=config.layout,
    )
    return binarized(rows, config.binarize, config.data_seed)[0]


def model_of(config: RunConfig, source: Source) -> Model:
    """The model of a run, untrained, with the context that the run asks for."""
    context = asked_context(config.model, config.condition, source)
    options = dict(config.options or {})
    return create_model(config.model, source, context=context, seed=config.seed, **options)


def length_of(config: RunConfig, source: Source) -> Length:
    """How long a run of that configuration is on these data."""
    return Length.of(config, max(1, len(source.train) // config.batch_size))


def resolved(config: RunConfig, source: Source, model: Model) -> RunConfig:
    """The configuration with every default that depends on the machine written out."""
    device = resolve_device(config.device)
    length = length_of(config, source)
    compiled = resolve_compile(config, device, length, model)
    precision: Any = resolve_precision(config.precision, device)
    return replace(
        config,
        device=str(device),
        precision=precision,
        compile="always" if compiled else "never",
        steps=length.steps if config.epochs is None else None,
        num_samples=config.samples,
    )
