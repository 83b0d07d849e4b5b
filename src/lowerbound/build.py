"""From names to things: the one table of models, and how a model is built or loaded by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lowerbound.config import DIALS, nearest, validated
from lowerbound.errors import InputError, printable, refuse
from lowerbound.files import check_format_version, load_json, save_json
from lowerbound.presets import PRESETS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lowerbound.data import Context, Source
    from lowerbound.distributions import Support
    from lowerbound.models import Model

__all__ = [
    "MODELS",
    "Entry",
    "create_model",
    "has_no_context",
    "load_model",
    "model_entry",
    "options_class",
    "save_model",
]


PARTS = ("encoder", "decoder", "posterior", "prior", "embedding")
"""Modules that may take the place of ours."""


@dataclass(frozen=True)
class Entry:
    """What the table knows of a model without importing it."""

    path: str
    """Module and class, ``"lowerbound.models.vae:VAE"``."""
    options: str
    """Name of the options dataclass in the same module."""
    summary: str
    reference: str
    nats: float | None = None
    """Measured on the test images of dynamically binarised MNIST, by the recipe of its name: the
    log-likelihood by K = 100 samples; of quantised models, which have no weights, the bound; of a
    model that must be given the class, log p(x|class)."""
    bits_per_dim: float | None = None
    """Measured on the raw 8-bit test images of MNIST, by the recipe of its name."""
    is_likelihood: bool = True
    samples: bool = True
    context: Literal["never", "optional", "always"] = "never"
    """Whether the model can be given a context: one that can is of p(x) unless it is asked for."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the training configuration that suit it better than the usual ones."""

    @property
    def conditional(self) -> bool:
        """Whether the model can be given a context."""
        return self.context != "never"

    def usual(self, objective: str = "elbo", *, elbo_first: bool = False) -> dict[str, Any]:
        """`training` for an objective: without what weighs rates, where no elbo is climbed."""
        climbed = {objective, "elbo"} if elbo_first else {objective}
        return {k: v for k, v in self.training.items() if climbed & {*DIALS.get(k, climbed)}}

    def load(self) -> tuple[type[Model], type[Any]]:
        """The class and its options dataclass."""
        module_name, _, class_name = self.path.partition(":")
        module = importlib.import_module(module_name)
        return getattr(module, class_name), getattr(module, self.options)


MODELS: dict[str, Entry] = {
    "vae": Entry(
        "lowerbound.models.vae:VAE",
        "VAEOptions",
        "Variational autoencoder: any posterior, prior and likelihood; Gaussian unless said.",
        "Kingma and Welling, Auto-Encoding Variational Bayes, 2014",
        nats=-85.26,
    ),
    "cvae": Entry(
        "lowerbound.models.conditional:CVAE",
        "CVAEOptions",
        "Conditional VAE: given a class, a vector or a part of x; bound on log p(x|context).",
        "Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional "
        "Generative Models, 2015",
        nats=-79.98,
        context="always",
    ),
    "vqvae": Entry(
        "lowerbound.models.quantised:VQVAE",
        "VQVAEOptions",
        "Quantised autoencoder: codes of a finite set and a prior over them; a bound of a point.",
        "van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning, 2017",
        nats=-96.82,
        context="optional",
        training={"batch_size": 128, "learning_rate": 2e-3},
    ),
    "hvae": Entry(
        "lowerbound.models.hierarchical:HierarchicalVAE",
        "HierarchicalVAEOptions",
        "Hierarchical VAE: layers of latents, encoded bottom-up, generated top-down.",
        "Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016",
        nats=-83.83,
        context="optional",
    ),
    "ladder": Entry(
        "lowerbound.models.ladder:LadderVAE",
        "LadderOptions",
        "Ladder VAE: levels of latents on a residual path that posterior and prior share.",
        "Vahdat and Kautz, NVAE: A Deep Hierarchical Variational Autoencoder, 2020; Child, Very "
        "Deep VAEs, 2021",
        nats=-82.83,
        context="optional",
        training={
            "batch_size": 256,
            "learning_rate": 1.5e-3,
            "beta_warmup": 0.05,
            "kl_balancing": True,
        },
    ),
    "diffusion": Entry(
        "lowerbound.models.diffusion:Diffusion",
        "DiffusionOptions",
        "Diffusion: noise is added in many steps and taken away by a network; bound in 3 terms.",
        "Kingma, Salimans, Poole and Ho, Variational Diffusion Models, 2021",
        bits_per_dim=1.055,
        context="optional",
        training={"batch_size": 64, "learning_rate": 1e-3, "patience": 20},
    ),
    "ppca": Entry(
        "lowerbound.models.classical:ProbabilisticPCA",
        "PPCAOptions",
        "Probabilistic PCA: linear and Gaussian, fitted in closed form, exact log p(x).",
        "Tipping and Bishop, Probabilistic Principal Component Analysis, 1999",
        bits_per_dim=7.144,
    ),
    "mixture": Entry(
        "lowerbound.models.classical:GaussianMixture",
        "MixtureOptions",
        "Mixture of Gaussians: fitted by expectation maximisation, exact log p(x).",
        "Dempster, Laird and Rubin, Maximum Likelihood from Incomplete Data via the EM "
        "Algorithm, 1977",
        bits_per_dim=4.336,
    ),
    "autoencoder": Entry(
        "lowerbound.models.autoencoder:Autoencoder",
        "AutoencoderOptions",
        "Plain autoencoder: two networks and a squared error; not a likelihood.",
        "Hinton and Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006",
        is_likelihood=False,
        samples=False,
    ),
    "lda": Entry(
        "lowerbound.models.classical:LinearDiscriminants",
        "LDAOptions",
        "Linear discriminants: the projection that keeps labelled classes apart; not a "
        "likelihood.",
        "Fisher, The Use of Multiple Measurements in Taxonomic Problems, 1936",
        is_likelihood=False,
        samples=False,
    ),
    "dct": Entry(
        "lowerbound.models.classical:DCTCoder",
        "DCTOptions",
        "Transform coding by the discrete cosine transform; not a likelihood.",
        "Ahmed, Natarajan and Rao, Discrete Cosine Transform, 1974",
        is_likelihood=False,
        samples=False,
    ),
}


