"""The command that puts runs beside one another: compare.

Nats compare on the same examples only, so that runs are put into sets by what they were judged
on, and ordered within a set alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lowerbound.commands.shared import OfRun, data_of, first_rows, model_of, output
from lowerbound.errors import InputError, LowerboundError, printable, refuse
from lowerbound.tables import comparison_notes, comparison_table, print_json, print_table

__all__ = ["SCORES", "CompareFlags", "compare"]

JUDGED_ON = ("fingerprint", "support", "split", "num_examples", "context")
SCORES = "scores.safetensors"
"""The values of each test example, beside evaluation.json."""
Result = dict[str, Any]


@dataclass(frozen=True)
class CompareFlags:
    """Runs beside one another, best bound first: one table and one picture.

    Runs that were judged on different data stand in different sets, A, B, …, which do not compare.
    Within a set likelihoods come first; models without one follow by their squared error.

    The picture shows the same test examples as each run reconstructs them.
    """

    runs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN …", help_behavior_hint="(at least one)"),
    ]
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
    if not flags.runs:
        raise refuse("runs", "at least one run folder", "none", "name some after `compare`")
    out = output(flags.out, flags.runs[0] / "comparison.png", (".png",))
    found = _ordered([_judged(run) for run in flags.runs])
    _add_differences(found)
    picture, trouble, left_out = None, None, []
    try:
        if flags.out is not None or not flags.json:
            left_out = _drawn(found, out)
            picture = out
    except (LowerboundError, OSError) as error:
        trouble = error
    if flags.json:
        shown = None if picture is None else str(picture)
        comparable = len({r["set"] for r in found}) == 1
        print_json({"runs": found, "comparable": comparable, "picture": shown})
    else:
        print_table(comparison_table(found))
        for note in comparison_notes(found):
            print(note)
        if picture is not None:
            print(f"\npicture   {picture}")
        for run in left_out:
            print(f"not in it: {printable(run)}, which has no encoder q(z|x) to reconstruct with")
    if trouble is not None and flags.out is not None:
        raise trouble
    if trouble is not None:
        print(f"note: no picture: {printable(trouble, 400)}", file=sys.stderr)


def _judged(run: Path) -> Result:
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


def _ordered(results: Sequence[Result]) -> list[Result]:
    """Sets A, B, … in the order they are met; in each the best bound, then the least error."""
    sets: dict[tuple[Any, ...], list[Result]] = {}
    for r in results:
        sets.setdefault(tuple(r.get(key) for key in JUDGED_ON), []).append(r)
    for i, members in enumerate(sets.values()):
        members.sort(key=_rank)
        for r in members:
            r["set"] = chr(ord("A") + i) if i < 26 else str(i + 1)
    return [r for members in sets.values() for r in members]


def _rank(result: Mapping[str, Any]) -> tuple[int, float]:
    """Likelihoods by their bound, then the others by their squared error, best first."""
    if result["bound"] is not None:
        return 0, -result["bound"]["value"]
    error = result.get("reconstruction_mse")
    return 1, math.inf if error is None else error


def _add_differences(found: Sequence[Result]) -> None:
    """Each bound minus the best of its set over the same examples: ``difference``, or None."""
    from lowerbound.evaluation import paired_difference

    best: dict[str, Result] = {}
    for r in found:
        first = best.setdefault(r["set"], r)
        r["difference"] = None
        if first is r or r["bound"] is None:
            continue
        values, others = _bounds_of(r), _bounds_of(first)
        if values is not None and others is not None:
            value, error = paired_difference(values, others)
            r["difference"] = {"value": value, "standard_error": error, "to": first["run"]}


def _bounds_of(result: Mapping[str, Any]) -> Any:
    """The bound of each example (N,) that a run kept; None unless they are those it reports."""
    from lowerbound.evaluation.judging import load_scores

    path = Path(result["run"]) / SCORES
    if not path.exists():
        return None
    try:
        values = load_scores(path)["bound"]
    except InputError as error:
        print(f"note: {error}", file=sys.stderr)
        return None
    ours = len(values) == result["num_examples"]
    reported = result["bound"]["value"]
    return values if ours and math.isclose(float(values.mean()), reported, rel_tol=1e-9) else None


def _drawn(found: Sequence[Result], out: Path) -> list[str]:
    """Draw test examples as every run reconstructs them into ``out``; the runs that cannot.

    Raises:
        InputError: data that differ or are gone, or no run that reconstructs.
    """
    from lowerbound import plots
    from lowerbound.generation import reconstruct
    from lowerbound.pictures import NUM_COMPARED

    if len({(r.get("fingerprint"), r.get("support")) for r in found}) > 1:
        raise refuse("runs", "runs on the same data for a picture of them", "runs on others")
    source = data_of(OfRun(Path(found[0]["run"])), None)
    num = NUM_COMPARED.of(source.event_shape)
    rows, left_out = [], []
    for r in found:
        run = OfRun(Path(r["run"]))
        model = model_of(run)
        given = source if model.context is None else data_of(run, None)  # with its own context
        x, context = first_rows(model, given, "test", num)
        if model.has_encoder:
            rows.append((_caption(r), reconstruct(model, x, context)))
        else:
            left_out.append(f"{r['run']} ({r['model']})")
    if not rows:
        raise refuse("runs", "at least one that reconstructs, for a picture", "none")
    plots.save_figure(plots.comparison_figure(x, rows, model.support), out)
    return left_out


def _caption(result: Mapping[str, Any]) -> str:
    """What stands beside a run's reconstructions: its size, its bound and its error."""
    from lowerbound.plots.style import true_minus

    size, error, bound = (result[k] for k in ("latent_dim", "reconstruction_mse", "bound"))
    nats = "no likelihood" if bound is None else true_minus(f"{bound['value']:.2f} nats")
    latents = f"{size} latent{'' if size == 1 else 's'}"
    return f"{result['model']}, {latents}\n{nats}, squared error {error:.4g}"
