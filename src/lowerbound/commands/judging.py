"""The commands that judge: evaluate, score, compare."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from lowerbound.commands.shared import OfRun, data_of, model_of, output, rows_for
from lowerbound.errors import InputError, printable, refuse
from lowerbound.tables import evaluation_table, print_json, print_table

__all__ = ["CompareFlags", "EvaluateFlags", "ScoreFlags", "compare", "evaluate", "score"]


@dataclass(frozen=True)
class EvaluateFlags(OfRun):
    """Judge a run: the bound and its terms, the log-likelihood, and what stands beside them."""

    data: str | None = None
    """Other data than the run's, prepared in the same way."""
    split: Literal["test", "validation", "train"] = "test"
    """Which split is judged."""
    samples: int = 1000
    """Importance samples K per example."""
    json: bool = False
    """Print one JSON object."""


def evaluate(flags: EvaluateFlags) -> None:
    """``lowerbound evaluate``."""
    from lowerbound.evaluation import evaluate as judge

    if flags.samples < 1:
        raise refuse("samples", "at least 1", flags.samples)
    model, source = model_of(flags), data_of(flags, flags.data)
    result = judge(model, source, split=flags.split, num_samples=flags.samples)
    if flags.json:
        print_json(result)
    else:
        print_table(evaluation_table(result))


@dataclass(frozen=True)
class ScoreFlags(OfRun):
    """The bound of each example in nats and in bits/dim, as a CSV table in the data's order."""

    data: str | None = None
    """What to score, every row in its order; the run's own data unless said."""
    samples: int = 16
    """Monte Carlo samples per example."""
    out: Path = Path("scores.csv")
    """A .csv file with the columns index, bound and bits_per_dim."""


def score(flags: ScoreFlags) -> None:
    """``lowerbound score``."""
    from lowerbound.evaluation.judging import scores
    from lowerbound.files import save_text

    out = output(flags.out, flags.out, (".csv",))
    if flags.samples < 1:
        raise refuse("samples", "at least 1", flags.samples)
    model, x = model_of(flags), rows_for(flags, flags.data)
    bound, bits = scores(model, x, flags.samples)
    rows = zip(bound.tolist(), bits.tolist(), strict=True)
    text = "".join(f"{i},{b:.6f},{d:.8f}\n" for i, (b, d) in enumerate(rows))
    save_text(out, "index,bound,bits_per_dim\n" + text)
    print(out)


@dataclass(frozen=True)
class CompareFlags:
    """Runs beside one another, best bound first."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    json: bool = False
    """Print one JSON object."""
    debug: bool = False
    """Show where an error came from."""


def compare(flags: CompareFlags) -> None:
    """``lowerbound compare``."""
    from lowerbound.files import check_format_version, load_json
    from lowerbound.tables import comparison_table

    if not flags.runs:
        raise refuse("runs", "at least one run folder", "none")
    found = []
    for run in flags.runs:
        path = run / "evaluation.json"
        if not path.is_file():
            raise InputError(
                f"'{printable(run)}' has no evaluation.json; give the folder of a finished run"
            )
        document = load_json(path)
        check_format_version(document, path)
        found.append({"run": str(run), **document})
    found.sort(key=lambda r: -(r["bound"] or {}).get("value", float("-inf")))
    judged_on = ("fingerprint", "support", "split", "num_examples")
    same = {tuple(r.get(key) for key in judged_on) for r in found}
    if len(same) > 1:
        print(
            "warning: the runs were judged on different data; their nats do not compare",
            file=sys.stderr,
        )
    if flags.json:
        print_json({"runs": found, "comparable": len(same) == 1})
    else:
        print_table(comparison_table(found))