def model_entry(name: str) -> Entry:
    """The table's entry of a name, or a refusal with the nearest right one."""
    if name in PRESETS:
        raise refuse("model", "the name of a model", name, f"write {PRESETS[name].in_words()}")
    if name not in MODELS:
        remedy = nearest(name, [*MODELS, *PRESETS]) or f"presets: {', '.join(PRESETS)}"
        raise refuse("model", f"one of {', '.join(MODELS)}", name, remedy)
    return MODELS[name]


def options_class(name: str) -> type[Any]:
    """The options dataclass of a model; imports the model."""
    return model_entry(name).load()[1]


def create_model(
    name: str,
    event_shape_or_source: Sequence[int] | Source,
    *,
    support: Support | str | None = None,
    context: Context | None = None,
    seed: int = 0,
    **options: Any,
) -> Model:
    """Make a model by name for data of a shape, or for a source.

    Args:
        name: a name of `MODELS`.
        event_shape_or_source: shape of one example, or the `Source` itself; from a source the
            model also measures the scale of the training data.
        support: what values an element can take; a source knows its own. Without either the data
            are `Real`.
        context: what the model is given: `Classes`, `Vector` or `Mask`. A model that always has
            one takes that of the source unless said; others are of p(x) unless it is said.
        seed: of the initial weights.
        **options: fields of the model's options dataclass, or ``encoder=``, ``decoder=``,
            ``posterior=``, ``prior=`` and ``embedding=`` modules of your own.

    Returns:
        The model, untrained, in eval mode, in float32 (classical models in float64), on the CPU.

    Raises:
        InputError: an unknown name or option, a likelihood that does not fit the support, or a
            context for a model that has none.

    >>> import torch
    >>> model = create_model("vae", (3,), latent_dim=2)
    >>> model.bound(torch.zeros(5, 3)).value.shape
    torch.Size([5])
    """
    from lowerbound._random import initialised_by
    from lowerbound.data import Source
    from lowerbound.distributions import Real, parse_support

    model_class, options_type = model_entry(name).load()
    parts = {k: options.pop(k) for k in PARTS if not isinstance(options.get(k, ""), str)}
    for part in set(parts).difference(inspect.signature(model_class.build).parameters):  # type: ignore[attr-defined]
        raise refuse(part, f"left out for a '{name}'", type(parts[part]).__name__)
    chosen = validated(options_type, options, f"the options of model '{name}'")
    source = event_shape_or_source if isinstance(event_shape_or_source, Source) else None
    if isinstance(support, str):
        support = parse_support(support)
    if isinstance(event_shape_or_source, Source):
        shape = event_shape_or_source.event_shape
        support = _of_source("support", support, event_shape_or_source.support)
    else:
        shape = tuple(int(n) for n in event_shape_or_source)
    if not shape or min(shape) < 1:
        raise refuse("event_shape", "at least one axis, none of them empty", shape)
    given = _context_for(name, context, source)
    with initialised_by(seed):
        model: Model = model_class.build(shape, support or Real(), chosen, **parts, **given)  # type: ignore[attr-defined]
    if source is not None:
        model.calibrate(source)
    return model.eval()


