"""Presets: the literature's names for settings of the models there are.

A name such as ``iwae`` is no model of its own: it is the VAE with another objective. The command
``lowerbound train --model iwae`` writes model and settings into config.yaml, resolved; a program
says them to `create_model` and `fit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PRESETS", "Preset", "with_preset"]


@dataclass(frozen=True)
class Preset:
    """A name for settings.

    Args:
        model: a name of the table of models.
        summary: one sentence.
        reference: authors, title, year.
        options: those of the model that are not its defaults.
        training: fields of the training configuration that are not its defaults.
        nats: measured as for `lowerbound.build.Entry`.
    """

    model: str
    summary: str
    reference: str
    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    nats: float | None = None

    def in_words(self) -> str:
        """What to write in a program.

        >>> PRESETS["iwae"].in_words()
        "create_model('vae', …) and fit(…, objective='iwae', num_samples=5)"
        """
        options = "".join(f", {k}={v!r}" for k, v in self.options.items())
        training = "".join(f", {k}={v!r}" for k, v in self.training.items())
        fit = f" and fit(…{training})" if training else ""
        return f"create_model('{self.model}', …{options}){fit}"


_IWAE = "Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016"
_DIP = (
    "Kumar, Sattigeri and Balakrishnan, Variational Inference of Disentangled Latent Concepts "
    "from Unlabeled Observations, 2018"
)

PRESETS: dict[str, Preset] = {
    "iwae": Preset(
        "vae",
        "VAE trained by the importance-weighted bound of 5 samples.",
        _IWAE,
        training={"objective": "iwae", "num_samples": 5},
        nats=-86.41,
    ),
    "dreg": Preset(
        "vae",
        "VAE trained by the same bound with doubly reparameterised gradients.",
        "Tucker, Lawson, Gu and Maddison, Doubly Reparameterized Gradient Estimators for Monte "
        "Carlo Objectives, 2019",
        training={"objective": "dreg", "num_samples": 5},
        nats=-85.14,
    ),
    "beta-vae": Preset(
        "vae",
        "VAE whose rate counts four times while it is trained.",
        "Higgins et al., beta-VAE: Learning Basic Visual Concepts with a Constrained Variational "
        "Framework, 2017",
        training={"beta": 4.0},
        nats=-98.04,
    ),
    "beta-tcvae": Preset(
        "vae",
        "VAE with a penalty on the total correlation of its codes.",
        "Chen, Li, Grosse and Duvenaud, Isolating Sources of Disentanglement in Variational "
        "Autoencoders, 2018",
        options={"penalty": "total-correlation", "penalty_weight": 5.0},
        nats=-104.98,
    ),
    "infovae": Preset(
        "vae",
        "VAE with a penalty on the kernel distance of its codes from the prior.",
        "Zhao, Song and Ermon, InfoVAE: Balancing Learning and Inference in Variational "
        "Autoencoders, 2019",
        options={"penalty": "mmd", "penalty_weight": 999.0},
        nats=-90.07,
    ),
    "dip-vae-i": Preset(
        "vae",
        "VAE with a penalty on the covariance of its codes' means.",
        _DIP,
        options={"penalty": "dip-i", "penalty_weight": 10.0},
        nats=-94.08,
    ),
    "dip-vae-ii": Preset(
        "vae",
        "VAE with a penalty on the covariance of its codes.",
        _DIP,
        options={"penalty": "dip-ii", "penalty_weight": 10.0},
        nats=-90.82,
    ),
    "vampprior-vae": Preset(
        "vae",
        "VAE whose prior is a mixture of posteriors at learned pseudo-inputs.",
        "Tomczak and Welling, VAE with a VampPrior, 2018",
        options={"prior": "vamp"},
        nats=-85.13,
    ),
    "flow-prior-vae": Preset(
        "vae",
        "VAE whose prior is a normalising flow of affine couplings.",
        "Dinh, Sohl-Dickstein and Bengio, Density Estimation using Real NVP, 2017",
        options={"prior": "flow"},
        nats=-82.70,
    ),
    "vlae": Preset(
        "vae",
        "VAE whose prior is an autoregressive flow.",
        "Chen et al., Variational Lossy Autoencoder, 2017",
        options={"prior": "autoregressive"},
        nats=-84.74,
    ),
    "iaf-vae": Preset(
        "vae",
        "VAE whose posterior is a Gaussian moved by inverse autoregressive steps.",
        "Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016",
        options={"posterior": "iaf"},
        nats=-87.13,
    ),
    "rvq-vae": Preset(
        "vqvae",
        "VQ-VAE with four codebooks, each for what the last has left over.",
        "Zeghidour et al., SoundStream: An End-to-End Neural Audio Codec, 2021",
        options={"quantiser": "rvq"},
        nats=-106.51,
    ),
    "fsq-vae": Preset(
        "vqvae",
        "VQ-VAE whose codes are rounded numbers, without a codebook.",
        "Mentzer, Minnen, Agustsson and Tschannen, Finite Scalar Quantization: VQ-VAE Made "
        "Simple, 2024",
        options={"quantiser": "fsq"},
        nats=-94.76,
    ),
}
"""Every preset by name."""


def with_preset(
    name: str, values: Mapping[str, Any], *, named_after: bool = False
) -> tuple[str, dict[str, Any]]:
    """The model behind a name, and a configuration with the settings of the name.

    Args:
        name: of a model or a preset.
        values: of a configuration file, or nothing; what they say of another model's options is
            dropped.
        named_after: whether the name was given after the file, and so wins over it.

    Returns:
        The model's name, and the values.
    """
    preset = PRESETS.get(name)
    model = preset.model if preset else name
    same = values.get("model", model) in (name, model)
    given = {k: v for k, v in values.items() if same or k not in ("preset", "options")}
    if preset is None:
        return model, {**given, "model": model}
    parts = [(preset.training, preset.options), (given, given.pop("options", None) or {})]
    if named_after:
        parts.reverse()
    training = {k: v for part, _ in parts for k, v in part.items()}
    options = {k: v for _, part in parts for k, v in part.items()}
    return model, {**training, "options": options, "model": model, "preset": name}
