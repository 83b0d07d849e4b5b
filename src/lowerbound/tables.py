"""Tables for the terminal: rows of text, the first being the heading."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["comparison_table", "evaluation_table", "print_json", "print_table"]

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
    rows: Rows = [("quantity", "value", "what it is")]
    bound, log_likelihood = result["bound"], result["log_likelihood"]
    if bound is None:
        rows.append(("bound", "–", str(result.get("reason", ""))))
    else:
        value = _nats(bound)
        rows.append(("bound", value, f"on log p(x), mean of {result['num_examples']:,} examples"))
        for name, term in bound["terms"].items():
            sign = "+" if name == "reconstruction" else "−"
            what = "E log p(x|z)" if name == "reconstruction" else "rate, subtracted"
            rows.append((f"  {sign} {name}", f"{term:.3f} nats", what))
    if log_likelihood is not None:
        k, size = log_likelihood["num_samples"], log_likelihood["effective_sample_size"]
        how = f"K = {k:,}, mean effective sample size {size:.1f}" if k else "in closed form"
        rows.append(("log-likelihood", _nats(log_likelihood), f"{log_likelihood['kind']}, {how}"))
        if result["gap"] is not None:
            rows.append(("gap", f"{result['gap']:.3f} nats", "log-likelihood − bound, at least"))
        density = ", of a density in the data's units" if result.get("support") == "real" else ""
        rows.append(("bits/dim", f"{result['bits_per_dim']:.4f}", f"−bound / (D ln 2){density}"))
    for name, baseline in result["baselines"].items():
        value = f"{baseline['log_likelihood']:.3f} nats"
        what = f"{baseline['kind']}, {baseline['latent_dim']} latents"
        rows.append((f"{name} beside it", value, what))
    if result["reconstruction_mse"] is not None:
        rows.append(
            ("squared error", f"{result['reconstruction_mse']:.5g}", "per dimension, data units")
        )
    if result["active_units"] is not None:
        rows.append(("active units", f"{result['active_units']} of {result['latent_dim']}", ""))
    return rows


def _nats(estimate: Mapping[str, Any] | None, decimals: int = 3) -> str:
    """Value ± standard error over examples, where there is one."""
    if estimate is None:
        return "–"
    value, error = estimate["value"], estimate["standard_error"]
    spread = "" if error is None else f" ± {error:.{decimals}f}"
    return f"{value:.{decimals}f}{spread} nats"


def comparison_table(results: Sequence[Mapping[str, Any]]) -> Rows:
    """Runs beside one another."""
    rows: Rows = [
        ("run", "model", "data", "bound", "log-likelihood", "K", "bits/dim", "parameters")
    ]
    for r in results:
        bound, ll = r["bound"], r["log_likelihood"]
        rows.append(
            (
                r["run"],
                r["model"],
                f"{r['data']} ({r['split']}, {r['num_examples']:,})",
                _nats(bound, 2),
                _nats(ll, 2),
                "–" if ll is None or ll["num_samples"] is None else f"{ll['num_samples']:,}",
                "–" if r["bits_per_dim"] is None else f"{r['bits_per_dim']:.4f}",
                f"{r['parameters']:,}",
            )
        )
    return rows