def _of_source(name: str, given: Any, own: Any) -> Any:
    """What a source knows of itself; something else is refused."""
    if given not in (None, own):
        raise refuse(name, f"the source's own, {own}", given)
    return own


def _context_for(name: str, context: Context | None, source: Source | None) -> dict[str, Any]:
    """The context that a model is built with; nothing for one that has none."""
    kind = model_entry(name).context
    if kind == "never":
        if context is not None:
            raise has_no_context("context", name, context)
        return {}
    if source is not None and (context is not None or kind == "always"):
        context = _of_source("context", context, source.context)
    return {"context": context}


def has_no_context(asked: str, name: str, given: Any) -> InputError:
    """The refusal of a context for a model that is never given one."""
    others = ", ".join(n for n, entry in MODELS.items() if entry.conditional)
    remedy = f"add --model cvae; conditional is: {others}"
    return refuse(asked, f"left out for a '{name}', a model of p(x)", given, remedy)


def save_model(folder: Path, model: Model) -> None:
    """Write model.safetensors and config.json, from which `load_model` rebuilds the model.

    A model with networks of the user's own is loaded with ``lowerbound.load(folder, model=…)``.
    """
    from safetensors.torch import save

    from lowerbound.files import atomic_output

    tensors = _apart({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()})
    with atomic_output(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
    save_json(
        folder / "config.json",
        {
            "format_version": 1,
            "library": "lowerbound",
            "model": model.name,
            "event_shape": list(model.event_shape),
            "support": str(model.support),
            "context": None if model.context is None else model.context.document(),
            "options": None if model.options is None else asdict(model.options),
        },
    )


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none in another's memory: tied weights are written under each name."""
    owners: dict[int, str] = {}
    for name, tensor in tensors.items():
        owners.setdefault(tensor.untyped_storage().data_ptr(), name)
    return {k: t if k in owners.values() else t.clone() for k, t in tensors.items()}


def load_model(folder: Path | str, model: nn.Module | None = None) -> Model:
    """The model of a run folder, in eval mode, with averaged weights.

    Args:
        folder: a run folder, or any folder with model.safetensors and config.json.
        model: a model to load the weights into, where its networks are the user's own.

    Raises:
        InputError: no model there, a newer format, or weights that do not fit.
    """
    folder = Path(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file() or not (folder / "config.json").is_file():
        shown = printable(folder)
        if (folder / "config.yaml").is_file():
            raise InputError(
                f"'{shown}' is a run that is not finished; continue it with "
                f"`lowerbound train --resume {shown}`"
            )
        reason = "has no model.safetensors" if folder.is_dir() else "does not exist"
        raise InputError(f"'{shown}' {reason}; give the folder of a run of `lowerbound train`")
    document = load_json(folder / "config.json")
    check_format_version(document, folder / "config.json")
    loaded = model if model is not None else _built(document, folder / "config.json")
    load_weights(loaded, weights)
    loaded.eval()
    return loaded  # type: ignore[return-value]


def _built(document: dict[str, Any], path: Path) -> Model:
    from lowerbound.data import context_from
    from lowerbound.distributions import parse_support

    context = context_from(document.get("context"))
    try:
        shape = [int(n) for n in document["event_shape"]]
        support, options = parse_support(document["support"]), dict(document["options"] or {})
        name = str(document["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{printable(path)}' is not a model's config.json: {error!r}") from error
    return create_model(name, shape, support=support, context=context, **options)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model from a safetensors file that must name exactly its tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"'{printable(path)}' cannot be read: {printable(error)}") from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = printable(" ".join(str(error).split()), 160)
        raise InputError(
            f"'{printable(path)}' does not fit the model: {reason}; "
            "a model with your own networks is loaded with model=…"
        ) from error
