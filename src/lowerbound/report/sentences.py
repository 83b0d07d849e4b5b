"""What a run's numbers say: the verdict, and one explained row for each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = [
    "MODELS",
    "baseline_rows",
    "bound_rows",
    "escaped",
    "finite_number",
    "headline",
    "likelihood_rows",
    "mapping_at",
    "other_rows",
    "prior_rows",
    "shown_number",
    "verdict",
]

MODELS = {  # names as a sentence says them
    "cvae": "a conditional VAE",
    "vqvae": "a quantised autoencoder",
    "hvae": "a hierarchical VAE",
    "ladder": "a ladder VAE",
    "diffusion": "a diffusion model",
    "ppca": "probabilistic PCA",
    "mixture": "a mixture of Gaussians",
    "lda": "linear discriminants",
    "dct": "a cosine transform coder",
    "autoencoder": "an autoencoder",
}
TERMS = {
    "reconstruction": (
        "Reconstruction",
        "How well the data are described once their latents are known. Higher is better, "
        "but it is paid for by the terms below, which are subtracted.",
    ),
    "kl": (
        "KL (rate)",
        "What the latents cost: how far q(z|x) departs from the prior. Lower is cheaper; "
        "zero means that the latents carry nothing.",
    ),
    "codes": (
        "Codes (rate)",
        "What it costs to name the codes under their prior. Lower is better.",
    ),
    "prior": ("Prior (rate)", "How far the end of the path still is from the prior. Near zero."),
    "diffusion": ("Diffusion (rate)", "What all denoising steps cost together. Lower is better."),
    "entropy": (
        "Entropy (rate)",
        "Minus the entropy of the encoder; negative where it spreads its latents.",
    ),
}
FACTS = {
    "codes_used": (
        "Codes in use",
        "How many codes of a codebook occur in training; few of many is a codebook too large.",
    ),
    "code_perplexity": (
        "Code perplexity",
        "As many equally frequent codes would carry as much, at each place by itself.",
    ),
}
KINDS = {
    "exact": "The log-likelihood itself, without approximation.",
    "lower bound": "A tighter lower bound on log p(x) than the one above.",
    "estimate": "An estimate of log p(x) that may err on either side.",
}
Row = tuple[str, str, str]  # quantity, value, what it says


def escaped(value: object) -> str:
    """Text that is safe in HTML, quotes included."""
    return escape(str(value), quote=True)


def finite_number(value: object) -> float | None:
    """A finite number, or None for whatever else a file may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def mapping_at(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A nested object, empty where the file has null or something else."""
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def shown_number(value: float, decimals: int = 2) -> str:
    """A number with a true minus sign and separated thousands."""
    return f"{value:,.{decimals}f}".replace("-", "−")


def _with_error(value: float, error: float | None, unit: str) -> str:
    """Value ± standard error, with as many decimals as the error has meaning."""
    decimals = 2 if not error else min(max(1 - math.floor(math.log10(abs(error))), 2), 5)
    spread = "" if error is None else f" ± {shown_number(error, decimals)}"
    return f'{shown_number(value, decimals)}{spread} <span class="unit">{unit}</span>'


def headline(evaluation: Mapping[str, Any]) -> tuple[float | None, str]:
    """The best statement on log p(x) that was measured, and what kind of statement it is."""
    likelihood = mapping_at(evaluation, "log_likelihood")
    value = finite_number(likelihood.get("value"))
    if value is not None:
        return value, str(likelihood.get("kind", "estimate"))
    return finite_number(mapping_at(evaluation, "bound").get("value")), "lower bound"


def verdict(evaluation: Mapping[str, Any], density: bool) -> str:
    """What came out, in one or two sentences."""
    if not evaluation:
        return "This run has not been judged yet."
    value, kind = headline(evaluation)
    num = finite_number(evaluation.get("num_examples"))
    split = escaped(evaluation.get("split", "held-out"))
    where = f"On {num:,.0f} {split} examples" if num else f"On the {split} examples"
    if value is None:
        reason = escaped(evaluation.get("reason", "not a likelihood"))
        return f"This model is {reason}: it assigns no probability, so no bound is stated."
    degree = {"exact": "exactly", "lower bound": "at least"}.get(kind, "about")
    of_density = " of density" if density else ""
    text = (
        f"{where} this model assigns {degree} "
        f"<strong>{shown_number(value, 1)} nats{of_density}</strong>"
        f" per example on average{_bits(evaluation, value, kind, density)}."
    )
    advice = evaluation.get("diagnosis")
    said = [escaped(advice)] if isinstance(advice, str) else []
    return " ".join([text, *_comparisons(evaluation, value, kind), *said])


def _bits(evaluation: Mapping[str, Any], value: float, kind: str, density: bool) -> str:
    """The verdict's value in bits per dimension, found from that of the bound."""
    bits = finite_number(evaluation.get("bits_per_dim"))
    bound = finite_number(mapping_at(evaluation, "bound").get("value"))
    if density or not bits or not bound:
        return ""
    most = {"exact": "", "lower bound": "at most "}.get(kind, "about ")
    return f", {most}{shown_number(bits * value / bound, 3)} bits per dimension"


def _comparisons(evaluation: Mapping[str, Any], value: float, kind: str) -> Iterator[str]:
    """A sentence for each baseline; "at least" only where both sides allow it."""
    for name, baseline in mapping_at(evaluation, "baselines").items():
        other = (
            finite_number(baseline.get("log_likelihood"))
            if isinstance(baseline, Mapping)
            else None
        )
        if other is None:
            continue
        better = value >= other
        loose = baseline.get("kind") == "lower bound"
        sure = kind == "lower bound" and not loose and better
        amount = f"{'at least ' if sure else ''}{shown_number(abs(value - other), 1)} nats"
        label = _named(name, baseline)
        if loose:  # its own bound is loose, so that the difference is no statement on the models
            label = f"the bound of {label} on dequantised data"
        yield f"That is {amount} {'better' if better else 'worse'} than {label}."


def _named(name: str, baseline: Mapping[str, Any]) -> str:
    """A baseline as a sentence says it, with the size of its latent space."""
    latents = finite_number(baseline.get("latent_dim"))
    size = f" with {latents:,.0f} latents" if latents else ""
    return escaped(MODELS.get(name, name) + size)


def prior_rows(evaluation: Mapping[str, Any], _: bool) -> Iterator[Row]:
    """Prior Monte Carlo: log p(x) without an encoder."""
    estimate = mapping_at(evaluation, "prior_monte_carlo")
    if (value := finite_number(estimate.get("value"))) is None:
        return
    draws = finite_number(estimate.get("num_samples"))
    size = finite_number(estimate.get("effective_sample_size"))
    meaning = "log p(x) estimated with latents from the prior, without an encoder; biased low."
    if draws and size:
        meaning += f" Of {draws:,.0f} draws {shown_number(size, 1)} count, on average."
    shown = _with_error(value, finite_number(estimate.get("standard_error")), "nats/example")
    yield "Prior Monte Carlo", shown, meaning


def bound_rows(evaluation: Mapping[str, Any], density: bool) -> Iterator[Row]:
    """The bound and the terms that it is made of, or why there is none."""
    bound = mapping_at(evaluation, "bound")
    value = finite_number(bound.get("value"))
    if value is None:
        if evaluation:
            reason = escaped(evaluation.get("reason", "not a likelihood"))
            yield "Lower bound", "none", f"The model is {reason}, so no probability is stated."
        return
    meaning = (
        "What the model is trained and judged by: log p(x) is at least this. Higher is better."
    )
    if density:
        meaning += " The data are real numbers, so this is a density: it depends on their unit."
    if (noise := finite_number(bound.get("monte_carlo_error"))) is not None:
        meaning += (
            f" Drawing the latents anew would move it by about {shown_number(noise, 3)} nats."
        )
    error = finite_number(bound.get("standard_error"))
    yield "Lower bound on log p(x)", _with_error(value, error, "nats/example"), meaning
    for key, term in mapping_at(bound, "terms").items():
        level = key.removeprefix("kl_")
        nested = (f"KL of level {escaped(level)} (rate)", "What this level of latents costs.")
        label, meaning = TERMS.get(key, nested if level != key else (escaped(key), "Subtracted."))
        if (number := finite_number(term)) is not None:
            yield f'<span class="term">{label}</span>', _with_error(number, None, "nats"), meaning


def likelihood_rows(evaluation: Mapping[str, Any], _: bool) -> Iterator[Row]:
    """The log-likelihood, how many draws carry it, and its gap to the bound."""
    likelihood = mapping_at(evaluation, "log_likelihood")
    value = finite_number(likelihood.get("value"))
    if value is not None:
        kind, draws = likelihood.get("kind"), finite_number(likelihood.get("num_samples"))
        meaning = KINDS.get(str(kind), KINDS["estimate"])
        if draws is None and kind == "lower bound":
            meaning = "The bound itself, which this model has in closed form."
        elif draws and kind != "exact":
            meaning += f" From K = {draws:,.0f} draws per example."
        error = finite_number(likelihood.get("standard_error"))
        shown = _with_error(value, error, "nats/example")
        yield "Log-likelihood", shown, f"{meaning} Higher is better."
        if (effective := finite_number(likelihood.get("effective_sample_size"))) is not None:
            of = f'<span class="unit">of {draws:,.0f} draws</span>' if draws else ""
            meaning = (
                "How many of the draws count, mean over examples. Near 1, the log-likelihood "
                "is loose; more is better."
            )
            yield "Effective sample size", f"{shown_number(effective, 1)} {of}", meaning
    if (gap := finite_number(evaluation.get("gap"))) is not None:
        least = "" if likelihood.get("kind") == "exact" else " at least"
        meaning = f"Log-likelihood minus bound: what imperfect inference loses{least}."
        yield "Gap", _with_error(gap, None, "nats"), meaning


def other_rows(evaluation: Mapping[str, Any], density: bool) -> Iterator[Row]:
    """Bits per dimension, the error of reconstructions, and the latents in use."""
    if (bits := finite_number(evaluation.get("bits_per_dim"))) is not None:
        meaning = "The bound as a length: −bound / (D ln 2). Lower is better."
        if density:
            meaning += " Of a density: it may be negative, and is no file size."
        else:
            meaning += " Close to what a perfect compressor built on the model would need."
        yield (
            "Bits per dimension",
            f'{shown_number(bits, 4)} <span class="unit">bits/dim</span>',
            meaning,
        )
    if (error := finite_number(evaluation.get("reconstruction_mse"))) is not None:
        meaning = (
            "Mean squared error per dimension of what the mean of q(z|x) decodes to, in the "
            "data's own unit, squared. Lower is better."
        )
        yield "Reconstruction error", f"{error:.4g}".replace("-", "−"), meaning
    if (active := finite_number(evaluation.get("active_units"))) is not None:
        total = finite_number(evaluation.get("latent_dim"))
        of = f" of {total:,.0f}" if total else ""
        meaning = "Latent dimensions whose mean varies with the data (variance above 0.01)."
        yield "Active units", f"{active:,.0f}{of}", meaning
    if (known := finite_number(evaluation.get("mutual_information"))) is not None:
        num = min(finite_number(evaluation.get("num_examples")) or 2000, 2000)
        meaning = (
            "What the latents tell about which example they came from, I(x; z) under the encoder, "
            f"estimated on {num:,.0f} examples: at most the logarithm of their number, "
            f"{math.log(max(num, 1)):.2f}."
        )
        yield "Mutual information", _with_error(known, None, "nats"), meaning
    for key, fact in mapping_at(evaluation, "facts").items():
        label, meaning = FACTS.get(key, (escaped(key), "A number of the model itself."))
        if (number := finite_number(fact)) is not None:
            yield label, shown_number(number, 1), meaning


def baseline_rows(evaluation: Mapping[str, Any], _: bool) -> Iterator[Row]:
    """The log-likelihood of every simpler model that was fitted for comparison."""
    for name, baseline in mapping_at(evaluation, "baselines").items():
        part = baseline if isinstance(baseline, Mapping) else {}
        if (value := finite_number(part.get("log_likelihood"))) is not None:
            label = _named(name, part)
            kind = part.get("kind")
            how = {"exact": "Exact.", "lower bound": "A lower bound, on dequantised data."}
            meaning = f"Log-likelihood of a simpler model to beat. {how.get(str(kind), '')}"
            shown = _with_error(value, finite_number(part.get("standard_error")), "nats/example")
            yield f"Baseline: {label}", shown, meaning
