"""The commands that tell: models, datasets, doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lowerbound.tables import print_json, print_table

if TYPE_CHECKING:
    from lowerbound.build import Entry
    from lowerbound.presets import Preset

__all__ = ["DatasetsFlags", "DoctorFlags", "ModelsFlags", "datasets", "doctor", "models"]


@dataclass(frozen=True)
class ModelsFlags:
    """The models there are, and the literature's names for their settings."""

    json: bool = False
    """Print a JSON list."""
    debug: bool = False
    """Show where an error came from."""


def models(flags: ModelsFlags) -> None:
    """``lowerbound models``."""
    from lowerbound.build import MODELS
    from lowerbound.presets import PRESETS

    rows = [_row(name, entry, entry) for name, entry in MODELS.items()]
    for name, preset in PRESETS.items():
        settings = {**preset.options, **preset.training}
        row = _row(name, preset, MODELS[preset.model])
        rows.append(row | {"preset_of": preset.model, "settings": settings})
    if flags.json:
        print_json(rows)
        return
    print_table(
        [
            ("model", "what it is", "reference", "nats, MNIST"),
            *((r["name"], _sentence(r), r["reference"], _measured(r)) for r in rows),
        ]
    )
    print(
        "\nNats: log p(x) of the test images, binarised, by K = 100 samples, after recipes of "
        "different lengths\n(docs/models/presets.md); of vqvae and its presets the bound; of cvae "
        "log p(x|class). Where a model is for\nother data, bits/dim of the raw 8-bit images."
    )


def _row(name: str, about: Entry | Preset, entry: Entry) -> dict[str, Any]:
    """What is known of a model, or of a preset by what it is made of."""
    keys, of_model = ("summary", "reference", "nats"), ("is_likelihood", "samples", "conditional")
    own = {k: getattr(about, k) for k in keys} | {k: getattr(entry, k) for k in of_model}
    own["bits_per_dim"] = getattr(about, "bits_per_dim", None)
    return {"name": name, **own, "preset_of": None, "settings": {}}


def _sentence(row: dict[str, Any]) -> str:
    if row["preset_of"] is None:
        return str(row["summary"])
    flags = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in row["settings"].items())
    return f"{row['summary']} The same as {row['preset_of']} {flags}."


def _measured(row: dict[str, Any]) -> str:
    """The number of a row, with its unit where that is another."""
    if not row["is_likelihood"]:
        return "no likelihood"
    if row["nats"] is None:
        return "" if row["bits_per_dim"] is None else f"{row['bits_per_dim']:.3f} bits/dim"
    return f"{row['nats']:.2f}"


@dataclass(frozen=True)
class DatasetsFlags:
    """How data are named."""

    json: bool = False
    """Print a JSON list."""
    debug: bool = False
    """Show where an error came from."""


def datasets(flags: DatasetsFlags) -> None:
    """``lowerbound datasets``."""
    from lowerbound.data import DATASETS

    if flags.json:
        print_json([dict(zip(("name", "form", "summary"), row, strict=True)) for row in DATASETS])
    else:
        print_table([("data", "how to name it", "what it is"), *DATASETS])


@dataclass(frozen=True)
class DoctorFlags:
    """What this machine has, and whether a model can be trained on it."""

    json: bool = False
    """Print one JSON object."""
    debug: bool = False
    """Show where an error came from."""


def doctor(flags: DoctorFlags) -> int:
    """``lowerbound doctor``."""
    from lowerbound.doctor import examine

    facts = examine()
    if flags.json:
        print_json(facts)
    else:
        print_table([("what", "found"), *((k, str(v)) for k, v in facts.items())])
    return 0 if facts["verdict"] == "ready" else 1
