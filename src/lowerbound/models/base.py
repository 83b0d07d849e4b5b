"""The promise of a model: a per-example `Bound` in nats, draws from p(x), and nothing hidden.

The rest of the library sees a model through this class alone. Whatever a model needs at random it
asks for beforehand, as `noise`: its bound is a deterministic function of (x, context, noise), so
that batch size, number of workers and resuming change nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lowerbound._random import generator_for
from lowerbound._shapes import num_elements, shown_shape
from lowerbound.data import Context, Source
from lowerbound.distributions import Distribution, Support
from lowerbound.errors import InputError, refuse
from lowerbound.objectives import Bound, Noise

__all__ = ["Draw", "Model", "concatenate_noise"]

NUMBERS_TOGETHER = 2**24  # of examples that are worked on at once: 64 MB in float32
OUTPUTS_TOGETHER = 2**27  # of what a decoder says of them


@dataclass(frozen=True)
class Draw:
    """Draws z_k ~ q(z|x) and what they weigh.

    Args:
        log_weight: log p(x, z_k) − log q(z_k|x), (K, B), nats.
        latents: the draws by name, each (K, B, …).
        log_likelihood: log p(x|z_k), (K, B), nats, where the model knows it apart.
    """

    log_weight: Tensor
    latents: dict[str, Tensor]
    log_likelihood: Tensor | None = None


def concatenate_noise(parts: Sequence[Noise]) -> dict[str, Tensor]:
    """Join noises along the batch: each tensor is (num_samples, batch_size, …)."""
    return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}


class Model(nn.Module, ABC):
    """Base of all models.

    Args:
        event_shape: shape of one example.
        support: what values an element can take.
    """

    name: ClassVar[str]
    is_likelihood: ClassVar[bool] = True
    has_encoder: ClassVar[bool] = True
    can_sample: ClassVar[bool] = True
    """Whether there is a prior to draw from."""
    closed_form: ClassVar[bool] = False
    """Whether the bound is computed without samples, and is what is judged as log-likelihood."""
    has_weights: ClassVar[bool] = True
    """Whether `log_weight` is there, and with it L_K; without it the bound is all there is."""
    stratified: ClassVar[bool] = False
    """Whether the draws of one example share out what they are drawn from, in turn, and are not
    independent: their mean then varies less than their spread says."""
    context: Context | None = None
    """What every example is given: all nats are then of log p(x|context), and whoever judges hands
    over what a split gives beside x. None for a model of p(x), which is never handed any."""
    calibrated: Tensor

    def __init__(self, event_shape: Sequence[int], support: Support) -> None:
        super().__init__()
        self.event_shape, self.support = tuple(event_shape), support
        self.options: Any = None
        self.register_buffer("calibrated", torch.tensor(False))

    @property
    def dequantizes(self) -> bool:
        """Whether uniform noise makes a density of discrete data, at the cost of some nats."""
        return False

    # --- randomness -------------------------------------------------------------------------

    @abstractmethod
    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Every random tensor that `bound` and `draw` need, each (num_samples, batch_size, …)."""

    def judging_noise(
        self, rows: Iterable[int], num_samples: int = 1, seed: int = 0
    ) -> dict[str, Tensor]:
        """Noise of each row from (seed, row): how rows are batched changes nothing."""
        device = self.calibrated.device
        return concatenate_noise(
            [
                self.noise(1, num_samples, generator_for("judge", seed, row, device=device))
                for row in rows
            ]
        )

    def _given(
        self,
        x: Tensor,
        num_samples: int,
        noise: Noise | None,
        generator: torch.Generator | None,
    ) -> Noise:
        """The noise that was given, drawn by the generator, or the judging noise of seed 0.

        Raises:
            InputError: examples of another shape, which no network should be asked about.
        """
        self.check_shape(x)
        if noise is not None:
            return noise
        if generator is not None:
            return self.noise(len(x), num_samples, generator)
        return self.judging_noise(range(len(x)), num_samples)

    # --- the bound --------------------------------------------------------------------------

    @abstractmethod
    def bound(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        num_samples: int = 1,
        noise: Noise | None = None,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """The bound on log p(x|context) of each example.

        Args:
            x: examples (B, *event) in the units of the source.
            context: (B, …) or None.
            num_samples: Monte Carlo samples M per example; the reconstruction is their mean.
            noise: what `noise` gave; without noise and generator the judging noise of seed 0.
            generator: draws the noise where none is given.

        Returns:
            A `Bound` of (B,) tensors in nats.
        """

    def draw(
        self,
        x: Tensor,
        num_samples: int,
        context: Tensor | None = None,
        *,
        noise: Noise | None = None,
        path: bool = False,
    ) -> Draw:
        """Draws from q(z|x) with their importance weights.

        With ``path`` the parameters of q are detached inside log q (not inside z), which leaves
        the gradient along the sample's path alone.

        Raises:
            InputError: the model has no importance weights.
        """
        raise InputError(f"a model of kind '{self.name}' has no importance weights; use its bound")

    def log_joint(
        self, x: Tensor, latents: Mapping[str, Tensor], context: Tensor | None = None
    ) -> Tensor:
        """Log p(x, z) of examples (B, *event) at given latents, each (K, B, …): (K, B), nats.

        Raises:
            InputError: the model has no latents, or their density is not known.
        """
        raise InputError(f"a model of kind '{self.name}' has no log p(x, z); use its bound")

    def log_weight(
        self,
        x: Tensor,
        num_samples: int,
        context: Tensor | None = None,
        *,
        noise: Noise | None = None,
    ) -> Tensor:
        """Log p(x, z_k) − log q(z_k|x) for z_k ~ q(z|x): (K, B), nats."""
        return self.draw(x, num_samples, context, noise=noise).log_weight

    # --- generation -------------------------------------------------------------------------

    @abstractmethod
    def sample(
        self,
        num: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """Draws from p(x), or with ``mean`` the means of p(x|z) for z ~ p(z): (num, *event)."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> Distribution:
        """q(z|x)."""
        raise InputError(f"a model of kind '{self.name}' has no encoder")

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z) for latents (N, d)."""
        raise InputError(f"a model of kind '{self.name}' has no decoder")

    def draw_context(self, num: int, generator: torch.Generator | None = None) -> Tensor | None:
        """What `sample` takes where it is given no context, (num, …); None for a model of p(x)."""
        return None

    # --- training ---------------------------------------------------------------------------

    def dropped(self, context: Tensor | None, noise: Noise) -> Tensor | None:
        """What training gives in place of ``context`` (B, …), by the noise of the step."""
        return context

    def calibrate(self, source: Source) -> None:
        """Measure on the training set what the model must know of its scale; once.

        Raises:
            InputError: data with another context than the model is given, however often.
        """
        self.check_context(source.context)
        if not bool(self.calibrated):
            self._calibrate(source)
            self.calibrated.fill_(True)

    def _calibrate(self, source: Source) -> None:
        return

    def settle(self, source: Source) -> None:
        """Compute what judging needs from the training set, such as an optimal sigma."""
        return

    def take_in(self, observed: Mapping[str, Tensor], usable: Tensor, step: int) -> None:
        """Follow what a training step has seen, such as a codebook its vectors.

        Args:
            observed: of the step's `Bound`, the rows of this process.
            usable: a boolean tensor, the same in all processes; where it is false, the loss or a
                gradient was not finite, and nothing may change.
            step: number of the step, from which whatever is random follows.
        """
        return

    def facts(self) -> dict[str, float]:
        """Numbers of the model itself that a log of its training, or a judgement, should hold."""
        return {}

    def phases(self) -> list[tuple[str, list[nn.Parameter], float]]:
        """(name, parameters, share of the run) of each phase of training; the shares sum to 1."""
        return [("all", list(self.parameters()), 1.0)]

    @property
    def can_compile(self) -> bool:
        """Whether a compiled training step has the gradients of one that is not."""
        return True

    def check_objective(self, name: str, reweighing: str | None = None) -> None:
        """Refuse an objective that this model cannot be trained by.

        Args:
            name: of the objective.
            reweighing: the option that weighs the rates against each other or against the
                reconstruction, by name; None where the bound is climbed as it is.

        Raises:
            InputError: anything but the bound itself for a model that is fitted in closed form.
        """
        if name != "elbo" and type(self).fit_exactly is not Model.fit_exactly:
            required = f"elbo for a '{self.name}', which is fitted in closed form"
            raise refuse("objective", required, name)

    def advice(self, objective: str) -> list[str]:
        """What is right and yet costs more than it seems to: sentences before a training."""
        return []

    def fit_exactly(self, source: Source) -> bool:
        """Fit in closed form in place of the training loop; False where there is none."""
        return False

    def notes(self) -> list[str]:
        """Sentences that a reader of the model's nats should know."""
        return []

    def warnings(self) -> list[str]:
        """Sentences that whoever trains the model should read before, known once calibrated."""
        return []

    @property
    def evidence_kind(self) -> str:
        """What the log-likelihood is: ``"lower bound"``, ``"exact"`` or ``"estimate"``."""
        return "lower bound"

    @property
    def num_parameters(self) -> int:
        """Number of learned numbers."""
        return sum(p.numel() for p in self.parameters())

    def rows_together(self, most: int) -> int:
        """How many examples to work on at once: ``most``, or fewer where they are large.

        It depends on the shape of an event and on the likelihood's outputs per element alone, so
        that draws in blocks of so many are the same on every device.
        """
        size = num_elements(self.event_shape)
        outputs = size * getattr(getattr(self, "likelihood", None), "num_outputs", 1)
        return max(1, min(most, NUMBERS_TOGETHER // size, OUTPUTS_TOGETHER // outputs))

    def check_context(self, given: Context | None) -> None:
        """Refuse data with another context than this model is given; any do, for one of p(x)."""
        if self.context is not None:
            self.context.require(given, self.name)

    def check(self, x: Tensor, name: str = "x") -> None:
        """Refuse examples of another shape, or of values that the support does not hold."""
        self.check_shape(x, name)
        if not self.support.contains(x):
            raise refuse(
                name,
                f"{self.support} data",
                f"values from {float(x.min()):g} to {float(x.max()):g}",
                "prepare the data as for training (--binarize, --support)",
            )

    def check_latents(self, z: Tensor, size: int, name: str = "z") -> None:
        """Refuse latents that are not (N, size)."""
        if z.ndim != 2 or z.shape[1] != size:
            remedy = "encode examples, or draw them from the prior, of the same model"
            shown = shown_shape(z.shape) or "one number"
            raise refuse(name, f"latents of shape N×{size}", shown, remedy)

    def check_shape(self, x: Tensor, name: str = "x") -> None:
        """Refuse examples of another shape: a network would say less of it, or nothing at all."""
        if tuple(x.shape[1:]) != self.event_shape:
            raise refuse(
                name,
                f"examples of shape {shown_shape(self.event_shape)}",
                shown_shape(x.shape[1:]) or "scalars",
                "use the data, or the --image-size, that the model was trained with",
            )
