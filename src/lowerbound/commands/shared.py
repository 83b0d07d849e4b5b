"""What the commands share: the run they use, its data, and where results go."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lowerbound.errors import InputError, printable, refuse

if TYPE_CHECKING:
    from torch import Tensor

    from lowerbound.data import Rows, Source
    from lowerbound.engine import Engine
    from lowerbound.models import Model

__all__ = [
    "OfRun",
    "OnDevices",
    "check_ending",
    "column_names_of",
    "data_of",
    "drawing",
    "engine_of",
    "first_rows",
    "model_of",
    "named",
    "output",
    "rows_for",
    "save_arrays",
    "save_png",
    "save_table",
]

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
NOT_IN_NAMES = (
    "run",
    "device",
    "devices",
    "debug",
    "json",
    "out",
)  # flags that do not change what is made


@dataclass(frozen=True)
class OfRun:
    """Flags of every command that uses a run."""

    run: Run
    """Folder of a run."""
    device: str = "auto"
    """cpu, cuda, …; auto is the first accelerator there is."""
    debug: bool = False
    """Show where an error came from."""


@dataclass(frozen=True)
class OnDevices(OfRun):
    """Flags of commands whose work several devices can share."""

    devices: int = 1
    """Devices that share the work, one process for each."""


def drawing(model: Model, flags: OfRun) -> Model:
    """The model, drawing by the steps and the sampler that are asked for.

    Args:
        model: any.
        flags: with ``steps``, ``sampler``, ``eta`` and ``guidance``, None where they are not said.

    Raises:
        InputError: one of them, for a model that draws in one pass.
    """
    from lowerbound.models import DenoisingModel

    asked = {name: getattr(flags, name) for name in ("steps", "sampler", "eta", "guidance")}
    said = {name: value for name, value in asked.items() if value is not None}
    for name, value in said.items():
        if not isinstance(model, DenoisingModel):
            raise refuse(name, f"left out for a '{model.name}', which draws in one pass", value)
    return model.with_sampler(**said) if isinstance(model, DenoisingModel) and said else model


def engine_of(flags: OnDevices) -> Engine:
    """The devices that are asked for."""
    from lowerbound.engine import make_engine

    if flags.devices < 1:
        raise refuse("devices", "at least 1", flags.devices)
    return make_engine(flags.device, flags.devices)


def model_of(flags: OfRun, engine: Engine | None = None) -> Model:
    """The model of the run, on the device that is asked for."""
    from lowerbound.build import load_model
    from lowerbound.engine import resolve_device

    device = resolve_device(flags.device) if engine is None else engine.device
    return load_model(flags.run).to(device)


def data_of(flags: OfRun, data: str | None) -> Source:
    """The data of the run, or others, prepared as for the run."""
    from lowerbound.run import run_config, source_of

    return source_of(run_config(flags.run), data)


def rows_for(flags: OfRun, data: str | None) -> tuple[Tensor, Tensor | None]:
    """Every example of the data in its order, prepared as for the run, and its context."""
    from lowerbound.run import rows_of, run_config

    config = run_config(flags.run)
    rows, model = rows_of(config, data), model_of(flags)
    model.check(rows.x, rows.name)
    return rows.x, _context_of_rows(model, rows, config.data_seed)


def _context_of_rows(model: Model, rows: Rows, seed: int) -> Tensor | None:
    """What the model is given beside rows (N, …), or None.

    Raises:
        InputError: rows without it, or with a class that the model has never seen.
    """
    from lowerbound.data import Classes, Mask, masked_rows

    if isinstance(model.context, Mask):
        return masked_rows(rows.x, model.context, seed)
    if not isinstance(model.context, Classes):
        model.check_context(None)  # other contexts come from Python
        return None
    if rows.labels is None:
        model.check_context(None)
    assert rows.labels is not None
    num_classes = len(rows.class_names) or int(rows.labels.max()) + 1
    return model.context.translated(rows.labels, Classes(num_classes, rows.class_names))


def first_rows(model: Model, source: Source, split: str, num: int) -> tuple[Tensor, Tensor | None]:
    """The first ``num`` examples of a split and what the model is given beside them, checked."""
    from lowerbound.evaluation.base import context_of

    if num < 1:
        raise refuse("num", "at least 1", num)
    model.check_context(source.context)
    rows = slice(0, num)
    x, context = source.split(split)[rows][0], context_of(model, source.split(split), rows)
    model.check(x, source.name)
    return x, None if context is None else context.cpu()


def named(flags: OfRun, stem: str, ending: str, **usual: Any) -> Path:
    """A result's place in the run folder: its plain name, or one that says what was asked.

    Each flag that differs from its default is in the name, so that only the same request
    overwrites the same file: ``samples.png``, ``samples-seed-3.png``.

    Args:
        flags: of the command.
        stem: the plain name.
        ending: ``.png`` and the like.
        **usual: values that some flags have when they are left out.
    """
    asked = [stem]
    for field in dataclasses.fields(flags):
        value = getattr(flags, field.name)
        if field.name in NOT_IN_NAMES or value in (field.default, usual.get(field.name)):
            continue
        text = "" if value is True else Path(str(value)).name
        if isinstance(value, int | float):
            text = text.removesuffix(".0").replace("-", "minus-", 1 if value < 0 else 0)
        asked += [
            field.name.replace("_", "-"),
            re.sub(r"[^A-Za-z0-9.]+", "-", text).replace(".", "-").strip("-"),
        ]
    return flags.run / ("-".join(filter(None, asked)) + ending)


def output(given: Path | None, default: Path, endings: tuple[str, ...]) -> Path:
    """Where the result goes; refused before any work where its ending says nothing."""
    out = given or default
    if out.suffix not in endings:
        said = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise refuse("out", f"a file ending in {said}", out)
    if out.is_dir():
        raise refuse("out", "a file", f"the folder {out}")
    return out


def check_ending(out: Path, model: Model) -> None:
    """Refuse a .csv file for examples that are not rows of a table."""
    if out.suffix == ".csv" and len(model.event_shape) != 1:
        shape = "×".join(str(n) for n in model.event_shape)
        raise refuse("out", f"a file ending in .npz for examples of shape {shape}", out)


def column_names_of(flags: OfRun, num: int) -> list[str]:
    """What the columns of the run's data are called; x_1 … x_D where nobody has named them."""
    try:
        names = data_of(flags, None).column_names
    except InputError as error:
        print(f"note: columns are x_1, x_2, …: {printable(error, 300)}", file=sys.stderr)
        names = ()
    return list(names) if len(names) == num else [f"x_{i}" for i in range(1, num + 1)]


def save_table(path: Path, names: Sequence[str], *columns: Tensor | Sequence[str]) -> None:
    """Write the rows of tensors (N, …), or texts, side by side under names as a .csv file."""
    from lowerbound.files import save_text

    # Cells are the shortest text that reads back as the same number in the tensor's own type.
    cells = [
        [[text] for text in part]
        if not hasattr(part, "cpu")
        else part.cpu().reshape(len(part), -1).numpy().astype(str).tolist()
        for part in columns
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([cell for part in row for cell in part] for row in zip(*cells, strict=True))
    save_text(path, text.getvalue())


def save_arrays(path: Path, **arrays: Tensor | Sequence[str]) -> None:
    """Write an .npz file of tensors and texts, whole or not at all."""
    import numpy as np

    from lowerbound.files import atomic_output

    plain: Any = {
        k: a.cpu().numpy() if hasattr(a, "cpu") else np.array(a) for k, a in arrays.items()
    }
    with atomic_output(path) as temporary:
        np.savez_compressed(temporary, **plain)


def save_png(path: Path, pixels: Any) -> None:
    """Write a picture, whole or not at all."""
    from PIL import Image

    from lowerbound.files import atomic_output

    with atomic_output(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
