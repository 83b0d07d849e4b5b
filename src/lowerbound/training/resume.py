"""What a checkpoint remembers of its run, and what has changed since.

A run that is continued on other data, with other options or with another schedule is another run:
its numbers would belong to neither. So every checkpoint holds the facts that decide the bits, and
a resume compares them, one by one, before anything is touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from lowerbound.config import PLACES, TrainingConfig
from lowerbound.data import Source
from lowerbound.engine import Engine
from lowerbound.errors import refuse
from lowerbound.models import Model
from lowerbound.training.checkpoint import Checkpoint
from lowerbound.training.step import Step

__all__ = ["changed_fields", "facts_of", "moved", "place_of", "refuse_changes"]


def facts_of(model: Model, source: Source, config: TrainingConfig, step: Step) -> dict[str, Any]:
    """What decides the bits of a run, by the names of its options; ``data`` is a fingerprint.

    Args:
        model: on the device of the run.
        source: its data.
        config: how it is trained.
        step: what the configuration has come to on this machine.
    """
    facts = {
        **source.preparation,
        "model": model.name,
        "event_shape": source.event_shape,
        "support": str(source.support),
        "num_classes": getattr(source.context, "num_classes", None),
        "context": None if model.context is None else str(model.context),
        **({} if model.options is None else asdict(model.options)),
        **asdict(config),
        "num_samples": config.samples,
        "precision": step.precision,
        "compile": "always" if step.compiled else "never",
        "data": source.fingerprint,  # last: whatever else has changed says more
    }
    kept = {name: value for name, value in facts.items() if name not in PLACES}
    plain: dict[str, Any] = json.loads(json.dumps(kept))  # as a checkpoint gives them back
    return plain


def changed_fields(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the facts that both know and that differ, in the order of ``now``.

    >>> changed_fields({"seed": 0, "gone": 1}, {"seed": 1, "new": 2})
    ['seed']
    """
    return [name for name in now if name in then and then[name] != now[name]]


def refuse_changes(checkpoint: Checkpoint, now: Mapping[str, Any], source: Source) -> None:
    """Refuse to continue where a fact has changed.

    Raises:
        InputError: names the first one, and how many others there are.
    """
    then = checkpoint.state["facts"]
    changed = changed_fields(then, now)
    if not changed:
        return
    name = changed[0]
    if name == "data":
        required, given = "what the run began with", f"{source.name}, whose examples differ"
    else:
        required, given = f"as the run began, {then[name]}", str(now[name])
    others = f" ({len(changed) - 1} more changed)" if len(changed) > 1 else ""
    remedy = "put it back, or say --allow-changed to continue all the same"
    raise refuse(name, required, given + others, remedy)


def place_of(engine: Engine) -> dict[str, Any]:
    """Where a run is, as far as it decides how numbers are rounded."""
    return {
        "devices": engine.world,
        "device": engine.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def moved(checkpoint: Checkpoint, place: Mapping[str, Any]) -> str:
    """What of the place is another than before, as a warning; nothing where all is the same."""
    then = checkpoint.state.get("place", {})
    changed = [f"{n} {then[n]} then, {place[n]} now" for n in changed_fields(then, place)]
    if not changed:
        return ""
    return f"not bit-identical to a run that was never stopped: {', '.join(changed)}"
