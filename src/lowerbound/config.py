"""The configuration of one run: what is trained on what, for how long and how.

Every field is a flag of ``lowerbound train``, a key of config.yaml and an argument of
`lowerbound.fit` under the same name. Nothing here imports torch, so that ``--help`` is instant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from lowerbound.errors import InputError, printable, refuse
from lowerbound.files import MAX_TEXT_BYTES

__all__ = [
    "DIALS",
    "LENGTHS",
    "PLACES",
    "RunConfig",
    "TrainingConfig",
    "load_config",
    "nearest",
    "validated",
]

DEFAULT_STEPS = 5_000
DEFAULT_EPOCHS = 300
DEFAULT_IMPORTANCE_SAMPLES = 8
T = TypeVar("T")
Objective = Literal["elbo", "iwae", "stl", "dreg", "miwae", "piwae", "ciwae", "prior-monte-carlo"]
DIALS: dict[str, tuple[Objective, ...]] = {
    "beta": ("elbo",),
    "beta_warmup": ("elbo",),
    "free_bits": ("elbo",),
    "kl_balancing": ("elbo",),
    "num_groups": ("miwae", "piwae"),
    "mix": ("ciwae",),
}
"""Options that only some objectives read; for the others they stay at their default."""
LENGTHS = ("epochs", "steps", "minutes")
"""Options of which one at most says how long a run is."""
CONDITIONS = ("auto", "none", "labels", "mask", "mask:1", "mask:2", "mask:3")
FORMAT_VERSION = 2
"""Of config.yaml; since 2 a condition is one that was asked for."""
PLACES = ("device", "devices", "strategy", "logger")
"""Options that say where a run is and who watches, not what it is: a resume may change them."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained."""

    epochs: float | None = None
    """Length of the run in passes over the training set."""
    steps: int | None = None
    """Length of the run in optimiser steps; without any length 300 epochs, at most 5,000 steps."""
    minutes: float | None = None
    """Length of the run in minutes of training and validation."""
    seed: int = 0
    """Everything random in training follows from it."""
    objective: Objective = "elbo"
    """What is maximised: the bound, or a tighter one by importance weights."""
    num_samples: int | None = None
    """Samples per example and step: 1 for the elbo, K = 8 for the other objectives unless said."""
    elbo_first: float = 0.0
    """Share of the run, at its start, that climbs the elbo of one sample, whatever the objective:
    many samples are worth their time once the model is nearly there."""
    num_groups: int = 1
    """Groups into which miwae and piwae divide the samples; with 1 they are iwae."""
    mix: float = 0.0
    """Share of the elbo in ciwae; with 0 it is iwae."""
    beta: float = 1.0
    """Factor of the KL term in the elbo; the reported bound never has it."""
    beta_warmup: float = 0.0
    """Share of the run over which beta rises from 0."""
    free_bits: float = 0.0
    """Nats per latent dimension that cost nothing in the elbo."""
    kl_balancing: bool = False
    """While beta rises, weigh the KL of each level of a hierarchy by its share of them all, so
    that no level is given up before it has learned anything."""
    batch_size: int = 512
    """Examples per step."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW; a cosine takes it to zero."""
    warmup: float = 0.02
    """Share of the run over which the learning rate rises."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    clip: float = 200.0
    """Largest norm of the gradient of the mean loss; longer ones are scaled down."""
    skip_norm: float | None = None
    """Norm of the gradient above which a step is skipped altogether; none unless said. It counts
    as skipped, and not as a sign that the run diverges."""
    average: float = 0.999
    """Decay per step of the averaged weights, which are what is judged and saved."""
    validations: int = 20
    """How often a run is validated, and a checkpoint saved."""
    patience: int = 10
    """Validations without a better bound after which training stops."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto is the first accelerator there is."""
    devices: int = 1
    """Devices per machine, one process for each; they share every batch."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """What several devices hold: ddp the whole model each, fsdp a share of weights, gradients and
    moments, for models that are too large for one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of the networks' matrix work; likelihoods and KLs are always float32. auto is bf16 where
    the processor or device multiplies it natively."""
    logger: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Dashboards that are told what metrics.jsonl gets; none of them unless named."""
    compile: Literal["auto", "always", "never"] = "auto"
    """Compile the training step; auto does where a run is long enough to pay for it: on a GPU, and
    on a CPU for a few dense layers or a U-Net in bf16. Needs a C++ compiler on a CPU."""

    def __post_init__(self) -> None:
        given = [n for n in LENGTHS if getattr(self, n) is not None]
        if len(given) > 1:
            raise InputError(f"'{given[0]}' and '{given[1]}' exclude each other; give one length")
        for name in given:
            _check(self, name, "above 0", lambda v: v > 0)
        if self.num_samples is not None:
            _check(self, "num_samples", "at least 1", lambda v: v >= 1)
        if self.skip_norm is not None:
            _check(self, "skip_norm", "above 0", lambda v: v > 0)
        for name in ("num_groups", "batch_size", "validations", "patience", "devices"):
            _check(self, name, "at least 1", lambda v: v >= 1)
        for name in ("beta", "free_bits", "weight_decay"):
            _check(self, name, "0 or more", lambda v: v >= 0)
        for name in ("learning_rate", "clip"):
            _check(self, name, "above 0", lambda v: v > 0)
        for name in ("beta_warmup", "warmup", "mix", "elbo_first"):
            _check(self, name, "from 0 to 1", lambda v: 0 <= v <= 1)
        _check(self, "average", "from 0 to below 1", lambda v: 0 <= v < 1)
        _check(self, "seed", "0 or more", lambda v: v >= 0)
        _check_objective(self)
        _check(
            self,
            "precision",
            "auto, float32 or bf16",
            lambda v: v in ("auto", "float32", "bf16"),
        )

    @property
    def samples(self) -> int:
        """``num_samples``, or what the objective asks for: of one sample L_K is the elbo."""
        if self.num_samples is not None:
            return self.num_samples
        return 1 if self.objective == "elbo" else DEFAULT_IMPORTANCE_SAMPLES

    def samples_at(self, progress: float) -> int:
        """Samples of a step at ``progress`` in [0, 1]."""
        return 1 if progress < self.elbo_first else self.samples

    def objective_at(self, progress: float) -> Objective:
        """What a step at ``progress`` in [0, 1] climbs."""
        return "elbo" if progress < self.elbo_first else self.objective

    @property
    def climbed(self) -> list[tuple[Objective, str | None]]:
        """What is climbed, in turn, each with the option that weighs its rates, by name."""
        if self.elbo_first and self.objective != "elbo":
            return [("elbo", self._reweighing), (self.objective, None)]
        return [(self.objective, self._reweighing)]

    @property
    def _reweighing(self) -> str | None:
        """The option that weighs rates, by name; None where the bound is climbed as it is."""
        if self.kl_balancing:
            return "kl_balancing"
        if self.beta_warmup:
            return "beta_warmup"
        return "beta" if self.beta != 1.0 else None


