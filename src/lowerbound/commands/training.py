"""``lowerbound train``."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lowerbound.config import DIALS, PLACES, RunConfig, TrainingConfig
from lowerbound.errors import refuse
from lowerbound.launch import is_first
from lowerbound.tables import evaluation_table, print_table

__all__ = ["TrainFlags", "train"]

USED_BY_ALL = ("seed", "device", "devices", "precision")  # of what says how to train


@dataclass(frozen=True)
class TrainFlags(RunConfig):
    """Train a model, judge it on the test split and draw what it makes.

    Add --model NAME to see the model's own flags. A run folder repeats, continues and judges.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[DATA]")] = "digits"
    """digits, mnist:DIR, fashion-mnist:DIR, folder:DIR, x.npz[:key], x.npy, t.csv, t.parquet,
    x.tar or hf:NAME."""
    options: tyro.conf.Suppress[Any] = None
    preset: tyro.conf.Suppress[str | None] = None
    out: Path | None = None
    """Run folder; runs/DATA-MODEL-N unless said."""
    config: Path | None = None
    """A config.yaml to start from; flags override it."""
    resume: str | None = None
    """Continue a run: its folder, or auto for the newest unfinished one under runs/."""
    allow_changed: bool = False
    """Resume although data or options have changed; flags beside --resume then take effect."""
    overwrite: bool = False
    """Replace an earlier run in --out."""
    quiet: bool = False
    """No progress, and no results: they are in the run folder."""
    debug: bool = False
    """Show where an error came from."""


def train(flags: Any) -> int:
    """``lowerbound train``."""
    from lowerbound import run

    _check_use(flags)
    values = {f.name: getattr(flags, f.name) for f in dataclasses.fields(RunConfig)}
    options = values.pop("options")
    config = RunConfig(**values, options=dataclasses.asdict(options))
    if flags.resume is not None:
        changed = config if flags.allow_changed else None
        places = {name: getattr(config, name) for name in PLACES}
        done = run.resume(Path(flags.resume), changed=changed, places=places, quiet=flags.quiet)
    else:
        done = run.train(config, flags.out, overwrite=flags.overwrite, quiet=flags.quiet)
    if not flags.quiet and is_first():
        assert done.evaluation is not None
        print_table(evaluation_table(done.evaluation))
        print(f"\nrun folder   {done.folder}\nreport       {done.folder}/report.html")
        verb, more = ("sample", "--seed 1") if done.model.can_sample else ("reconstruct", "")
        print(f"next         lowerbound {verb} {shlex.quote(str(done.folder))} {more}".rstrip())
    return 0


def _check_use(flags: Any) -> None:
    """Say which flags a model that is fitted in closed form leaves unused.

    With --quiet that is not said: its fit is the same for any length, batch or learning rate.

    Raises:
        InputError: an objective or one of its dials, which would ask for another fit; a condition
            that the model cannot have; or what belongs to --resume without it.
    """
    from lowerbound.build import model_entry
    from lowerbound.conditions import check_condition
    from lowerbound.models import Model

    check_condition(flags.model, flags.condition)
    if flags.allow_changed and flags.resume is None:
        remedy = "name a run with --resume, or start anew with --overwrite"
        raise refuse("allow_changed", "left out without --resume", True, remedy)
    if model_entry(flags.model).load()[0].fit_exactly is Model.fit_exactly:
        return
    usual = {f.name: f.default for f in dataclasses.fields(TrainingConfig)}
    changed = [k for k in usual if k not in USED_BY_ALL and getattr(flags, k) != usual[k]]
    for name in ("objective", "num_samples", *DIALS):
        if name in changed:
            required = f"left out for {flags.model}, which is fitted in closed form"
            remedy = "an objective needs a model that is trained step by step, such as vae"
            raise refuse(name, required, getattr(flags, name), remedy)
    if changed and not flags.quiet:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        print(f"note: {flags.model} is fitted in closed form; not used: {named}", file=sys.stderr)
