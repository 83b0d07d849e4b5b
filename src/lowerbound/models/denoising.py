"""The promise of a model that makes data by taking noise away, level by level.

A network says what is clean in z_t at a level γ_t; which chain of levels leads from noise to data,
and by which solver, is chosen for each draw anew. What is diffused, x or a code of it, and what
the nats are, is said by the models themselves.

Given a context, the network sees an embedding of it; guidance moves what it says away from what it
says without. A part of x that is given is seen as it is, without noise.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from lowerbound.data import Context, Mask
from lowerbound.distributions import Distribution, Support
from lowerbound.errors import refuse
from lowerbound.models.chain import Step, log_ratio, step
from lowerbound.models.context import ContextModel
from lowerbound.models.sampling import Sampling, check_timesteps
from lowerbound.models.weightings import Weighting
from lowerbound.nn import Embedding
from lowerbound.noising import Denoised, Prediction, denoised
from lowerbound.schedules import Schedule
from lowerbound.solvers import Denoise, guided_pair, solve

__all__ = ["DenoisingModel"]

HIGHEST_LEVEL = 1000.0
USUAL = Sampling()


class DenoisingModel(ContextModel):
    """Base of the models whose draws come from noise by a denoiser.

    A model says what it diffuses (`scaled`) and what x is at the clean end (`clean`).

    Args:
        event_shape: shape of one example.
        support: what values an element can take.
        network: z (N, C, …), levels (N,) of 0 … 1000 and an embedding (N, E) or None -> (N, C, …),
            or twice as many channels where ``learn_variance``.
        schedule: γ of t.
        prediction: what the network says.
        timesteps: T, levels of a chain; None for continuous time.
        learn_variance: whether the network gives that of a chain's steps.
        sampling: how draws are made.
        context: what every example is given; None for a model of p(x).
        embedding: of that context, (B, …) -> (B, E).

    Raises:
        InputError: a chain of fewer than two levels, or a learned variance without one.
    """

    mean_square: Tensor
    weighting: Weighting = "bound"
    """Of the noise levels, for training alone."""

    def __init__(
        self,
        event_shape: Sequence[int],
        support: Support,
        network: nn.Module,
        schedule: Schedule,
        *,
        prediction: Prediction = "v",
        timesteps: int | None = None,
        learn_variance: bool = False,
        sampling: Sampling = USUAL,
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        super().__init__(event_shape, support, context, embedding)
        check_timesteps(timesteps, learn_variance=learn_variance)
        self.network, self.schedule, self.prediction = network, schedule, prediction
        self.timesteps, self.learn_variance = timesteps, learn_variance
        self.sampling = sampling
        # What the network calls 0 … 1000, whatever becomes of learned ends.
        self.level_range = float(schedule.gamma_0.detach()), float(schedule.gamma_1.detach())
        self.register_buffer("mean_square", torch.tensor(1.0))  # of y

    # --- the denoiser -----------------------------------------------------------------------

    def denoise(self, z: Tensor, gamma: Tensor, context: Tensor | None = None) -> Denoised:
        """x̂ and ε̂ of noisy examples, in the unit of the diffusion.

        Args:
            z: (N, *event).
            gamma: −log SNR of z, () or (N,).
            context: of each example (N, …), or None.
        """
        return self._denoise(z, gamma, self._given_context(context, len(z)))[0]

    def _denoise(
        self, z: Tensor, gamma: Tensor, context: Tensor | None, *beside: Tensor
    ) -> tuple[Denoised, Tensor | None]:
        """See `denoise`; beside it v in [0, 1] of a learned variance, (N, *event), or None.

        The embedding ``beside`` it may be given where it is known already.
        """
        gamma = gamma.to(z.dtype).expand(len(z))
        low, high = self.level_range
        level = (gamma - low) * (HIGHEST_LEVEL / (high - low))
        beside = beside or self._embedded(context)
        raw: Tensor = self.network(self._seen(z, context), level, *(beside or (None,)))
        raw = raw.to(z.dtype)  # a network in halves ends here
        v = None
        if self.learn_variance:
            raw, v = raw.chunk(2, dim=1)
            v = v.sigmoid()
        scale: Any = self.mean_square.sqrt().to(z.dtype)
        return denoised(self.prediction, z, raw, self._as_event(gamma), scale), v

    def _seen(self, z: Tensor, context: Tensor | None) -> Tensor:
        """What the network sees of z: where a part of x is given, that part without noise."""
        if context is None or not isinstance(self.context, Mask):
            return z
        observed, mask = context.unbind(1)
        return torch.where(mask != 0, self.scaled(observed).to(z.dtype), z)

    def _as_event(self, t: Tensor) -> Tensor:
        """Numbers (N,) so that they broadcast with (N, *event)."""
        return t.reshape(-1, *(1,) * len(self.event_shape))

    # --- generation -------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        num: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """See `Model.sample`; with ``mean`` the mean of p(x|z_0) at the end of the same path."""
        context = self._context_to_draw(num, context, generator)
        z = self.white(num, generator)
        z_0 = solve(self.denoiser(context), z, self.levels(), generator=generator, **self.solver)
        p = self.clean(z_0, context)
        return p.mean if mean else p.sample(generator)

    def with_sampler(self, sampler: str | None = None, **changes: Any) -> Self:
        """A model of the same weights whose draws are made otherwise.

        Args:
            sampler: a method of `lowerbound.solvers`; that of this model unless said.
            **changes: ``steps``, ``eta`` and ``guidance`` of `Sampling`.

        Raises:
            InputError: numbers out of range, more steps than a chain has, or guidance of a model
                that was never trained without its context, or is given a part of x.
        """
        if sampler is not None:
            changes["sampler"] = sampler
        sampling = dataclasses.replace(self.sampling, **changes)
        sampling.check_chain(self.timesteps)
        if sampling.guidance != 1 and isinstance(self.context, Mask):
            # Without the part that is given, its place in z would be noise of no level.
            raise refuse("guidance", f"1 for a '{self.name}' given a part of x", sampling.guidance)
        if sampling.guidance != 1 and not (self.context and self.label_dropout):
            kind = "of p(x)" if self.context is None else "trained without label dropout"
            remedy = "train with --condition labels --label-dropout 0.1"
            raise refuse("guidance", f"1 for a '{self.name}' {kind}", sampling.guidance, remedy)
        other = copy.copy(self)
        other.sampling = sampling
        return other

    @property
    def solver(self) -> dict[str, Any]:
        """What `lowerbound.solvers` are told of how draws are made."""
        # A chain's network is trained at the noisier ends of its steps, and so never at γ_0.
        return {**self.sampling.method, "asks_at_last": self.timesteps is None}

    def white(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise of the noisiest level, (num, *event)."""
        z = torch.empty(num, *self.event_shape, device=self.calibrated.device)
        return z.to(self.schedule.gamma_0.dtype).normal_(generator=generator)

    def levels(self) -> Tensor:
        """γ of the levels of a draw, from noise to data, (steps + 1,)."""
        return self.sampling.levels(self.schedule, self.timesteps)

    def denoiser(self, context: Tensor | None = None) -> Denoise:
        """What `lowerbound.solvers` ask: x̂, ε̂ and a learned v of z, guided if that is wanted.

        Args:
            context: of each example (N, …), as checked by whoever draws, or None.
        """
        scale = self.sampling.guidance
        if context is not None and scale != 1:
            assert self.context is not None
            nothing = self.context.unknown(len(context), self.event_shape).to(context)
            context = nothing if scale == 0 else torch.cat([context, nothing])
        beside = self._embedded(context)

        def denoise(z: Tensor, gamma: Tensor) -> tuple[Tensor, ...]:
            said, v = self._denoise(z, gamma, context, *beside)
            return said if v is None else (*said, v)

        return denoise if context is None or scale in (0, 1) else guided_pair(denoise, scale)

    def context_given(self, context: Tensor | None, num: int) -> Tensor | None:
        """The context of ``num`` examples, checked, as `denoiser` and `clean` take it.

        Raises:
            InputError: one that does not fit, or none for a model that was never trained without.
        """
        return self._given_context(context, num)

    @abstractmethod
    def clean(self, z_0: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z_0) at the cleanest level z_0 (N, *event)."""

    @abstractmethod
    def scaled(self, x: Tensor) -> Tensor:
        """The y of examples (N, *event), in the unit of the diffusion."""

    def reverse(
        self, z: Tensor, gamma_s: Tensor, gamma_t: Tensor, context: Tensor | None = None
    ) -> Step:
        """p(z_s|z_t) of one step back, at z_t (N, *event), for γ of both levels, ()."""
        said, v = self._denoise(z, gamma_t, context)
        p = step(z, said.x, gamma_s, gamma_t)
        if v is None:
            return p
        return Step(p.mean, p.variance * torch.exp(-log_ratio(v, gamma_s, gamma_t)))

    # --- training ---------------------------------------------------------------------------

    def check_objective(self, name: str, reweighing: str | None = None) -> None:
        """See `Model.check_objective`; there are no weights to climb, nor levels to balance.

        What weighs a rate would be lost under a weighting, and move learned ends off the bound.
        """
        super().check_objective(name, reweighing)
        if name != "elbo":
            raise refuse("objective", f"elbo for a '{self.name}'", name)
        weighed = self.weighting != "bound" or self.schedule.learns_ends
        if reweighing == "kl_balancing" or (reweighing is not None and weighed):
            required = f"left out for a '{self.name}' with a weighting, learned ends or balancing"
            raise refuse(reweighing, required, "given")

    @property
    def can_compile(self) -> bool:
        """See `Model.can_compile`; a compiled step would leave out the hooks of `variance`."""
        return self.timesteps is not None or not self.schedule.learns_interior
