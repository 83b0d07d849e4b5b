"""A run as one self-contained HTML page: what it achieved, in words, numbers and pictures.

The page needs nothing but itself: style inline, pictures as base64, no script, no network; its
content security policy forbids both. Whatever came from a user is escaped. A file that a run does
not have is a section that the page does not have.
"""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lowerbound.distributions import parse_support
from lowerbound.errors import InputError, LowerboundError, refuse
from lowerbound.files import MAX_TEXT_BYTES, check_format_version, load_json, save_text
from lowerbound.plots import has_halves, training_figure
from lowerbound.report.captions import HALVES, OF_DIFFUSION, PICTURES
from lowerbound.report.sentences import (
    MODELS,
    baseline_rows,
    bound_rows,
    escaped,
    finite_number,
    headline,
    likelihood_rows,
    mapping_at,
    other_rows,
    prior_rows,
    shown_number,
    verdict,
)

__all__ = ["write_report"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PNG = b"\x89PNG\r\n\x1a\n"


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
        f"<header><h1>{escaped(title)}</h1>{_facts(evaluation)}</header>",
        f'<p class="verdict">{verdict(evaluation, density)}</p>',
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
    bound, _ = headline(evaluation)
    support = evaluation.get("support") or config.get("support")
    known = support is not None and not parse_support(support).is_discrete
    return known or (bound is not None and bound > 0)


# --- numbers --------------------------------------------------------------------------------


def _facts(evaluation: Mapping[str, Any]) -> str:
    """The line under the title."""
    facts = []
    if num := finite_number(evaluation.get("num_examples")):
        facts.append(f"{num:,.0f} {escaped(evaluation.get('split', ''))} examples")
    if (parameters := finite_number(evaluation.get("parameters"))) is not None:
        facts.append(f"{parameters:,.0f} parameters")
    if (seconds := finite_number(evaluation.get("seconds"))) is not None:
        facts.append(f"judged in {shown_number(seconds, 1)} s")
    return f'<p class="facts">{" · ".join(facts)}</p>' if facts else ""


def _notes(notes: object) -> str:
    items = notes if isinstance(notes, list) else []
    listed = "".join(f"<li>{escaped(note)}</li>" for note in items)
    return f'<aside aria-label="Notes"><ul>{listed}</ul></aside>' if listed else ""


def _ladder(evaluation: Mapping[str, Any]) -> str:
    """Bound, likelihood and baselines as points on one axis of nats."""
    points = {"This model's bound": finite_number(mapping_at(evaluation, "bound").get("value"))}
    likelihood = mapping_at(evaluation, "log_likelihood")
    points["This model's log-likelihood"] = finite_number(likelihood.get("value"))
    for name, baseline in mapping_at(evaluation, "baselines").items():
        if isinstance(baseline, Mapping):
            label = MODELS.get(name, name)
            points[label[:1].upper() + label[1:]] = finite_number(baseline.get("log_likelihood"))
    known = sorted((v, k) for k, v in points.items() if v is not None)
    if len(known) < 2:
        return ""
    low, span = known[0][0], (known[-1][0] - known[0][0]) or 1.0
    items = "".join(
        f'<li class="{"ours" if name.startswith("This") else "other"}">'
        f"<span>{escaped(name)}</span>"
        f'<span class="track"><i style="left:{100 * (value - low) / span:.1f}%"></i></span>'
        f"<span>{shown_number(value)}</span></li>"
        for value, name in known
    )
    caption = "Nats per example, further right is better"
    return f'<figure class="ladder"><ol>{items}</ol><figcaption>{caption}</figcaption></figure>'


def _table(evaluation: Mapping[str, Any], density: bool) -> str:
    """All numbers of evaluation.json, each with its unit and what it means."""
    parts = (prior_rows, bound_rows, likelihood_rows, other_rows, baseline_rows)
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


# --- pictures, configuration, page ----------------------------------------------------------


def _pictures(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    others = OF_DIFFUSION if any("diffusion" in row for row in rows) else {}
    for file, (heading, alt, usual) in PICTURES.items():
        caption = others.get(file, usual)
        path = folder / file
        content = path.read_bytes() if path.is_file() else b""
        if not content and file == "training.png":
            content = _training_picture(rows)
        if file == "training.png":
            halves = HALVES if has_halves(rows) else ""
            caption = " ".join(filter(None, (caption, halves, _progress(rows))))
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
    timed = [
        row for row in rows if finite_number(row.get("step")) and finite_number(row.get("seconds"))
    ]
    if not timed:
        return ""
    last = timed[-1]
    return f"The run took {last['step']:,} steps and {shown_number(last['seconds'], 0)} seconds."


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{content}</section>" if content else ""


def _configuration(config: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{escaped(key)}</code></th>'
        f"<td><code>{escaped(value)}</code></td></tr>"
        for key, value in config.items()
        if value is not None
    )
    head = '<thead><tr><th scope="col">Key</th><th scope="col">Value</th></tr></thead>'
    table = f'<table class="config">{head}<tbody>{rows}</tbody></table>'
    summary = "<summary>Every setting of this run</summary>"
    return _section("Configuration", f"<details>{summary}{table}</details>" if rows else "")


def _repeat(name: str) -> str:
    run, config = escaped(shlex.quote(name)), escaped(shlex.quote(f"{name}/config.yaml"))
    commands = f"lowerbound train --config {config}\nlowerbound evaluate {run}"
    text = "<p>From the folder that holds this run: train it again, or judge it again.</p>"
    return _section("Repeat it", f"{text}<pre><code>{commands}</code></pre>")


def _page(title: str, body: str) -> str:
    style = resources.files("lowerbound.report").joinpath("report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)} – lowerbound</title>
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
