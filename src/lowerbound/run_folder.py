"""The folder of a run: found, made empty, and the configuration that it holds."""

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
    "config_from",
    "new_folder",
    "newest_unfinished",
    "next_folder",
    "rewritten",
    "run_config",
]

MADE_BY_US = (
    "config.yaml config.json model.safetensors evaluation.json metrics.jsonl report.html "
    "samples.png reconstructions.png latents.png interpolations.png plane.png training.png "
    "comparison.png decomposition.png codes.png levels.png noise-levels.png denoising.png "
    "scores.safetensors scores.csv latents.npz decoded.npz"
).split()


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


def new_folder(folder: Path, overwrite: bool) -> Path:
    """A run folder that is empty, emptied of an earlier run, or refused.

    Only files that a run makes are removed: a folder with anything else in it keeps the rest.
    """
    if folder.exists() and not folder.is_dir():
        raise refuse("out", "a folder", folder)
    inhabitants = [p for p in folder.iterdir() if p.name != "run.lock"] if folder.exists() else []
    if inhabitants and not overwrite:
        raise refuse(
            "out",
            "an empty or new folder",
            folder,
            "choose another, continue it with --resume, or replace it with --overwrite",
        )
    if inhabitants:
        with RunLock(folder):
            _clear(folder)
    return folder


@contextlib.contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Take a new run folder away again where its run is refused before anything was saved.

    It would be in the way of the next try, and the first that `--resume auto` finds.
    """
    try:
        yield
    except InputError:
        if not checkpoints_of(folder):
            _clear(folder)
            with contextlib.suppress(OSError):  # something else is in it
                (folder / "run.lock").unlink(missing_ok=True)
                folder.rmdir()
        raise


def _clear(folder: Path) -> None:
    """Remove all that a run makes, and nothing else."""
    for name in MADE_BY_US:
        (folder / name).unlink(missing_ok=True)
    for name in ("checkpoints", *MADE_BY_TRACKERS):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).unlink(missing_ok=True)


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
