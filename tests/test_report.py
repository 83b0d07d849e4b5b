"""The page of a run is whole, safe, and true to its files."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from lowerbound.errors import InputError
from lowerbound.plots import save_figure, training_figure
from lowerbound.report import write_report

VOID = {"meta", "img", "br", "link"}
EVALUATION = {
    "format_version": 1,
    "model": "vae",
    "data": "digits",
    "split": "test",
    "num_examples": 10000,
    "unit": "nats/example",
    "parameters": 2100000,
    "seconds": 12.3,
    "bound": {
        "value": -87.9,
        "standard_error": 0.25,
        "monte_carlo_error": 0.02,
        "terms": {"reconstruction": -62.1, "kl": 25.8},
    },
    "log_likelihood": {
        "value": -84.6,
        "standard_error": 0.24,
        "num_samples": 100,
        "effective_sample_size": 6.2,
        "kind": "lower bound",
    },
    "gap": 3.3,
    "bits_per_dim": 0.1618,
    "reconstruction_mse": 0.0123,
    "active_units": 22,
    "latent_dim": 40,
    "baselines": {"ppca": {"log_likelihood": -110.2, "kind": "exact"}},
    "notes": ["The test split is small."],
}
ROWS = [{"kind": "train", "step": i, "seconds": i / 10, "bound": -90.0 - 1 / i} for i in (1, 2)]


class Checker(HTMLParser):
    """Collects tags and checks that each that opens also closes."""

    def __init__(self):
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page(folder, evaluation=EVALUATION, config="model: vae\noptions:\n  latent_dim: 40\n"):
    if evaluation is not None:
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "config.yaml").write_text(config)
    path = write_report(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def words(html):
    body = html.split("<body>")[1]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace(" .", ".")


def test_page_is_well_formed_and_needs_nothing_but_itself(tmp_path):
    save_figure(training_figure(ROWS), tmp_path / "samples.png")
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + '\n{"kind": "tr')
    html = page(tmp_path)
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    names = [name for name, _ in checker.tags]
    assert not {"script", "link", "iframe", "object"} & set(names)
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    pictures = [attrs for name, attrs in checker.tags if name == "img"]
    assert len(pictures) == 2  # samples.png, and the training figure drawn from the metrics
    assert all(p["src"].startswith("data:image/png;base64,") and p["alt"] for p in pictures)


def test_every_number_is_there_in_its_unit(tmp_path):
    text = words(page(tmp_path))
    for expected in (
        "−87.90 ± 0.25 nats/example",
        "0.020 nats",
        "−62.10 nats",
        "25.80 nats",
        "−84.60 ± 0.24 nats/example",
        "K = 100",
        "6.2 of 100 draws",
        "3.30 nats",
        "0.1618 bits/dim",
        "0.0123",
        "22 of 40",
        "−110.20 nats/example",
        "10,000 test examples",
        "2,100,000 parameters",
        "12.3 s",
        "The test split is small.",
        "options.latent_dim",
        f"lowerbound evaluate {tmp_path.name}",
    ):
        assert expected in text


def test_verdict_says_it_in_words(tmp_path):
    text = words(page(tmp_path))
    assert "On 10,000 test examples this model assigns at least −84.6 nats per example" in text
    assert "at most 0.156 bits per dimension" in text
    assert "at least 25.6 nats better than probabilistic PCA." in text


def test_worse_than_the_baseline_is_said_so(tmp_path):
    baselines = {"ppca": {"log_likelihood": -80.0, "kind": "exact"}}
    text = words(page(tmp_path, {**EVALUATION, "baselines": baselines}))
    assert "That is 4.6 nats worse than probabilistic PCA" in text


def test_real_data_are_called_a_density(tmp_path):
    text = words(page(tmp_path, config="support: real\n"))
    assert "nats of density" in text
    assert "Of a density: it may be negative" in text
    assert "perfect compressor" not in text


def test_hostile_names_are_shown_and_not_obeyed(tmp_path):
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    evaluation = {**EVALUATION, "data": hostile, "notes": [hostile], "split": hostile}
    evaluation["baselines"] = {hostile: {"log_likelihood": -100.0, "kind": hostile}}
    evaluation["bound"] = {"value": -87.9, "terms": {hostile: 1.0, f"kl_{hostile}": 2.0}}
    html = page(tmp_path, evaluation, config=json.dumps({hostile: hostile}))
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html


def test_a_model_that_is_no_likelihood_gets_no_nats(tmp_path):
    evaluation = {
        key: EVALUATION[key] for key in ("format_version", "model", "split", "reconstruction_mse")
    }
    evaluation |= {"bound": None, "log_likelihood": None, "reason": "not a likelihood"}
    html = page(tmp_path, {**evaluation, "bits_per_dim": None, "gap": None, "baselines": {}})
    text = words(html.split("<footer>")[0])
    assert "This model is not a likelihood" in text
    assert "nats" not in text
    assert "0.0123" in text


@pytest.mark.parametrize("value", [None, float("nan"), "x", True, [1]])
def test_a_missing_number_is_a_missing_row(tmp_path, value):
    text = words(page(tmp_path, {**EVALUATION, "bits_per_dim": value, "gap": value}))
    assert "Bits per dimension" not in text
    assert "nan" not in text


def test_an_empty_folder_has_a_page(tmp_path):
    text = words(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "This run has not been judged yet." in text
    assert tmp_path.name in text
    assert "Latents" not in text


def test_pictures_stand_in_order_and_what_is_no_png_is_left_out(tmp_path):
    names = ["samples", "reconstructions", "latents", "interpolations", "plane"]
    for name in names:
        save_figure(training_figure(ROWS), tmp_path / f"{name}.png")
    (tmp_path / "latents.png").write_text("<svg onload=alert(1)>")
    headings = re.findall("<h2>(.*?)</h2>", page(tmp_path))
    assert headings == [
        *["Numbers", "Samples", "Reconstructions", "Interpolations", "The latent plane"],
        *["Configuration", "Repeat it"],
    ]


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="'folder' must be a run folder"):
        write_report(tmp_path / "gone")
    with pytest.raises(InputError, match="upgrade lowerbound"):
        page(tmp_path, {**EVALUATION, "format_version": 99})
    with pytest.raises(InputError, match="cannot be read as YAML"):
        page(tmp_path, config="a: [")
    assert not (tmp_path / "report.html").exists()


def test_a_loose_baseline_and_a_closed_form_are_called_what_they_are(tmp_path):
    baselines = {"ppca": {"log_likelihood": -110.2, "kind": "lower bound", "latent_dim": 40}}
    text = words(page(tmp_path, {**EVALUATION, "baselines": baselines}))
    assert "better than the bound of probabilistic PCA with 40 latents on dequantised data" in text
    assert "at least 25.6" not in text
    likelihood = {"value": -84.6, "standard_error": 0.2, "num_samples": None}
    closed = {**likelihood, "effective_sample_size": None, "kind": "lower bound"}
    text = words(page(tmp_path, {**EVALUATION, "log_likelihood": closed}))
    assert "The bound itself, which this model has in closed form." in text
    assert "Effective sample size" not in text


def test_prior_monte_carlo_information_and_advice_are_told(tmp_path):
    prior = {"value": -212.4, "standard_error": 0.8, "num_samples": 100}
    new = {
        "prior_monte_carlo": prior | {"effective_sample_size": 1.3},
        "mutual_information": 7.25,
        "diagnosis": "Only <1> latent is used; take fewer.",
    }
    html = page(tmp_path, EVALUATION | new)
    text = words(html)
    for expected in ("−212.40 ± 0.80 nats/example", "Of 100 draws 1.3 count", "7.25 nats"):
        assert expected in text
    assert "Only &lt;1&gt; latent is used; take fewer.</p>" in html
    old = words(page(tmp_path))
    for absent in ("Prior Monte Carlo", "Mutual information", "None"):
        assert absent not in old


def test_the_decomposition_is_shown_first(tmp_path):
    for name in ("decomposition", "samples"):
        save_figure(training_figure(ROWS), tmp_path / f"{name}.png")
    headings = re.findall("<h2>(.*?)</h2>", page(tmp_path))
    assert headings[:3] == ["Numbers", "What the bound leaves out", "Samples"]


def test_the_gap_to_an_exact_evidence_is_the_whole_gap(tmp_path):
    text = words(page(tmp_path))
    assert "what imperfect inference loses at least." in text
    exact = EVALUATION["log_likelihood"] | {"kind": "exact"}
    text = words(page(tmp_path, EVALUATION | {"log_likelihood": exact}))
    assert "what imperfect inference loses." in text
