"""What a run asks to be given beside x, and what that means for its model.

A configuration has one word for it, ``condition``: auto, none, labels, mask or mask:1 … mask:3. A
model of p(x) has no context, some models always have one, and the others have one when it is asked
for; see `lowerbound.build.Entry`.
"""

from __future__ import annotations

from lowerbound.build import has_no_context, model_entry
from lowerbound.data import Classes, Context, Mask, Source
from lowerbound.errors import refuse
from lowerbound.models import Model

__all__ = ["asked_context", "check_condition", "condition_of", "data_condition"]

UNASKED = ("auto", "none")


def data_condition(condition: str) -> str:
    """What `load_data` is told: labels stay beside x also where no model is given them."""
    return "labels" if condition in UNASKED else condition


def check_condition(name: str, condition: str) -> None:
    """Refuse a condition that a model cannot be given.

    Raises:
        InputError: one for a model of p(x), or none for a model that always has one.
    """
    kind = model_entry(name).context
    if kind == "never" and condition not in UNASKED:
        raise has_no_context("condition", name, condition)
    if kind == "always" and condition == "none":
        required = f"labels or mask for a '{name}', which always has a context"
        raise refuse("condition", required, condition)


def asked_context(name: str, condition: str, source: Source) -> Context | None:
    """What `create_model` is told of the context that a configuration asks for.

    Args:
        name: of the model.
        condition: the word of the configuration.
        source: its data, loaded with `data_condition`.

    Returns:
        The source's context where it is asked for; None where the model follows its own kind.

    Raises:
        InputError: a condition that the model cannot be given, or labels of data that have none.
    """
    check_condition(name, condition)
    if condition in UNASKED:
        return None
    if source.context is None:
        remedy = "name the labels with --labels, or give a part of images with --condition mask"
        raise refuse("context", f"in the data of a '{name}'", "none", remedy)
    return source.context


def condition_of(model: Model) -> str:
    """The condition under which a command makes the model again; auto for one of p(x)."""
    if isinstance(model.context, Mask):
        return str(model.context)
    return "labels" if isinstance(model.context, Classes) else "auto"
