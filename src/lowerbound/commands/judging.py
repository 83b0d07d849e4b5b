"""The commands that judge: evaluate, score, compare."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from lowerbound.commands.shared import OfRun, data_of, first_rows, model_of, output, rows_for
from lowerbound.errors import InputError, LowerboundError, printable, refuse
from lowerbound.tables import evaluation_table, print_json, print_table

__all__ = ["CompareFlags", "EvaluateFlags", "ScoreFlags", "compare", "evaluate", "score"]

NUM_IMAGES, NUM_VECTORS = 12, 500  # compared in a picture


@dataclass(frozen=True)
class EvaluateFlags(OfRun):
    """Judge a run: the bound and its terms, the log-likelihood, and what stands beside them."""

    data: str | None = None
    """Other data than the run's, prepared in the same way."""
    split: Literal["test", "validation", "train"] = "test"
    """Which split is judged."""
    samples: int = 1000
    """Importance samples K per example, and draws of prior Monte Carlo."""
    ais: int = 0
    """Steps of annealed importance sampling on 100 seeded examples, for a poor encoder; 0: none,
    1,000 is thorough."""
    ais_chains: int = 16
    """Its chains per example."""
    json: bool = False
    """Print one JSON object."""


def evaluate(flags: EvaluateFlags) -> None:
    """``lowerbound evaluate``."""
    from lowerbound.evaluation import evaluate as judge

    if flags.samples < 1:
        raise refuse("samples", "at least 1", flags.samples)
    if flags.ais < 0:
        raise refuse("ais", "0 or more", flags.ais)
    if flags.ais_chains < 1:
        raise refuse("ais_chains", "at least 1", flags.ais_chains)
    model, source = model_of(flags), data_of(flags, flags.data)
    result = judge(
        model,
        source,
        split=flags.split,
        num_samples=flags.samples,
        ais=flags.ais,
        ais_chains=flags.ais_chains,
    )
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
    """Runs beside one another, best bound first: one table and one picture.

    The picture shows the same test examples as each run reconstructs them.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    out: Path | None = None
    """X.png for the picture; comparison.png in the first run's folder unless said, and none at
    all beside --json unless said."""
    json: bool = False
    """Print one JSON object."""
    debug: bool = False
    """Show where an error came from."""


def compare(flags: CompareFlags) -> None:
    """``lowerbound compare``."""
    from lowerbound.tables import comparison_table

    if not flags.runs:
        raise refuse("runs", "at least one run folder", "none")
    out = output(flags.out, flags.runs[0] / "comparison.png", (".png",))
    found = [_judged(run) for run in flags.runs]
    found.sort(key=lambda r: -(r["bound"] or {}).get("value", float("-inf")))
    comparable = _same(found, "fingerprint", "support", "split", "num_examples")
    if not comparable:
        print(
            "warning: the runs were judged on different data; their nats do not compare",
            file=sys.stderr,
        )
    picture = None
    try:
        if flags.out is not None or not flags.json:
            picture = _drawn(found, out)
    except (LowerboundError, OSError) as error:
        if flags.out is not None:
            raise
        print(f"warning: no picture: {printable(error, 400)}", file=sys.stderr)
    if flags.json:
        shown = None if picture is None else str(picture)
        print_json({"runs": found, "comparable": comparable, "picture": shown})
    else:
        print_table(comparison_table(found))
        if picture is not None:
            print(f"\npicture   {picture}")


def _judged(run: Path) -> dict[str, Any]:
    """What evaluation.json of a run holds, with the run's folder."""
    from lowerbound.files import check_format_version, load_json

    path = run / "evaluation.json"
    if not path.is_file():
        raise InputError(
            f"'{printable(run)}' has no evaluation.json; give the folder of a finished run"
        )
    document = load_json(path)
    check_format_version(document, path)
    return {"run": str(run), **document}


def _same(found: Sequence[Mapping[str, Any]], *keys: str) -> bool:
    return len({tuple(r.get(key) for key in keys) for r in found}) == 1


def _drawn(found: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Draw test examples as every run reconstructs them; ``out`` when done.

    Raises:
        InputError: data that differ or are gone, or no run that reconstructs.
    """
    from lowerbound import plots
    from lowerbound.generation import reconstruct

    if not _same(found, "fingerprint", "support"):
        raise refuse("runs", "runs on the same data for a picture of them", "runs on others")
    source = data_of(OfRun(Path(found[0]["run"])), None)
    num = NUM_IMAGES if len(source.event_shape) == 3 else NUM_VECTORS
    x = first_rows(source, "test", num)
    rows = []
    for r in found:
        model = model_of(OfRun(Path(r["run"])))
        model.check(x, source.name)
        if model.has_encoder:
            size, error = r["latent_dim"], r["reconstruction_mse"]
            title = f"{r['model']}, {size} latent{'' if size == 1 else 's'}"
            rows.append((f"{title}\nsquared error {error:.4g}", reconstruct(model, x)))
    if not rows:
        raise refuse("runs", "at least one that reconstructs, for a picture", "none")
    plots.save_figure(plots.comparison_figure(x, rows, model.support), out)
    return out
