"""A run as one self-contained HTML page: what it achieved, in words, numbers and pictures.

The page needs nothing but itself: style inline, pictures as base64, no script, no network; its
content security policy forbids both. Whatever came from a user is escaped. A file that a run does
not have is a section that the page does not have.
"""

from __future__ import annotations

import base64
import io
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lowerbound.errors import InputError, LowerboundError, refuse
from lowerbound.files import MAX_TEXT_BYTES, check_format_version, load_json, save_text
from lowerbound.plots import training_figure

__all__ = ["write_report"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PNG = b"\x89PNG\r\n\x1a\n"
MODELS = {  # names as a sentence says them
    "ppca": "probabilistic PCA with as many latents",
    "mixture": "a mixture of Gaussians",
    "lda": "latent Dirichlet allocation",
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
KINDS = {
    "exact": "The log-likelihood itself, without approximation.",
    "lower bound": "A tighter lower bound on log p(x) than the one above.",
    "estimate": "An estimate of log p(x) that may err on either side.",
}
PICTURES = {
    "samples.png": (
        "Samples",
        "Draws from the model, and their means",
        "What the model makes of nothing but its prior. Draws carry the noise of p(x|z), means "
        "do not. If they resemble the data, the model has understood something of them.",
    ),
    "reconstructions.png": (
        "Reconstructions",
        "Examples beside their reconstructions",
        "Examples after encoding and decoding. What is lost is what the latents did not carry.",
    ),
    "latents.png": (
        "Latents",
        "Scatter of the latents beside a scatter of the data",
        "Each point is an example, placed by its latents; beside it the same examples placed by "
        "the principal components of the data. Labels, where there are any, colour the points; "
        "the model has not seen them unless it is conditional.",
    ),
    "interpolations.png": (
        "Interpolations",
        "Decoded steps between pairs of examples",
        "Straight lines through the latent space from one example to another, decoded on the "
        "way. Plausible steps mean a latent space without holes.",
    ),
    "plane.png": (
        "The latent plane",
        "Grid of decoded points of the latent plane",
        "What each point of the two-dimensional latent space decodes to, spaced so that every "
        "cell is equally likely under the prior.",
    ),
    "training.png": (
        "Training",
        "Curves of the bound, and of rate against distortion",
        "Left, the bound over the steps. Right, the two halves of the bound against each other: "
        "nats paid for the latents (rate) and nats still missing (distortion).",
    ),
}


def write_report(folder: Path | str) -> Path:
    """Write ``report.html`` into a run folder, from whichever of the run's files exist.

    Args:
        folder: A run folder. Read are config.yaml, evaluation.json, metrics.jsonl and the
            pictures; all numbers are nats per example unless the page says otherwise.

    Returns:
        The path of the page.

    Raises:
        InputError: ``folder`` is no folder, or evaluation.json is damaged or too new.
        ResourceError: the page could not be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise refuse("folder", "a run folder", folder, "train one with lowerbound train")
    evaluation = _evaluation(folder / "evaluation.json")
    config = _config(folder / "config.yaml")
    rows = _rows(folder / "metrics.jsonl")
    name = folder.resolve().name
    subjects = [evaluation.get(key, config.get(key)) for key in ("model", "data")]
    title = " on ".join(str(subject) for subject in subjects if subject) or name
    density = _is_density(evaluation, config)
    sections = [
        f"<header><h1>{_text(title)}</h1>{_facts(evaluation)}</header>",
        f'<p class="verdict">{_verdict(evaluation, density)}</p>',
        _notes(evaluation.get("notes")),
        _section("Numbers", _ladder(evaluation) + _table(evaluation, density)),
        *_pictures(folder, rows),
        _configuration(config),
        _repeat(name),
    ]
    path = folder / "report.html"
    save_text(path, _page(title, "\n".join(filter(None, sections))))
    return path


# --- reading --------------------------------------------------------------------------------


def _evaluation(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    document = load_json(path)
    check_format_version(document, path)
    return document


def _config(path: Path) -> dict[str, Any]:
    """The configuration as a flat mapping; ``options.latent_dim`` for nested keys."""
    if not path.exists():
        return {}
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise refuse(path, "a YAML file of at most 1 MB", f"{path.stat().st_size} bytes")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"'{path}' cannot be read as YAML: {type(error).__name__}") from error
    flat: dict[str, Any] = {}
    for key, value in (document if isinstance(document, dict) else {}).items():
        nested = value if isinstance(value, dict) else {}
        flat |= {f"{key}.{inner}": item for inner, item in nested.items()}
        flat |= {} if nested else {str(key): value}
    return flat


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; a line cut short by a crash is passed over."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows


def _is_density(evaluation: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether the nats are nats of a density: real data, or a probability above one."""
    bound, _ = _headline(evaluation)
    support = evaluation.get("support") or config.get("support")
    return support == "real" or (bound is not None and bound > 0)


# --- words and numbers ----------------------------------------------------------------------


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _number(value: object) -> float | None:
    """A finite number, or None for whatever else a file may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A nested object, empty where the file has null or something else."""
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _shown(value: float, decimals: int = 2) -> str:
    """A number with a true minus sign and separated thousands."""
    return f"{value:,.{decimals}f}".replace("-", "−")


def _with_error(value: float, error: float | None, unit: str) -> str:
    """Value ± standard error, with as many decimals as the error has meaning."""
    decimals = 2 if not error else min(max(1 - math.floor(math.log10(abs(error))), 2), 5)
    spread = "" if error is None else f" ± {_shown(error, decimals)}"
    return f'{_shown(value, decimals)}{spread} <span class="unit">{unit}</span>'


def _headline(evaluation: Mapping[str, Any]) -> tuple[float | None, str]:
    """The best statement on log p(x) that was measured, and what kind of statement it is."""
    likelihood = _part(evaluation, "log_likelihood")
    value = _number(likelihood.get("value"))
    if value is not None:
        return value, str(likelihood.get("kind", "estimate"))
    return _number(_part(evaluation, "bound").get("value")), "lower bound"


def _verdict(evaluation: Mapping[str, Any], density: bool) -> str:
    """What came out, in one or two sentences."""
    if not evaluation:
        return "This run has not been judged yet."
    value, kind = _headline(evaluation)
    num = _number(evaluation.get("num_examples"))
    split = _text(evaluation.get("split", "held-out"))
    where = f"On {num:,.0f} {split} examples" if num else f"On the {split} examples"
    if value is None:
        reason = _text(evaluation.get("reason", "not a likelihood"))
        return f"This model is {reason}: it assigns no probability, so no bound is stated."
    degree = {"exact": "exactly", "lower bound": "at least"}.get(kind, "about")
    of_density = " of density" if density else ""
    text = (
        f"{where} this model assigns {degree} <strong>{_shown(value, 1)} nats{of_density}</strong>"
        f" per example on average{_bits(evaluation, value, kind, density)}."
    )
    return " ".join([text, *_comparisons(evaluation, value, kind)])


def _bits(evaluation: Mapping[str, Any], value: float, kind: str, density: bool) -> str:
    """The verdict's value in bits per dimension, found from that of the bound."""
    bits = _number(evaluation.get("bits_per_dim"))
    bound = _number(_part(evaluation, "bound").get("value"))
    if density or not bits or not bound:
        return ""
    most = {"exact": "", "lower bound": "at most "}.get(kind, "about ")
    return f", {most}{_shown(bits * value / bound, 3)} bits per dimension"


def _comparisons(evaluation: Mapping[str, Any], value: float, kind: str) -> Iterator[str]:
    """A sentence for each baseline; "at least" only where both sides allow it."""
    for name, baseline in _part(evaluation, "baselines").items():
        other = _number(baseline.get("log_likelihood")) if isinstance(baseline, Mapping) else None
        if other is None:
            continue
        better = value >= other
        sure = kind == "lower bound" and baseline.get("kind") == "exact" and better
        amount = f"{'at least ' if sure else ''}{_shown(abs(value - other), 1)} nats"
        label = _text(MODELS.get(name, name))
        yield f"That is {amount} {'better' if better else 'worse'} than {label}."


def _facts(evaluation: Mapping[str, Any]) -> str:
    """The line under the title."""
    facts = []
    if num := _number(evaluation.get("num_examples")):
        facts.append(f"{num:,.0f} {_text(evaluation.get('split', ''))} examples")
    if (parameters := _number(evaluation.get("parameters"))) is not None:
        facts.append(f"{parameters:,.0f} parameters")
    if (seconds := _number(evaluation.get("seconds"))) is not None:
        facts.append(f"judged in {_shown(seconds, 1)} s")
    return f'<p class="facts">{" · ".join(facts)}</p>' if facts else ""


def _notes(notes: object) -> str:
    items = notes if isinstance(notes, list) else []
    listed = "".join(f"<li>{_text(note)}</li>" for note in items)
    return f'<aside aria-label="Notes"><ul>{listed}</ul></aside>' if listed else ""


# --- the table ------------------------------------------------------------------------------


def _ladder(evaluation: Mapping[str, Any]) -> str:
    """Bound, likelihood and baselines as points on one axis of nats."""
    points = {"This model's bound": _number(_part(evaluation, "bound").get("value"))}
    likelihood = _part(evaluation, "log_likelihood")
    points["This model's log-likelihood"] = _number(likelihood.get("value"))
    for name, baseline in _part(evaluation, "baselines").items():
        if isinstance(baseline, Mapping):
            label = MODELS.get(name, name)
            points[label[:1].upper() + label[1:]] = _number(baseline.get("log_likelihood"))
    known = sorted((v, k) for k, v in points.items() if v is not None)
    if len(known) < 2:
        return ""
    low, span = known[0][0], (known[-1][0] - known[0][0]) or 1.0
    items = "".join(
        f'<li class="{"ours" if name.startswith("This") else "other"}"><span>{_text(name)}</span>'
        f'<span class="track"><i style="left:{100 * (value - low) / span:.1f}%"></i></span>'
        f"<span>{_shown(value)}</span></li>"
        for value, name in known
    )
    caption = "Nats per example, further right is better"
    return f'<figure class="ladder"><ol>{items}</ol><figcaption>{caption}</figcaption></figure>'


def _table(evaluation: Mapping[str, Any], density: bool) -> str:
    """All numbers of evaluation.json, each with its unit and what it means."""
    parts = (_bound_rows, _likelihood_rows, _other_rows, _baseline_rows)
    rows = [row for part in parts for row in part(evaluation, density)]
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row">{name}</th><td class="value">{value}</td><td>{meaning}</td></tr>'
        for name, value, meaning in rows
    )
    head = "".join(f'<th scope="col">{h}</th>' for h in ("Quantity", "Value", "What it says"))
    caption = "Means over examples; ± is one standard error over examples"
    return (
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


Row = tuple[str, str, str]


def _bound_rows(evaluation: Mapping[str, Any], density: bool) -> Iterator[Row]:
    bound = _part(evaluation, "bound")
    value = _number(bound.get("value"))
    if value is None:
        if evaluation:
            reason = _text(evaluation.get("reason", "not a likelihood"))
            yield "Lower bound", "none", f"The model is {reason}, so no probability is stated."
        return
    meaning = (
        "What the model is trained and judged by: log p(x) is at least this. Higher is better."
    )
    if density:
        meaning += " The data are real numbers, so this is a density: it depends on their unit."
    if (noise := _number(bound.get("monte_carlo_error"))) is not None:
        meaning += f" Drawing the latents anew would move it by about {_shown(noise, 3)} nats."
    error = _number(bound.get("standard_error"))
    yield "Lower bound on log p(x)", _with_error(value, error, "nats/example"), meaning
    for key, term in _part(bound, "terms").items():
        level = key.removeprefix("kl_")
        nested = (f"KL of level {_text(level)} (rate)", "What this level of latents costs.")
        label, meaning = TERMS.get(key, nested if level != key else (_text(key), "Subtracted."))
        if (number := _number(term)) is not None:
            yield f'<span class="term">{label}</span>', _with_error(number, None, "nats"), meaning


def _likelihood_rows(evaluation: Mapping[str, Any], _: bool) -> Iterator[Row]:
    likelihood = _part(evaluation, "log_likelihood")
    value = _number(likelihood.get("value"))
    if value is not None:
        kind, draws = likelihood.get("kind"), _number(likelihood.get("num_samples"))
        meaning = KINDS.get(str(kind), KINDS["estimate"])
        if draws and kind != "exact":
            meaning += f" From K = {draws:,.0f} draws per example."
        error = _number(likelihood.get("standard_error"))
        shown = _with_error(value, error, "nats/example")
        yield "Log-likelihood", shown, f"{meaning} Higher is better."
        if (effective := _number(likelihood.get("effective_sample_size"))) is not None:
            of = f'<span class="unit">of {draws:,.0f} draws</span>' if draws else ""
            meaning = (
                "How many of the draws count. Near 1, the log-likelihood is loose; more is better."
            )
            yield "Effective sample size", f"{_shown(effective, 1)} {of}", meaning
    if (gap := _number(evaluation.get("gap"))) is not None:
        meaning = "Log-likelihood minus bound: what imperfect inference loses. Lower is better."
        yield "Gap", _with_error(gap, None, "nats"), meaning


def _other_rows(evaluation: Mapping[str, Any], density: bool) -> Iterator[Row]:
    if (bits := _number(evaluation.get("bits_per_dim"))) is not None:
        meaning = "The bound as a length: −bound / (D ln 2). Lower is better."
        if density:
            meaning += " Of a density: it may be negative, and is no file size."
        else:
            meaning += " Close to what a perfect compressor built on the model would need."
        yield (
            "Bits per dimension",
            f'{_shown(bits, 4)} <span class="unit">bits/dim</span>',
            meaning,
        )
    if (error := _number(evaluation.get("reconstruction_mse"))) is not None:
        meaning = "Mean squared error per dimension, in the data's own unit. Lower is better."
        yield "Reconstruction error", f"{error:.4g}".replace("-", "−"), meaning
    if (active := _number(evaluation.get("active_units"))) is not None:
        total = _number(evaluation.get("latent_dim"))
        of = f" of {total:,.0f}" if total else ""
        meaning = "Latent dimensions that respond to the data; the others only repeat the prior."
        yield "Active units", f"{active:,.0f}{of}", meaning


def _baseline_rows(evaluation: Mapping[str, Any], _: bool) -> Iterator[Row]:
    for name, baseline in _part(evaluation, "baselines").items():
        part = baseline if isinstance(baseline, Mapping) else {}
        if (value := _number(part.get("log_likelihood"))) is not None:
            label = str(MODELS.get(name, name))
            kind = part.get("kind")
            how = {"exact": "Exact.", "lower bound": "A lower bound, on dequantised data."}
            meaning = f"Log-likelihood of a simpler model to beat. {how.get(str(kind), '')}"
            shown = _with_error(value, _number(part.get("standard_error")), "nats/example")
            yield f"Baseline: {_text(label)}", shown, meaning


# --- pictures, configuration, page ----------------------------------------------------------


def _pictures(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for file, (heading, alt, caption) in PICTURES.items():
        path = folder / file
        content = path.read_bytes() if path.is_file() else b""
        if not content and file == "training.png":
            content = _training_picture(rows)
        if file == "training.png":
            caption = f"{caption} {_progress(rows)}".strip()
        if content.startswith(PNG):
            # At 150 dots per inch, two thirds of the pixels give all pictures one text size.
            width, height = (int.from_bytes(content[i : i + 4]) * 2 // 3 for i in (16, 20))
            source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            image = f'<img src="{source}" width="{width}" height="{height}" alt="{alt}">'
            shown = f'<div class="card">{image}</div><figcaption>{caption}</figcaption>'
            yield _section(heading, f"<figure>{shown}</figure>")


def _training_picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The training figure drawn here for a run that has its metrics but not the picture."""
    try:
        figure = training_figure(rows)
    except LowerboundError:  # no row with a finite number: nothing to show
        return b""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def _progress(rows: Sequence[Mapping[str, Any]]) -> str:
    """How long the run took, and where it was best."""
    timed = [row for row in rows if _number(row.get("step")) and _number(row.get("seconds"))]
    if not timed:
        return ""
    last = timed[-1]
    return f"The run took {last['step']:,} steps and {_shown(last['seconds'], 0)} seconds."


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{content}</section>" if content else ""


def _configuration(config: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{_text(key)}</code></th>'
        f"<td><code>{_text(value)}</code></td></tr>"
        for key, value in config.items()
        if value is not None
    )
    head = '<thead><tr><th scope="col">Key</th><th scope="col">Value</th></tr></thead>'
    table = f'<table class="config">{head}<tbody>{rows}</tbody></table>'
    summary = "<summary>Every setting of this run</summary>"
    return _section("Configuration", f"<details>{summary}{table}</details>" if rows else "")


def _repeat(name: str) -> str:
    run, config = _text(shlex.quote(name)), _text(shlex.quote(f"{name}/config.yaml"))
    commands = f"lowerbound train --config {config}\nlowerbound evaluate {run}"
    text = "<p>From the folder that holds this run: train it again, or judge it again.</p>"
    return _section("Repeat it", f"{text}<pre><code>{commands}</code></pre>")


def _page(title: str, body: str) -> str:
    style = resources.files("lowerbound").joinpath("report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(title)} – lowerbound</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<footer>Written by lowerbound. A nat is the natural unit of information: 1.4427 bits.</footer>
</body>
</html>
"""
