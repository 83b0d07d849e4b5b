"""The options of a diffusion model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from lowerbound.distributions import Binary, Discrete, Support
from lowerbound.errors import refuse
from lowerbound.models.context import ContextOptions
from lowerbound.models.sampling import SamplerName, Sampling, check_timesteps
from lowerbound.models.weightings import Weighting
from lowerbound.nn import DenoiserKind
from lowerbound.noising import Prediction
from lowerbound.schedules import ScheduleName

__all__ = ["DiffusionOptions", "chosen", "clean_end", "fourier_of", "network_of", "refuse_learned"]

GAMMA_OF_REAL = -13.3
LEVELS_FOR_FOURIER = 8


@dataclass(frozen=True)
class DiffusionOptions(ContextOptions):
    """Options of the diffusion model."""

    schedule: ScheduleName = "linear"
    """How gamma = -log SNR rises with time: in a line, as a cosine, by the table of DDPM (with
    ends of its own), or learned, so that the estimate of the bound varies least."""
    gamma_min: float | None = None
    """Gamma at the clean end; unless said 2 log(1/(3 levels)), a sixth of the step from level to
    level, or -13.3 for real data. The table of ddpm begins at -9.2."""
    gamma_max: float | None = None
    """Gamma at the noisy end; 5 unless said. The table of ddpm ends at 10.1."""
    learn_ends: bool = False
    """Learn both ends, by the bound; not of real data, whose bound has no upper limit."""
    timesteps: int | None = None
    """T levels x_1 ... x_T of a chain; without it time is continuous."""
    variance: Literal["fixed", "learned"] = "fixed"
    """Of a step of a chain: that of q(x_s|x_t, x), or the network's own per number."""
    prediction: Prediction = "v"
    """What the network says of z = alpha x + sigma eps: eps, x, v, the velocity eps - x, or f,
    which is of unit variance."""
    weighting: Weighting = "bound"
    """What training weighs noise levels by: the bound itself, or simple, min-snr, edm or flow,
    which are for looks. The reported bound never has it."""
    network: DenoiserKind = "auto"
    """unet, dit or mlp; auto is a unet for images from 8 pixels a side, else an mlp."""
    width: int | None = None
    """Channels of a unet at full size (32 unless said), numbers per token of a dit (128), or
    hidden units of an mlp (256)."""
    widths: tuple[int, ...] | None = None
    """Channels of each stage of a unet, as multiples of the width; 1, 2, … down to 4 … 7 pixels
    unless said. Each stage halves the image."""
    attention: tuple[int, ...] | None = None
    """Stages of a unet with attention, counted from 0 at full size; the last unless said."""
    patch: int | None = None
    """Side of a patch of a dit (2 unless said)."""
    depth: int | None = None
    """Residual blocks per stage of a unet (2, and 1 below 16 pixels a side), blocks of a dit (4)
    or an mlp (3)."""
    dropout: float = 0.0
    """Inside the blocks."""
    fourier: tuple[int, ...] | None = None
    """Exponents n of sines and cosines of 2^n pi z that the network sees too; unless said the two
    that tell neighbouring levels apart, and none for real or binary data."""
    sampler: SamplerName = "ancestral"
    """How draws are made unless they are asked for otherwise."""
    sampling_steps: int | None = None
    """Steps of a draw: all of a chain's, or 100 in continuous time, unless said."""
    context_dim: int | None = None
    """Numbers of the context's embedding, and of the noise level's, to which it is added; four
    times the width of a unet, the width of a dit or an mlp, unless said."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "depth", "patch", "sampling_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise refuse(name, "at least 1", value)
        check_timesteps(self.timesteps, learn_variance=self.variance == "learned")
        if self.widths is not None and (not self.widths or min(self.widths) < 1):
            raise refuse("widths", "numbers of at least 1", self.widths)
        if not 0 <= self.dropout < 1:
            raise refuse("dropout", "from 0 to below 1", self.dropout)
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Parts that would quietly do nothing, or the wrong thing, together."""
        if self.timesteps and self.sampling_steps and self.sampling_steps >= self.timesteps:
            required = (
                f"at most {self.timesteps - 1}, the steps of a chain of T = {self.timesteps}"
            )
            raise refuse("sampling_steps", required, self.sampling_steps)
        if self.weighting != "bound":
            refuse_learned(self.schedule == "learned", self.learn_ends)

    @property
    def sampling(self) -> Sampling:
        """How draws are made."""
        return Sampling(self.sampler, self.sampling_steps)


def refuse_learned(learns_interior: bool, learns_ends: bool) -> None:
    """Refuse to learn noise levels by a weighted loss."""
    remedy = "a weight would move the noise to where it is easy; use --weighting bound"
    if learns_interior:
        raise refuse("schedule", "fixed for a weighting", "learned", remedy)
    if learns_ends:
        raise refuse("learn_ends", "left out for a weighting", True, remedy)


def chosen(options: DiffusionOptions, *names: str) -> dict[str, Any]:
    """Some of the options, by name."""
    return {name: getattr(options, name) for name in names}


def network_of(options: DiffusionOptions) -> dict[str, Any]:
    """What `make_denoiser` is told of the network; what is of one kind alone where it is said."""
    own = {name: getattr(options, name) for name in ("widths", "attention", "patch")}
    said = {name: value for name, value in own.items() if value is not None}
    sizes = chosen(options, "width", "depth", "dropout")
    return {"kind": options.network, "embedding": options.context_dim, **sizes, **said}


def clean_end(options: DiffusionOptions, support: Support) -> float | None:
    """γ_0 that ``options`` say, or that fits the support; None for the table's own.

    >>> from lowerbound.distributions import Discrete
    >>> round(clean_end(DiffusionOptions(), Discrete(256)), 2)
    -13.29
    """
    if options.gamma_min is not None or options.schedule == "ddpm":
        return options.gamma_min
    if isinstance(support, Discrete | Binary):
        return 2 * math.log(1 / (3 * support.levels))
    return GAMMA_OF_REAL


def fourier_of(options: DiffusionOptions, support: Support) -> tuple[int, ...]:
    """The exponents that ``options`` say, or that tell neighbouring levels apart.

    >>> from lowerbound.distributions import Discrete
    >>> fourier_of(DiffusionOptions(), Discrete(256))
    (7, 8)
    """
    if options.fourier is not None:
        return options.fourier
    if isinstance(support, Discrete) and support.levels >= LEVELS_FOR_FOURIER:
        finest = round(math.log2(support.levels))
        return (finest - 1, finest)
    return ()
