"""Tables for the terminal: rows of text, the first being the heading."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "comparison_notes",
    "comparison_table",
    "evaluation_table",
    "print_json",
    "print_table",
]

Rows = list[tuple[str, ...]]


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output, as wide as the terminal, or as its longest row in a pipe."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    heading, *body = rows
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in heading:
        table.add_column(name, overflow="fold")
    for row in body:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    console.print(table)


def evaluation_table(result: Mapping[str, Any]) -> Rows:
    """What evaluation.json holds, for a person: quantity, value with its error, what it is."""
    rows: Rows = [("quantity", "value", "what it is"), *_estimator_rows(result)]
    for name, baseline in result["baselines"].items():
        value = f"{baseline['log_likelihood']:.3f} nats"
        what = f"{baseline['kind']}, {baseline['latent_dim']} latents"
        rows.append((f"{name} beside it", value, what))
    if result["reconstruction_mse"] is not None:
        rows.append(
            ("squared error", f"{result['reconstruction_mse']:.5g}", "per dimension, data units")
        )
    if result["active_units"] is not None:
        what = "latents whose mean varies with the data"
        rows.append(("active units", f"{result['active_units']} of {result['latent_dim']}", what))
    if result.get("mutual_information") is not None:
        value = f"{result['mutual_information']:.3f} nats"
        num = min(result["num_examples"], 2000)
        what = f"I(x; z) of {num:,} examples, at most the log of their number, {math.log(num):.3f}"
        rows.append(("information", value, what))
    if result.get("quality"):
        rows += _quality_rows(result["quality"])
    if result.get("diagnosis"):
        rows.append(("advice", "", result["diagnosis"]))
    if result.get("context") is not None:
        rows.append(("given", str(result["context"]), "all nats are of log p(x | that)"))
    return rows


def _estimator_rows(result: Mapping[str, Any]) -> Rows:
    """The estimators of log p(x) with their errors, and the decomposition of the bound."""
    bound, likelihood = result["bound"], result["log_likelihood"]
    if bound is None:
        return [("bound", "–", str(result.get("reason", "")))]
    rows: Rows = []
    if (prior := result.get("prior_monte_carlo")) is not None:
        what = f"latents from the prior, biased low, m = {_draws(prior)}"
        rows.append(("prior Monte Carlo", _nats(prior), what))
    what = f"ELBO, lower bound on log p(x), mean of {result['num_examples']:,} examples"
    rows.append(("bound", _nats(bound), what))
    nats_per_bit = -bound["value"] / result["bits_per_dim"] if result["bits_per_dim"] else math.inf
    for name, term in bound["terms"].items():
        is_rate = name != "reconstruction"
        what = "rate, subtracted" if is_rate else "E log p(x|z)"
        bits = (term if is_rate else -term) / nats_per_bit
        error = bound.get("term_errors", {}).get(name)  # older results have none
        shown = _nats({"value": term, "standard_error": error})
        rows.append((f"  {'−' if is_rate else '+'} {name}", shown, f"{what}: {bits:.4f} bits/dim"))
    if likelihood is not None:
        how = f"K = {_draws(likelihood)}" if likelihood["num_samples"] else "in closed form"
        rows.append(("log-likelihood", _nats(likelihood), f"{likelihood['kind']}, {how}"))
    if result["gap"] is not None:
        least = "" if likelihood["kind"] == "exact" else ", at least"
        rows.append(("gap", f"{result['gap']:.3f} nats", f"log-likelihood − bound{least}"))
    if (ais := result.get("ais")) is not None:
        what = (
            f"annealed, {ais['num_steps']:,} steps, {ais['num_chains']} chains; on these "
            f"{ais['num_examples']:,} examples the log-likelihood is {ais['log_likelihood']:.3f}"
        )
        rows.append(("AIS", _nats(ais), what))
    from lowerbound.distributions import parse_support

    support = result.get("support")
    of_density = support is not None and not parse_support(support).is_discrete
    density = ", of a density in the data's units" if of_density else ""
    bits, error = result["bits_per_dim"], bound["standard_error"]
    spread = "" if error is None else f" ± {error / abs(nats_per_bit):.4f}"
    rows.append(("bits/dim", f"{bits:.4f}{spread}", f"−bound / (D ln 2){density}"))
    return rows


def _quality_rows(quality: Mapping[str, Any]) -> Rows:
    """Distances of samples to real examples, each beside that of other real examples."""
    floor, features = quality["floor"], quality["features"]
    sizes = f"{quality['num_samples']:,} samples, seed {quality['seed']}"
    against = f"{quality['num_real']:,} {quality['split']} examples"
    rows: Rows = []
    for key, name, what in (
        ("fd", f"FD-{features}", f"{sizes}, against {against}"),
        ("kd", f"KD-{features}", "of the same; unbiased, may be negative"),
        ("precision", f"precision-{features}", "samples within reach of a real example"),
        ("recall", f"recall-{features}", "real examples within reach of a sample"),
    ):
        if floor is not None:
            what += f"; {floor[key]:.4g} of real ones"
            what += f" ({floor['num_samples']:,} {floor['split']})" if key == "fd" else ""
        rows.append((name, f"{quality[key]:.4g}", what))
    return rows


def _draws(estimate: Mapping[str, Any]) -> str:
    """How many samples, and how many of them count."""
    size = estimate["effective_sample_size"]
    return f"{estimate['num_samples']:,}, mean effective sample size {size:.1f}"


def _nats(estimate: Mapping[str, Any] | None, decimals: int = 3) -> str:
    """Value ± standard error over examples, where there is one."""
    if estimate is None:
        return "–"
    value, error = estimate["value"], estimate["standard_error"]
    spread = "" if error is None else f" ± {error:.{decimals}f}"
    return f"{value:.{decimals}f}{spread} nats"


def comparison_table(results: Sequence[Mapping[str, Any]]) -> Rows:
    """Runs beside one another; one without a likelihood says so where the others have nats.

    Runs may carry a ``set``, shown where there are several, and the ``difference`` of their bound
    to the best of the set.
    """
    heading = "run model data latents bound to_the_best log-likelihood K bits/dim squared_error"
    names = [*heading.split(), "parameters"]
    rows: Rows = [tuple(name.replace("_", " ") for name in names)]
    several = len({r.get("set") for r in results}) > 1
    for r in results:
        bound, ll = r["bound"], r["log_likelihood"]
        latents, error = r.get("latent_dim"), r.get("reconstruction_mse")
        data = f"{r['data']} ({r['split']}, {r['num_examples']:,})"
        mark = " *" if _is_dequantised(r) else ""
        rows.append(
            (
                r["run"],
                r["model"],
                f"{r['set']}: {data}" if several else data,
                "–" if latents is None else f"{latents:,}",
                _nats(bound, 2) + mark if bound else str(r.get("reason", "not a likelihood")),
                _nats(r.get("difference"), 2),
                _nats(ll, 2),
                "–" if ll is None or ll["num_samples"] is None else f"{ll['num_samples']:,}",
                "–" if r["bits_per_dim"] is None else f"{r['bits_per_dim']:.4f}",
                "–" if error is None else f"{error:.4g}",
                f"{r['parameters']:,}",
            )
        )
    return rows


def _is_dequantised(result: Mapping[str, Any]) -> bool:
    """Whether discrete data were made continuous, so that an exact likelihood is but a bound."""
    return bool(result.get("dequantised"))


def comparison_notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the table must know to compare the right numbers, a sentence each."""
    notes = []
    sets = list(dict.fromkeys(r["set"] for r in results))
    if len(sets) > 1:
        notes.append(
            f"{', '.join(sets[:-1])} and {sets[-1]} are different data, or the same prepared, "
            "split or conditioned on differently: nats and squared errors compare within one of "
            "them only."
        )
    if any(r.get("difference") for r in results):
        notes.append(
            "to the best: the bound minus the best one, with the error of their difference over "
            "the same examples."
        )
    if any(map(_is_dequantised, results)):
        notes.append("* of dequantised data: uniform noise was added, which costs some nats.")
    return notes
