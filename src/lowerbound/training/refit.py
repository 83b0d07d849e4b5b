"""A prior that is fitted afterwards, to the codes of a model that is trained already.

    E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)):  of its terms only E_q[log p(z)] knows the prior

so that with encoder and decoder as they are, raising the bound is fitting p(z) by maximum
likelihood to draws from q(z|x) of the training set. The best prior is the average of all q(z|x);
samples then come from where codes are.

Of a hierarchy it is the prior of the top level, in units of its Gaussian: all below is conditional
on what is above it, and has been learned with it.

References:
    Hoffman and Johnson, ELBO surgery, 2016.
    Tomczak and Welling, VAE with a VampPrior, 2018.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, get_args, get_type_hints

import torch
from torch import Tensor

from lowerbound._random import initialised_by
from lowerbound.config import TrainingConfig, nearest, validated
from lowerbound.data import Source
from lowerbound.engine import make_engine
from lowerbound.errors import refuse
from lowerbound.evaluation import Judge
from lowerbound.models import VAE, Hierarchy, Model, VAEOptions
from lowerbound.models.hierarchy import TopOptions
from lowerbound.models.options import prior_of
from lowerbound.models.priors import Prior, PriorName, TopPrior
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

    model: VAE | Hierarchy
    before: float
    after: float

    @property
    def is_better(self) -> bool:
        """Whether the new prior was taken."""
        return self.after > self.before


def fit_prior(
    model: Model, source: Source, kind: str = "flow", *, quiet: bool = True, **options: Any
) -> PriorFit:
    """Fit a prior to the codes of a trained model; networks and likelihood stay as they are.

    Args:
        model: a VAE or a hierarchy, which is not changed.
        source: what it was trained on; the validation split decides.
        kind: mixture, vamp, flow or autoregressive; of a hierarchy's top any but vamp.
        quiet: no progress.
        **options: sizes of the prior (``prior_components``, ``prior_layers``, ``flow_width``), and
            how it is trained: fields of `TrainingConfig` such as ``steps`` and ``seed``.

    Raises:
        InputError: a model without such codes, another kind, or an option that is not known.
    """
    if not isinstance(model, VAE | Hierarchy) or model.options is None:
        raise refuse("model", "a vae, cvae, hvae or ladder of `create_model`", model.name)
    is_vae = isinstance(model, VAE)
    names = get_args(PriorName if is_vae else get_type_hints(TopOptions)["prior"])
    kinds = [name for name in names if name != "normal"]
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


def _with_prior(
    model: VAE | Hierarchy, source: Source, kind: str, sizes: dict[str, Any], seed: int
) -> VAE | Hierarchy:
    """A copy of the model whose prior is a new one of this kind."""
    new = copy.deepcopy(model)
    if isinstance(new, VAE):  # a penalty has shaped the codes, which stay as they are
        sizes = {**sizes, "penalty": "none", "penalty_weight": VAEOptions.penalty_weight}
        del new.num_examples
        new.num_examples = None
    new.options = replace(model.options, prior=kind, **sizes)
    with initialised_by(seed):
        prior = _prior_for(new)
    new.prior = prior.to(new.likelihood.shift)
    if isinstance(new, VAE):
        prior.attach(new)
    prior.calibrate(source)
    return new


def _prior_for(model: VAE | Hierarchy) -> Prior:
    """The prior that the options of a model say."""
    options: Any = model.options
    if isinstance(model, VAE):
        return prior_of(options, model.event_shape)
    size = model.sizes[-1]
    return TopPrior(options.top(size), model.latent_dim, size)


def _judged(old: VAE | Hierarchy, new: VAE | Hierarchy, source: Source) -> tuple[float, float]:
    """Mean bounds of the validation set, nats; both KLs from the same draws."""
    old = copy.deepcopy(old).eval()
    if isinstance(old, VAE):
        old.kl = "sampled"
    engine = make_engine(str(new.calibrated.device))
    judge = Judge(source.validation, engine, MAX_VALIDATION_ROWS, num_samples=NUM_SAMPLES)
    before, after = (judge(model.to(engine.device))["bound"] for model in (old, new))
    return before, after


class _Rate(Model):
    """The rate of a model alone, as something to train: of its parameters, the prior's.

    Args:
        model: a VAE, or a hierarchy whose top has a learned prior.
    """

    name: ClassVar[str] = "prior"

    def __init__(self, model: VAE | Hierarchy) -> None:
        super().__init__(model.event_shape, model.support)
        self.model, self.context = model, model.context
        model.requires_grad_(False)
        model.prior.requires_grad_(True)
        self.calibrated.fill_(True)

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """That of the model."""
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
        """The part of the rate that knows the prior; all else is what it was."""
        noise, model = self._given(x, num_samples, noise, generator), self.model
        if isinstance(model, Hierarchy):
            assert isinstance(model.prior, TopPrior)
            with torch.no_grad():
                top = model.top_latents(x, noise, context)
            rate = -model.prior.gain(top).mean(0)
        else:
            with torch.no_grad():
                q = model.encode(x, context)
                z = q.rsample(noise["z"])
                log_q = q.log_prob(z)
            rate = (log_q - model.prior.log_prob(z, context)).mean(0)
        return Bound(torch.zeros_like(rate), {"kl": rate})

    def sample(
        self,
        num: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """That of the model."""
        return self.model.sample(num, context, generator=generator, mean=mean)
