"""What the commands share: the run they use, its data, and where results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from lowerbound.errors import refuse

if TYPE_CHECKING:
    from torch import Tensor

    from lowerbound.data import Source
    from lowerbound.models import Model

__all__ = [
    "OfRun",
    "data_of",
    "first_rows",
    "model_of",
    "output",
    "rows_for",
    "save_arrays",
    "save_png",
]

Run = tyro.conf.Positional[Path]


@dataclass(frozen=True)
class OfRun:
    """Flags of every command that uses a run."""

    run: Run
    """Folder of a run."""
    device: str = "auto"
    """cpu, cuda, …; auto is the first accelerator there is."""
    debug: bool = False
    """Show where an error came from."""


def model_of(flags: OfRun) -> Model:
    """The model of the run, on the device that is asked for."""
    from lowerbound.build import load_model
    from lowerbound.engine import resolve_device

    return load_model(flags.run).to(resolve_device(flags.device))


def data_of(flags: OfRun, data: str | None) -> Source:
    """The data of the run, or others, prepared as for the run."""
    from lowerbound.run import run_config, source_of

    return source_of(run_config(flags.run), data)


def rows_for(flags: OfRun, data: str | None) -> Tensor:
    """Every example of the data in its order, prepared as for the run, checked by its model."""
    from lowerbound.run import rows_of, run_config

    rows = rows_of(run_config(flags.run), data)
    model_of(flags).check(rows.x, rows.name)
    return rows.x


def first_rows(source: Source, split: str, num: int) -> Tensor:
    """The first ``num`` examples of a split."""
    if num < 1:
        raise refuse("num", "at least 1", num)
    return source.split(split)[slice(0, num)][0]


def output(given: Path | None, default: Path, endings: tuple[str, ...]) -> Path:
    """Where the result goes; refused before any work where its ending says nothing."""
    out = given or default
    if out.suffix not in endings:
        raise refuse("out", f"a file ending in {' or '.join(endings)}", out)
    if out.is_dir():
        raise refuse("out", "a file", f"the folder {out}")
    return out


def save_arrays(path: Path, **tensors: Tensor) -> None:
    """Write an .npz file, whole or not at all."""
    import numpy as np

    from lowerbound.files import atomic_output

    with atomic_output(path) as temporary:
        np.savez_compressed(temporary, **{name: t.cpu().numpy() for name, t in tensors.items()})  # type: ignore[arg-type]


def save_png(path: Path, pixels: Any) -> None:
    """Write a picture, whole or not at all."""
    from PIL import Image

    from lowerbound.files import atomic_output

    with atomic_output(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
