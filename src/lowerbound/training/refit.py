"""A prior that is fitted afterwards, to the codes of a model that is trained already.

    E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)):  of its terms only E_q[log p(z)] knows the prior

so that with encoder and decoder as they are, raising the bound is fitting p(z) by maximum
likelihood to draws from q(z|x) of the training set. The best prior is the average of all q(z|x);
samples then come from where codes are.

References:
    Hoffman and Johnson, ELBO surgery, 2016.
    Tomczak and Welling, VAE with a VampPrior, 2018.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from lowerbound._random import initialised_by
from lowerbound.config import TrainingConfig, nearest, validated
from lowerbound.data import Source
from lowerbound.engine import make_engine
from lowerbound.errors import refuse
from lowerbound.evaluation import Judge
from lowerbound.models import VAE, Model
from lowerbound.models.options import prior_of
from lowerbound.models.priors import PriorName
from lowerbound.objectives import Bound, Noise
from lowerbound.training.logs import Console
from lowerbound.training.loop import MAX_VALIDATION_ROWS, fit_model

__all__ = ["PriorFit", "fit_prior"]

NUM_SAMPLES = 8  # draws per validation example
OF_PRIOR = ("prior_components", "prior_layers", "flow_width")


@dataclass(frozen=True)
class PriorFit:
    """What `fit_prior` gives back.

    Args:
        model: with the new prior, or the old model where the new prior is no better.
        before: mean bound of the validation set with the old prior, nats.
        after: the same with the new one, from the same draws.
    """

    model: VAE
    before: float
    after: float

    @property
    def is_better(self) -> bool:
        """Whether the new prior was taken."""
        return self.after > self.before


def fit_prior(
    model: Model, source: Source, kind: str = "flow", *, quiet: bool = True, **options: Any
) -> PriorFit:
    """Fit a prior to the codes of a trained VAE; networks and likelihood stay as they are.

    Args:
        model: a VAE, which is not changed.
        source: what it was trained on; the validation split decides.
        kind: mixture, vamp, flow or autoregressive.
        quiet: no progress.
        **options: sizes of the prior (``prior_components``, ``prior_layers``, ``flow_width``), and
            how it is trained: fields of `TrainingConfig` such as ``steps`` and ``seed``.

    Raises:
        InputError: a model that is no VAE, another kind, or an option that is not known.
    """
    if not isinstance(model, VAE) or model.options is None:
        raise refuse("model", "a vae or cvae of `create_model`", model.name)
    kinds = [name for name in get_args(PriorName) if name != "normal"]
    if kind not in kinds:
        raise refuse("kind", f"one of {', '.join(kinds)}", kind, nearest(kind, kinds))
    sizes = {name: options.pop(name) for name in OF_PRIOR if name in options}
    known = {field.name for field in fields(TrainingConfig)} - {"objective", "num_samples"}
    for name in options:
        if name not in known:
            raise refuse(name, "a size of the prior or an option of training", options[name])
    config = validated(TrainingConfig, options, "the options of fit_prior")
    new = _with_prior(model, source, kind, sizes, config.seed)
    rate = _Rate(new)
    fit_model(rate, source, config, console=Console(quiet))
    for parameter in new.parameters():
        parameter.requires_grad_(True)
    before, after = _judged(model, new, source)
    fitted = PriorFit(new if after > before else model, before, after)
    fitted.model.eval()
    return fitted


def _with_prior(model: VAE, source: Source, kind: str, sizes: dict[str, Any], seed: int) -> VAE:
    """A copy of the model whose prior is a new one of this kind."""
    new = copy.deepcopy(model)
    new.options = replace(model.options, prior=kind, **sizes)
    with initialised_by(seed):
        prior = prior_of(new.options, new.event_shape)
    new.prior = prior.to(new.likelihood.shift)
    prior.attach(new)
    prior.calibrate(source)
    return new


def _judged(old: VAE, new: VAE, source: Source) -> tuple[float, float]:
    """Mean bounds of the validation set, nats; both KLs from the same draws."""
    old = copy.deepcopy(old).eval()
    old.kl = "sampled"
    engine = make_engine(str(new.calibrated.device))
    judge = Judge(source.validation, engine, MAX_VALIDATION_ROWS, num_samples=NUM_SAMPLES)
    before, after = (judge(model.to(engine.device))["bound"] for model in (old, new))
    return before, after


class _Rate(Model):
    """The rate of a VAE alone, as something to train: of its parameters, the prior's.

    Args:
        model: the VAE.
    """

    name: ClassVar[str] = "prior"

    def __init__(self, model: VAE) -> None:
        super().__init__(model.event_shape, model.support)
        self.model, self.context = model, model.context
        model.requires_grad_(False)
        model.prior.requires_grad_(True)
        self.calibrated.fill_(True)

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """That of the VAE."""
        return self.model.noise(batch_size, num_samples, generator)

    def bound(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        num_samples: int = 1,
        noise: Noise | None = None,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """The sampled rate, and no reconstruction, which is what it was."""
        noise, vae = self._given(x, num_samples, noise, generator), self.model
        with torch.no_grad():
            q = vae.encode(x, context)
            z = q.rsample(noise["z"])
            log_q = q.log_prob(z)
        rate = (log_q - vae.prior.log_prob(z, context)).mean(0)
        return Bound(torch.zeros_like(rate), {"kl": rate})

    def sample(
        self,
        num: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """That of the VAE."""
        return self.model.sample(num, context, generator=generator, mean=mean)
