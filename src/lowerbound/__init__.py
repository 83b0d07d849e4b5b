"""Latent-variable generative models trained and judged by one number: a lower bound on log p(x).

>>> import lowerbound
>>> source = lowerbound.load_data("digits")
>>> model = lowerbound.create_model("vae", source, latent_dim=8)
>>> bound = model.bound(source.test[:4][0])
>>> bound.value.shape  # nats, one per example
torch.Size([4])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lowerbound.build import create_model
    from lowerbound.build import load_model as load
    from lowerbound.data import Classes, Mask, Rows, Source, Vector, load_data
    from lowerbound.distributions import Binary, Counts, Discrete, Product, Real, Unit
    from lowerbound.errors import LowerboundError
    from lowerbound.evaluation import evaluate, log_likelihood
    from lowerbound.models import Draw, Model
    from lowerbound.objectives import Bound
    from lowerbound.run import fit
    from lowerbound.training.refit import PriorFit, fit_prior

__version__ = "0.1.0"

_HOMES = {
    "create_model": "lowerbound.build",
    "load": "lowerbound.build:load_model",
    "Classes": "lowerbound.data",
    "Mask": "lowerbound.data",
    "Rows": "lowerbound.data",
    "Source": "lowerbound.data",
    "Vector": "lowerbound.data",
    "load_data": "lowerbound.data",
    "Binary": "lowerbound.distributions",
    "Counts": "lowerbound.distributions",
    "Discrete": "lowerbound.distributions",
    "Product": "lowerbound.distributions",
    "Real": "lowerbound.distributions",
    "Unit": "lowerbound.distributions",
    "LowerboundError": "lowerbound.errors",
    "evaluate": "lowerbound.evaluation",
    "log_likelihood": "lowerbound.evaluation",
    "Draw": "lowerbound.models",
    "Model": "lowerbound.models",
    "Bound": "lowerbound.objectives",
    "fit": "lowerbound.run",
    "PriorFit": "lowerbound.training.refit",
    "fit_prior": "lowerbound.training.refit",
}

__all__ = [
    "Binary",
    "Bound",
    "Classes",
    "Counts",
    "Discrete",
    "Draw",
    "LowerboundError",
    "Mask",
    "Model",
    "PriorFit",
    "Product",
    "Real",
    "Rows",
    "Source",
    "Unit",
    "Vector",
    "create_model",
    "evaluate",
    "fit",
    "fit_prior",
    "load",
    "load_data",
    "log_likelihood",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that the package itself is light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lowerbound' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