def _check(config: Any, name: str, required: str, holds: Any) -> None:
    value = getattr(config, name)
    # NaN fails every comparison, which is what we want of it.
    if not holds(value):
        raise refuse(name, required, value)


def _check_objective(config: TrainingConfig) -> None:
    """A known objective, with no dials but its own, whose groups divide the samples."""
    objective, known = config.objective, get_args(Objective)
    if objective not in known:
        remedy = nearest(str(objective), known)
        raise refuse("objective", f"one of {', '.join(known)}", objective, remedy)
    climbed = {name for name, _ in config.climbed}
    for dial, owners in DIALS.items():
        value, default = getattr(config, dial), getattr(TrainingConfig, dial)
        if not climbed.intersection(owners) and value != default:
            remedy = f"it belongs to {' and '.join(owners)}"
            raise refuse(dial, f"{default:g} for the objective {objective}", value, remedy)
    if config.kl_balancing and not config.beta_warmup:
        remedy = "balancing lasts as long as beta rises, for instance --beta-warmup 0.15"
        raise refuse("beta_warmup", "above 0 for --kl-balancing", config.beta_warmup, remedy)
    if objective == "elbo" and config.elbo_first:
        remedy = "name what comes after it, for instance --objective iwae"
        raise refuse("elbo_first", "0 for the objective elbo", config.elbo_first, remedy)
    if config.samples % config.num_groups:
        required = f"a divisor of the {config.samples} samples"
        raise refuse("num_groups", required, config.num_groups)


