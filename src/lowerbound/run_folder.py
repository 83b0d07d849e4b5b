"""The folder of a run: found, made empty, and the configuration that it holds.

A run that is to be replaced is put aside, into ``.replaced`` in its folder, until the new one is
trained: where that one ends before anything was saved, the old one comes back.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lowerbound.build import options_class
from lowerbound.config import RunConfig, load_config, validated
from lowerbound.errors import InputError, refuse
from lowerbound.files import save_text
from lowerbound.training.checkpoint import RunLock, checkpoints_of, is_locked
from lowerbound.training.tracking import MADE_BY_TRACKERS

__all__ = [
    "MADE_BY_US",
    "check_folder",
    "config_from",
    "forget_replaced",
    "new_folder",
    "newest_unfinished",
    "next_folder",
    "nothing_left",
    "rewritten",
    "run_config",
]

MADE_BY_US = (
    "config.yaml config.json model.safetensors evaluation.json metrics.jsonl report.html "
    "samples.png reconstructions.png latents.png interpolations.png plane.png training.png "
    "comparison.png decomposition.png codes.png levels.png noise-levels.png denoising.png "
    "scores.safetensors scores.csv latents.npz decoded.npz"
).split()
REPLACED = ".replaced"


def run_config(folder: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        InputError: no run there, or a configuration that is not valid.
    """
    if not (folder / "config.yaml").is_file():
        raise InputError(
            f"'{folder}' has no config.yaml; give the folder of a run that `lowerbound train` made"
        )
    return config_from(load_config(folder / "config.yaml"), str(folder / "config.yaml"))


def config_from(values: Mapping[str, Any], where: str) -> RunConfig:
    """A `RunConfig` from plain values; unknown keys are named with the nearest right one."""
    plain = {k: v for k, v in values.items() if k != "options"}
    config = validated(RunConfig, plain, where)
    options = values.get("options")
    if options is None:
        return config
    if not isinstance(options, Mapping):
        raise refuse("options", "a mapping", options)
    chosen = validated(options_class(config.model), options, f"options of {where}")
    return replace(config, options=asdict(chosen))


def next_folder(config: RunConfig) -> Path:
    """runs/DATA-MODEL-N with the first N that is free."""
    kind, _, rest = config.data.partition(":")
    stem = kind if rest and kind != "folder" else Path(rest or kind).stem
    number = 1
    while (
        folder := Path("runs") / f"{stem or 'data'}-{config.preset or config.model}-{number}"
    ).exists():
        number += 1
    return folder


def check_folder(folder: Path, overwrite: bool) -> bool:
    """Refuse a folder that a new run cannot have; whether there is something in it to replace."""
    if folder.exists() and not folder.is_dir():
        raise refuse("out", "a folder", folder)
    is_inhabited = folder.exists() and any(p.name != "run.lock" for p in folder.iterdir())
    if is_inhabited and not overwrite:
        raise refuse(
            "out",
            "an empty or new folder",
            folder,
            "choose another, continue it with --resume, or replace it with --overwrite",
        )
    return is_inhabited


def new_folder(folder: Path, overwrite: bool) -> Path:
    """A run folder that is empty, emptied of an earlier run, or refused.

    Only files that a run makes are put aside: a folder with anything else in it keeps the rest.
    """
    if check_folder(folder, overwrite):
        with RunLock(folder):
            if (folder / REPLACED).exists() and not checkpoints_of(folder):
                _clear(folder)  # killed before it saved anything: what it was to replace is kept
            else:
                forget_replaced(folder)
                _move(folder, folder / REPLACED)
    return folder


@contextlib.contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Where a new run ends before anything was saved, have the folder as it was before.

    What a refused run leaves would be in the way of the next try, and the first that
    ``--resume auto`` finds; what it was to replace is worth more than a run with nothing saved.
    """
    try:
        yield
    except BaseException as error:
        if checkpoints_of(folder):
            forget_replaced(folder)
        elif (folder / REPLACED).exists():
            _clear(folder)
            _move(folder / REPLACED, folder)
            forget_replaced(folder)
        elif isinstance(error, InputError):
            _clear(folder)
            with contextlib.suppress(OSError):  # something else is in it
                (folder / "run.lock").unlink(missing_ok=True)
                folder.rmdir()
        raise


def forget_replaced(folder: Path) -> None:
    """Remove the run that was put aside for the one in ``folder``, which is trained now."""
    shutil.rmtree(folder / REPLACED, ignore_errors=True)


def _made(folder: Path) -> Iterator[Path]:
    """All that a run has made in its folder."""
    for name in (*MADE_BY_US, "checkpoints", *MADE_BY_TRACKERS):
        if (folder / name).exists():
            yield folder / name


def _move(here: Path, there: Path) -> None:
    """Rename all that a run made from one folder into another of the same disk."""
    for path in list(_made(here)):
        there.mkdir(exist_ok=True)
        path.rename(there / path.name)


def _clear(folder: Path) -> None:
    """Remove all that a run makes, and nothing else."""
    for path in list(_made(folder)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def newest_unfinished(root: Path = Path("runs"), *, skip_locked: bool = True) -> Path:
    """The run under ``root`` that was last written to and has no report yet.

    Args:
        root: the folder of run folders.
        skip_locked: pass over runs that another process is training.

    Raises:
        InputError: there is none.
    """
    runs = [
        p.parent for p in root.glob("*/config.yaml") if not (p.parent / "report.html").exists()
    ]
    if not runs:
        raise InputError(f"'resume' found no unfinished run under '{root}'; name one")
    free = [run for run in runs if not (skip_locked and is_locked(run))]
    if not free:
        raise InputError(
            f"'resume' found no unfinished run under '{root}' but {len(runs)} that "
            "another process is training; wait for it, or name another"
        )
    return max(free, key=lambda run: (run / "config.yaml").stat().st_mtime)


@contextlib.contextmanager
def rewritten(folder: Path, config: RunConfig | None) -> Iterator[None]:
    """Write a changed configuration into a run, which is then not finished any more.

    Where it is refused, everything is as before.
    """
    if config is None:
        yield
        return
    path, report = folder / "config.yaml", folder / "report.html"
    before = {p: p.read_text(encoding="utf-8") for p in (path, report) if p.exists()}
    save_text(path, config.to_yaml())
    report.unlink(missing_ok=True)
    try:
        yield
    except InputError:
        for p, text in before.items():
            save_text(p, text)
        raise
