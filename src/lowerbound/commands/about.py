"""The commands that tell: models, datasets, doctor."""

from __future__ import annotations

from dataclasses import dataclass

from lowerbound.tables import print_json, print_table

__all__ = ["DatasetsFlags", "DoctorFlags", "ModelsFlags", "datasets", "doctor", "models"]


@dataclass(frozen=True)
class ModelsFlags:
    """The models there are."""

    json: bool = False
    """Print a JSON list."""
    debug: bool = False
    """Show where an error came from."""


def models(flags: ModelsFlags) -> None:
    """``lowerbound models``."""
    from lowerbound.build import MODELS

    keys = ("summary", "reference", "nats", "is_likelihood", "samples", "conditional")
    rows = [{"name": n} | {k: getattr(e, k) for k in keys} for n, e in MODELS.items()]
    if flags.json:
        print_json(rows)
        return
    nats = [(r["name"], r["summary"], r["reference"], r["nats"]) for r in rows]
    print_table(
        [
            ("model", "what it is", "reference", "test nats, binarised MNIST"),
            *((n, s, ref, "" if v is None else f"{v:.2f}") for n, s, ref, v in nats),
        ]
    )


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
