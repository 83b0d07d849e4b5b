"""One sentence of advice where the latents or the encoder have failed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["diagnosis", "weighty"]

SMALL_RATE = 0.1  # nats per example
FEW_DRAWS = 3.0  # effective sample size
ENOUGH_DRAWN = 50  # below it a small effective sample size says nothing
LARGE_GAP = 2.0  # nats
MOSTLY = 0.5
ENOUGH_EXAMPLES = 100  # below it a single one may weigh what it likes

REMEDY = (
    "train again with a slower start of the rate (--beta-warmup 0.3), with --free-bits 0.1, or "
    "with a weaker decoder"
)


def diagnosis(result: Mapping[str, Any], active: Tensor | None) -> str | None:
    """What is wrong, and what to do about it; the gravest thing first.

    Args:
        result: what `evaluate` found: rate_per_latent, gap and log_likelihood are looked at.
        active: which latent dimensions vary with the data (d,); None where they have no prior to
            be measured by, and then nothing is said of them.
    """
    return _collapse(result, active) or _waste(result, active) or _poor_encoder(result)


def weighty(bound: Tensor) -> list[str]:
    """A sentence where one of many examples moves the mean by more than the error of the rest.

    Args:
        bound: of each example, (N,), nats.
    """
    if len(bound) < ENOUGH_EXAMPLES:
        return []
    furthest = int((bound - bound.median()).abs().argmax())
    rest = torch.cat([bound[:furthest], bound[furthest + 1 :]])
    mean, error = float(rest.mean()), float(rest.std() / math.sqrt(len(rest)))
    moved = float(bound.mean()) - mean
    if abs(moved) <= error:
        return []
    return [
        f"One example, number {furthest:,} of those judged, moves the mean bound by {moved:.2f} "
        f"nats: of all others it is {mean:.2f} ± {error:.2f}. `lowerbound score` lists each one."
    ]


def _collapse(result: Mapping[str, Any], active: Tensor | None) -> str | None:
    """The latents carry nothing, and the decoder does without them."""
    rates = result.get("rate_per_latent")
    if active is None:
        return None
    if rates is not None and sum(rates) < SMALL_RATE:
        return (
            f"The latents carry almost nothing ({sum(rates):.2f} nats per example): the posterior "
            f"has collapsed to the prior; {REMEDY}."
        )
    if len(active) and not bool(active.any()):
        paid = "" if rates is None else f", and the rate of {sum(rates):.2f} nats buys nothing"
        return (
            f"No latent dimension varies with the data (0 of {len(active)} active units){paid}: "
            f"the encoder ignores its input; {REMEDY}."
        )
    return None


def _waste(result: Mapping[str, Any], active: Tensor | None) -> str | None:
    """Most of the rate is paid for latents that say nothing about the example."""
    rates = result.get("rate_per_latent")
    if rates is None or active is None or len(rates) != len(active):
        return None
    wasted = sum(r for r, used in zip(rates, active.tolist(), strict=True) if not used)
    if wasted <= MOSTLY * sum(rates):
        return None
    return (
        f"Of the rate of {sum(rates):.2f} nats, {wasted:.2f} are paid for latents that do not "
        f"vary with the data ({int(active.sum())} of {len(active)} active units); train for "
        "longer, or with fewer latents (--latent-dim)."
    )


def _poor_encoder(result: Mapping[str, Any]) -> str | None:
    """Hardly any draw of the encoder hits the posterior: the log-likelihood is loose too."""
    likelihood, gap = result.get("log_likelihood"), result.get("gap")
    if not likelihood or gap is None or not likelihood["num_samples"]:
        return None
    size, draws = likelihood["effective_sample_size"], likelihood["num_samples"]
    if draws < ENOUGH_DRAWN or size >= FEW_DRAWS or gap < LARGE_GAP:
        return None
    return (
        f"The encoder is far from the posterior: of {draws:,} draws {size:.1f} count, so that the "
        f"log-likelihood is loose and the gap larger than {gap:.1f} nats; judge with --ais 1000, "
        "or train with --objective iwae or a larger encoder."
    )
