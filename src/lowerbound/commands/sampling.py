"""The command that draws from p(x): sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowerbound.commands.shared import (
    OnDevices,
    check_ending,
    column_names_of,
    data_of,
    drawing,
    engine_of,
    model_of,
    named,
    output,
    save_arrays,
    save_png,
    save_table,
)
from lowerbound.errors import refuse

if TYPE_CHECKING:
    from torch import Tensor

    from lowerbound.data import Source, Split
    from lowerbound.models import Model

__all__ = ["SampleFlags", "sample"]


@dataclass(frozen=True)
class SampleFlags(OnDevices):
    """Draw from p(x)."""

    num: int | None = None
    """How many; 64 images, sequences or volumes, or 2,000 rows of a table unless said."""
    label: str | None = None
    """Class to draw by its name, or all for a row of each (of --num, 10 unless said); classes as
    often as in the training set unless said. For a model of classes."""
    steps: int | None = None
    """Of a diffusion: steps from noise to data; those of its options unless said."""
    sampler: str | None = None
    """Of a diffusion: ancestral, ddim, dpm++, heun or euler; that of its options unless said."""
    eta: float | None = None
    """Of a diffusion: share of fresh noise in each step of ddim and dpm++; 0 unless said."""
    guidance: float | None = None
    """Of a diffusion of classes trained with label dropout: how far draws are moved towards what
    the class adds; 1 unless said, which is p(x|class), and 0 is p(x)."""
    seed: int = 0
    """Same seed, same draws."""
    mean: bool = False
    """Means of p(x|z) in place of draws from it."""
    levels: bool = False
    """Of a hierarchy: one draw, with its levels drawn anew from each of them downwards; --num
    images to a row, 10 unless said."""
    out: Path | None = None
    """X.png for a picture, X.npz for an array under x, X.csv for rows of a table, classes under
    labels; unless said RUN/samples.png, or RUN/samples-seed-3.png and the like where flags ask
    for others."""


@dataclass(frozen=True)
class Asked:
    """What is to be drawn: ``num`` draws given ``context``, ``columns`` of them to a row."""

    num: int
    context: Tensor | None
    columns: int | None
    source: Source | None


def sample(flags: SampleFlags) -> None:
    """``lowerbound sample``."""
    from lowerbound.generation import class_labels, draw
    from lowerbound.pictures import NUM_DRAWS

    engine = engine_of(flags)
    model = drawing(model_of(flags, engine), flags)
    usual = NUM_DRAWS.of(model.event_shape)
    place = named(flags, "samples", ".png", num=usual)
    out = output(flags.out, place, (".png", ".npz", ".csv"))
    check_ending(out, model)
    if flags.levels:
        _levels(flags, model, out)
        return
    asked = _asked(flags, model, usual, out)
    if out.suffix == ".png":
        if flags.devices > 1:
            raise refuse("devices", "1 for a picture", flags.devices, "ask for X.npz with --out")
        _picture(flags, model, asked, out)
        print(out)
        return
    context = asked.context
    with engine.connected():
        x = draw(
            model, asked.num, seed=flags.seed, mean=flags.mean, context=context, engine=engine
        )
    if not engine.is_main:
        return
    labels = class_labels(model, context)
    if out.suffix == ".csv":
        columns = column_names_of(flags, x.shape[1])
        save_table(
            out,
            *((columns, x) if labels is None else ([*columns, _label_column(flags)], x, labels)),
        )
    else:
        save_arrays(out, x=x, **_beside(model, context, labels))
    print(out)


def _label_column(flags: SampleFlags) -> str:
    """What the classes' column of the run's data is called; label where nobody has named it."""
    from lowerbound.run_folder import run_config

    return run_config(flags.run).labels or "label"


def _levels(flags: SampleFlags, model: Model, out: Path) -> None:
    """What each level holds: a picture, or an array x (levels, num, …)."""
    from lowerbound import plots
    from lowerbound.files import load_json
    from lowerbound.generation import class_context, contexts_for, redraw_levels
    from lowerbound.pictures import NUM_REDRAWN, levels_picture
    from lowerbound.plots.images import is_image

    if flags.mean:
        raise refuse("mean", "left out with --levels, which shows means", flags.mean)
    if flags.label == "all":
        raise refuse("label", "one class with --levels", flags.label)
    context = class_context(model, flags.label, 1)
    if context is None:
        context = contexts_for(model, 1, seed=flags.seed, split=_split_for(flags, model))
    how: Any = {"seed": flags.seed, "context": context}
    if out.suffix == ".npz":
        num = NUM_REDRAWN if flags.num is None else flags.num
        save_arrays(out, x=redraw_levels(model, num, **how))
    elif out.suffix == ".csv" or not is_image(model.event_shape):
        raise refuse("out", "a file ending in .npz for the levels of a table", out)
    else:
        judged = flags.run / "evaluation.json"
        evaluation = load_json(judged) if judged.is_file() else {}
        figure = levels_picture(model, evaluation, flags.num, **how)
        plots.save_figure(figure, out)
    print(out)


def _split_for(flags: SampleFlags, model: Model) -> Split | None:
    """The test examples of the run, where contexts are taken from them; classes are drawn."""
    from lowerbound.data import Classes

    if model.context is None or isinstance(model.context, Classes):
        return None
    return data_of(flags, None).test


def _beside(
    model: Model, context: Tensor | None, labels: list[str] | None
) -> dict[str, Tensor | Sequence[str]]:
    """What stands beside draws in a file: classes, by name where they have one, or a context."""
    if context is None:
        return {}
    if labels is None:
        return {"context": context}
    return {"labels": labels if getattr(model.context, "names", ()) else context}


def _asked(flags: SampleFlags, model: Model, usual: int, out: Path) -> Asked:
    """How many draws, given what; with the data of the run where something is taken from them.

    Raises:
        InputError: a class never seen, or one for a model that is given none.
    """
    import torch

    from lowerbound.data import Classes
    from lowerbound.generation import class_context, contexts_for

    num = usual if flags.num is None else flags.num
    if num < 1:
        raise refuse("num", "at least 1", num)
    has_limits = len(model.event_shape) in (3, 4) and str(model.support) not in ("real", "counts")
    by_class = model.context is None or isinstance(model.context, Classes)
    needs_data = not by_class or (out.suffix == ".png" and not has_limits)
    source = data_of(flags, None) if needs_data else None
    if flags.label == "all" and isinstance(model.context, Classes):
        each = num if flags.num is not None else max(1, 10 * usual // 64)
        unseen = getattr(model, "unseen", [])
        classes = [i for i in range(model.context.num_classes) if i not in unseen]
        context = torch.tensor(classes).repeat_interleave(each)
        return Asked(len(context), context, each, source)
    given = class_context(model, flags.label, num)
    if given is None:
        split = None if source is None else source.test
        given = contexts_for(model, num, seed=flags.seed, split=split)
    return Asked(num, given, None, source)


def _picture(flags: SampleFlags, model: Model, asked: Asked, out: Path) -> None:
    """The picture of a run, or a bare grid of more images than that shows."""
    from lowerbound import plots
    from lowerbound.generation import draw
    from lowerbound.pictures import samples_picture

    num, source = asked.num, asked.source
    how: Any = {"seed": flags.seed, "mean": flags.mean, "context": asked.context}
    if not plots.is_image(model.event_shape) or num <= plots.MAX_IMAGES:
        solved = _solved(flags)
        figure = samples_picture(model, source, num, columns=asked.columns, how=solved, **how)
        plots.save_figure(figure, out)
        return
    x = draw(model, num, **how)
    some = x if source is None else source.train[slice(0, 5000)][0]
    pixels = plots.displayable(x, model.support, float(some.min()), float(some.max()))
    save_png(out, plots.image_grid(pixels, asked.columns or round(num**0.5)))


def _solved(flags: SampleFlags) -> str:
    """What was asked of a diffusion's sampler, as a title says it: ddim, 20 steps, guidance 2."""
    steps = None if flags.steps is None else f"{flags.steps} step{'s' if flags.steps > 1 else ''}"
    dials = {"eta": flags.eta, "guidance": flags.guidance}
    said = [f"{name} {value:g}" for name, value in dials.items() if value is not None]
    return ", ".join(filter(None, (flags.sampler, steps, *said)))
