"""The figure of the decomposition log p(x) = ELBO + gap, and of the estimators of log p(x).

The gap is KL(q(z|x) ‖ p(z|x)): what the bound drops because the encoder is not the posterior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lowerbound.errors import refuse
from lowerbound.plots.style import (
    DATA,
    FAINT,
    GREY,
    INK,
    MARK,
    MODEL,
    dress,
    titled_figure,
    true_minus,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["decomposition_figure", "has_decomposition"]

Estimate = tuple[float, float]  # value and standard error over examples, nats


def decomposition_figure(evaluation: Mapping[str, Any]) -> Figure:
    """The line log p, the bound below it, the gap shaded; prior Monte Carlo beside them.

    Args:
        evaluation: what evaluation.json holds: ``bound``, ``log_likelihood`` and, where there is
            one, ``prior_monte_carlo``, each with ``value`` and ``standard_error`` in nats.

    Raises:
        InputError: there is no bound or no log-likelihood in it.
    """
    bound, evidence = _estimate(evaluation, "bound"), _estimate(evaluation, "log_likelihood")
    if bound is None or evidence is None:
        raise refuse("evaluation", "one with a bound and a log-likelihood", "none")
    prior = _estimate(evaluation, "prior_monte_carlo")
    kind = str(evaluation["log_likelihood"].get("kind", "estimate"))
    figure = titled_figure("What the bound leaves out", 9.8 if prior else 5.6, 4.2)
    if prior:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
        _estimators(left, prior, bound, evidence, evaluation["log_likelihood"].get("num_samples"))
    else:
        right = figure.subplots()
    _gap(right, bound, evidence, kind)
    return figure


def has_decomposition(evaluation: Mapping[str, Any]) -> bool:
    """Whether there is a bound and a log-likelihood to draw.

    >>> has_decomposition({"bound": None, "reason": "not a likelihood"})
    False
    """
    return all(_estimate(evaluation, key) for key in ("bound", "log_likelihood"))


def _estimate(evaluation: Mapping[str, Any], key: str) -> Estimate | None:
    """A value with its error (0 where it is unknown); None unless the value is finite."""
    part = evaluation.get(key)
    part = part if isinstance(part, Mapping) else {}
    value, error = (
        float(n) if isinstance(n, int | float) and math.isfinite(n) else None
        for n in (part.get("value"), part.get("standard_error"))
    )
    return None if value is None else (value, error or 0.0)


def _estimators(
    ax: Axes, prior: Estimate, bound: Estimate, evidence: Estimate, num_samples: int | None
) -> None:
    """The three estimators on one scale, each with its standard error."""
    of_k = f"$L_{{{num_samples}}}$" if num_samples else "log p"
    names = "prior\nMonte Carlo", "ELBO\n($L_1$)", f"{of_k}\n(log-likelihood)"
    points = list(zip(names, (prior, bound, evidence), (DATA, MODEL, INK), strict=True))
    values = [value for _, (value, _), _ in points]
    low, span = min(values), max(values) - min(values) or 1.0
    for i, (_, (value, error), hue) in enumerate(points):
        ax.plot([i, i], [low - span, value], color=hue, lw=7, alpha=0.18, solid_capstyle="butt")
        ax.errorbar(i, value, error, fmt="o", ms=6, color=hue, elinewidth=1.6, capsize=4)
        ax.annotate(
            _shown((value, error)),
            (i, value + error),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=GREY if hue == DATA else hue,
        )
    ax.set_xlim(-0.6, 2.6)
    spread = max(error for _, (_, error), _ in points)
    ax.set_ylim(low - 0.15 * span - spread, low + 1.15 * span + spread)
    ax.grid(axis="y", color=FAINT, lw=0.6)
    ax.set_axisbelow(True)
    dress(ax, "Three estimators of log p(x): higher is tighter", "", "nats per example")
    ax.set_xticks(range(3), list(names))


def _gap(ax: Axes, bound: Estimate, evidence: Estimate, kind: str) -> None:
    """The decomposition: two levels, and what lies between them."""
    gap = evidence[0] - bound[0]
    label = {"lower bound": "estimate (lower bound)"}.get(kind, kind)
    same = abs(gap) < 1e-6  # the encoder is the posterior
    span = 1.0 if same else max(abs(gap), 0.02)
    text: dict[str, Any] = {"fontsize": 9, "ha": "left"}
    ax.axhspan(bound[0], evidence[0], color=MARK, alpha=0.13, lw=0)
    ax.axhline(evidence[0], color=INK, lw=1.8)
    above = f"log p(x) = {_shown(evidence)}, {label}"
    ax.text(0.03, evidence[0] + 0.05 * span, above, color=INK, va="bottom", **text)
    if same:
        below = "= ELBO: no gap" if kind == "exact" else "= ELBO, in closed form"
        ax.text(0.03, bound[0] - 0.05 * span, below, color=MODEL, va="top", **text)
    else:
        ax.axhline(bound[0], color=MODEL, lw=1.8)
        below = f"ELBO = {_shown(bound)}"
        ax.text(0.03, bound[0] - 0.05 * span, below, color=MODEL, va="top", **text)
        ax.annotate("", (0.1, evidence[0]), (0.1, bound[0]), arrowprops=_arrow())
        least = "" if kind == "exact" else "at least "
        middle = f"gap = KL(q(z|x) ‖ p(z|x))\n{least}{true_minus(f'{gap:.2f}')} nats"
        ax.text(0.15, (bound[0] + evidence[0]) / 2, middle, color=MARK, va="center", **text)
    ax.set_xlim(0, 1)
    lower, upper = sorted((bound[0], evidence[0]))
    ax.set_ylim(lower - 0.45 * span, upper + 0.45 * span)
    dress(ax, "log p(x) = ELBO + gap", "", "nats per example")
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)


def _arrow() -> dict[str, Any]:
    return {"arrowstyle": "<->", "color": MARK, "lw": 1.4, "shrinkA": 1, "shrinkB": 1}


def _shown(estimate: Estimate) -> str:
    """Value ± standard error in nats, with a true minus sign."""
    value, error = estimate
    spread = f" ± {error:.2f}" if error else ""
    return true_minus(f"{value:,.2f}{spread}")
