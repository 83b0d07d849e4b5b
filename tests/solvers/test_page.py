"""The code on the page of the solvers runs and does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs" / "theory" / "solvers.md"


def test_the_code_of_the_page_samples_its_distribution():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    made: dict = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(code, made)
    # 20 steps leave 5 per cent of the variance, 1,000 draws another 4.5.
    assert abs(float(made["x"].var()) - 0.3) < 0.06