@dataclass(frozen=True)
class RunConfig(TrainingConfig):
    """One run of ``lowerbound train``: data, model, training."""

    data: str = "digits"
    """digits, mnist:DIR, fashion-mnist:DIR, folder:DIR, x.npz[:key], x.npy, t.csv, t.parquet,
    x.tar or hf:NAME."""
    binarize: Literal["none", "dynamic", "static", "threshold"] = "none"
    """Make pixels binary: drawn anew at every step, drawn once, or cut in the middle."""
    image_size: str | None = None
    """Resize and crop the images of a folder to N×N, or to HxW."""
    labels: str | None = None
    """Column of a table, or array of an npz file, that holds the labels."""
    support: str | None = None
    """What values the data take: binary, discrete:LEVELS, counts, real, unit, or product:… with
    one of them per column; detected unless said."""
    on_bad: Literal["error", "skip"] = "error"
    """What to do with images that cannot be read."""
    layout: Literal["auto", "arrays"] = "auto"
    """How the axes of .npy, .npz and columns are read: auto recognises images; arrays keeps them,
    channels first, so that (N, C, L) are sequences and (N, C, D, H, W) volumes."""
    condition: str = "auto"
    """What the model is given: labels; or a part of each image, mask (one to three quadrants,
    drawn for each), mask:1, mask:2 or mask:3 (always the same ones); or none. auto is labels for a
    model that always has a context, else none."""
    data_seed: int = 0
    """Of the splits, and of the binarisation and the masks of what is judged; never changes with
    --seed."""
    latents: Literal["pca", "tsne"] = "pca"
    """How more than two latents are drawn in a plane."""
    model: str = "vae"
    """Name of the model or preset; `lowerbound models` lists them."""
    preset: str | None = None
    """The name under which model and settings were asked for; it changes nothing."""
    options: Mapping[str, Any] | None = None
    """Options of the model; `lowerbound train --model NAME --help` lists them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ", ".join(CONDITIONS)
        _check(self, "condition", f"one of {known}", lambda v: v in CONDITIONS)

    def training(self) -> TrainingConfig:
        """The part of the configuration that `lowerbound.fit` takes."""
        return TrainingConfig(
            **{field.name: getattr(self, field.name) for field in fields(TrainingConfig)}
        )

    def to_yaml(self) -> str:
        """The text of config.yaml: every field, resolved."""
        import yaml

        document = {"format_version": FORMAT_VERSION, **asdict(self)}
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest right name, or an empty text.

    >>> nearest("latent_dims", ["latent_dim", "width"])
    "did you mean 'latent_dim'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{close[0]}'?" if close else ""


def validated(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from plain values, each checked against its type.

    Raises:
        InputError: an unknown key, with the nearest right one, or a value of the wrong type.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            hint = nearest(str(key), known) or f"known: {', '.join(sorted(known))}"
            raise InputError(f"{where} has an unknown key '{printable(key)}'; {hint}")
    strict = with_config(ConfigDict(extra="forbid"))(
        type(cls.__name__, (cls,), {"__annotations__": {}})
    )
    try:
        checked: Any = TypeAdapter(strict).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        own = first.get("ctx", {}).get("error")
        if isinstance(own, InputError):  # of the dataclass itself, which names what is wrong
            raise own from None
        name = ".".join(str(part) for part in first["loc"][:1])
        got = values.get(name, first.get("input"))
        raise InputError(
            f"'{name}' in {where} is not valid: {printable(first['msg'])}, got {printable(got)!r}"
        ) from error
    return cls(**{name: getattr(checked, name) for name in known})


def load_config(path: Path | str) -> dict[str, Any]:
    """Read a config.yaml as a plain mapping, without its format version.

    Raises:
        InputError: missing, too large, not YAML, not a mapping, or of a newer format.
    """
    import yaml

    path = Path(path)
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise refuse(path, "a configuration of at most 1 MB", f"{path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8")
        if any("&" in line.split("#")[0].split(" ") for line in text.splitlines()):
            raise refuse(path, "YAML without anchors", "one with an anchor")
        document = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"'{printable(path)}' cannot be read: {_reason(error)}") from error
    if not isinstance(document, dict):
        raise refuse(path, "a YAML mapping", type(document).__name__)
    is_ours = "format_version" in document
    version = document.pop("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        required = f"of format_version {FORMAT_VERSION} or older"
        raise refuse(path, required, version, "upgrade lowerbound")
    if is_ours and version < 2 and document.get("condition") == "labels":
        del document["condition"]  # it was the default of models of p(x) too
    return document


def _reason(error: Exception) -> str:
    """Why a configuration cannot be read, without its path and in one short line."""
    if isinstance(error, OSError):
        return printable(error.strerror or error)
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # a character that YAML does not allow
        return printable(str(error).partition("\n")[0])
    return f"line {mark.line + 1}: {printable(getattr(error, 'problem', error))}"
