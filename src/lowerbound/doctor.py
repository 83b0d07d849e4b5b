"""What this machine has, for `lowerbound doctor` and for bug reports."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from typing import Any

__all__ = ["examine"]

PACKAGES = (
    "torch",
    "numpy",
    "safetensors",
    "pillow",
    "scikit-learn",
    "matplotlib",
    "tyro",
    "pydantic",
)


def examine() -> dict[str, Any]:
    """Facts by name; ``"verdict"`` is ``"ready"`` where a model can be trained here."""
    import torch

    from lowerbound import __version__
    from lowerbound.engine import resolve_device
    from lowerbound.training.compiling import find_compiler
    from lowerbound.training.step import resolve_precision

    device = resolve_device("auto")
    facts: dict[str, Any] = {
        "lowerbound": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in PACKAGES},
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "precision": resolve_precision("auto", device),
        "compiler": find_compiler() or "none (needed for --compile on a CPU alone)",
        "free disk": f"{shutil.disk_usage('.').free / 1e9:.1f} GB",
    }
    try:
        facts["verdict"] = _one_step()
    except Exception as error:
        facts["verdict"] = f"a training step failed: {error}"
    return facts


def _one_step() -> str:
    """Train one step on digits, which exercises everything that training needs."""
    from lowerbound.build import create_model
    from lowerbound.data import load_data
    from lowerbound.run import fit

    source = load_data("digits")
    fit(create_model("vae", source, width=16, latent_dim=2), source, steps=1, quiet=True)
    return "ready"
