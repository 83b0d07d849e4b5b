"""``lowerbound train``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from lowerbound.config import RunConfig
from lowerbound.tables import evaluation_table, print_table

__all__ = ["TrainFlags", "train"]


@dataclass(frozen=True)
class TrainFlags(RunConfig):
    """Train a model, judge it on the test split and draw what it makes.

    Add --model NAME to see the model's own flags. A run folder repeats, continues and judges.
    """

    data: tyro.conf.Positional[str] = "digits"
    """digits, mnist:DIR, fashion-mnist:DIR, folder:DIR, x.npz[:key], x.npy or t.csv."""
    options: tyro.conf.Suppress[Any] = None
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
    """No progress."""
    debug: bool = False
    """Show where an error came from."""


def train(flags: Any) -> int:
    """``lowerbound train``."""
    from lowerbound import run

    values = {f.name: getattr(flags, f.name) for f in dataclasses.fields(RunConfig)}
    options = values.pop("options")
    config = RunConfig(**values, options=dataclasses.asdict(options))
    if flags.resume is not None:
        changed = config if flags.allow_changed else None
        done = run.resume(Path(flags.resume), changed=changed, quiet=flags.quiet)
    else:
        done = run.train(config, flags.out, overwrite=flags.overwrite, quiet=flags.quiet)
    if not flags.quiet:
        assert done.evaluation is not None
        print_table(evaluation_table(done.evaluation))
        print(f"\nrun folder   {done.folder}\nreport       {done.folder}/report.html")
        verb = "sample" if done.model.can_sample else "reconstruct"
        print(f"next         lowerbound {verb} {done.folder} --num 64")
    return 0
