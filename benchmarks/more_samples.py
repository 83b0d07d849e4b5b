"""What more importance samples would say of a run's log-likelihood, where judging all takes hours.

log p(x) ≥ E[L_K], and the more samples K the tighter. With K = 100 all test images are judged when
a run ends (its evaluation.json); here the mean gain from K = 100 to K = 5000 is measured on 500
test images, the same ones for every run (a permutation by seed 0), and added. Its standard error
is of the differences, which scatter far less than the images.

    python benchmarks/more_samples.py RUN … [--from 100] [--to 5000] [--images 500]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
import yaml

from lowerbound import load, load_data, log_likelihood
from lowerbound._random import permutation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--from", dest="few", type=int, default=100)
    parser.add_argument("--to", dest="many", type=int, default=5000)
    parser.add_argument("--images", type=int, default=500)
    given = parser.parse_args()
    print(f"| run | K = {given.few}, all | gain to K = {given.many} | together |")
    print("|---|---|---|---|")
    for run in given.runs:
        print(row(run, given), flush=True)


def row(run: Path, given: argparse.Namespace) -> str:
    """One line of the table."""
    model = load(run)
    judged = json.loads((run / "evaluation.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    how = {name: config[name] for name in ("binarize", "image_size", "labels", "layout")}
    if config["condition"] not in ("auto", "none"):
        how["condition"] = config["condition"]
    test = load_data(config["data"], seed=config["data_seed"], **how).test
    rows = permutation(len(test), "judged rows", 0)[: given.images].sort().values
    x, context = test[rows]
    known = {} if model.context is None else {"context": context}
    few, many = (
        log_likelihood(model, x, num_samples=num, **known).value.double()
        for num in (given.few, given.many)
    )
    gain, error = mean_and_error(many - few)
    found = judged["split"], judged["num_examples"], judged["log_likelihood"]["num_samples"]
    if found != ("test", len(test), given.few):
        shown = "{} {:,} examples, K = {}"
        wanted = shown.format("test", len(test), given.few)
        raise SystemExit(f"{run}: evaluation.json is of {shown.format(*found)}; needed: {wanted}")
    value, spread = judged["log_likelihood"]["value"], judged["log_likelihood"]["standard_error"]
    both = math.hypot(spread, error)
    return (
        f"| {run.name} | {value:.2f} ± {spread:.2f} | {gain:.3f} ± {error:.3f} "
        f"| {value + gain:.2f} ± {both:.2f} |"
    )


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """Mean and standard error of numbers (n,)."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


if __name__ == "__main__":
    main()
