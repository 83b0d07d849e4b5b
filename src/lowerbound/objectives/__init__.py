"""Objectives: what training maximises.

Each is a function of a model and a batch that returns a loss (B,), which is minimised, and the
`Bound` that it maximises, unweighted: the two differ where the loss is weighted on purpose.

    elbo                E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)), with beta and free bits
    iwae                L_K = E log 1/K Σ w_k,  w_k = p(x, z_k)/q(z_k|x)
    stl, dreg           L_K, with less noise in the encoder's gradient
    miwae, ciwae        a mean of M bounds L_K;  mix · L_1 + (1 − mix) · L_K
    piwae               L_MK for the decoder, miwae for the encoder
    prior-monte-carlo   E log 1/K Σ p(x|z_k),  z_k ~ p(z): why there is an encoder
"""

from __future__ import annotations

from lowerbound.objectives.base import (
    UNWEIGHTED,
    Bound,
    BoundModel,
    Drawn,
    Noise,
    Objective,
    WeightModel,
    Weights,
)
from lowerbound.objectives.elbo import elbo
from lowerbound.objectives.importance import ciwae, dreg, iwae, miwae, piwae, stl
from lowerbound.objectives.prior import prior_log_weight, prior_monte_carlo

__all__ = [
    "IMPORTANCE_WEIGHTED",
    "OBJECTIVES",
    "UNWEIGHTED",
    "Bound",
    "BoundModel",
    "Drawn",
    "Noise",
    "Objective",
    "WeightModel",
    "Weights",
    "ciwae",
    "dreg",
    "elbo",
    "iwae",
    "miwae",
    "piwae",
    "prior_log_weight",
    "prior_monte_carlo",
    "stl",
]

OBJECTIVES: dict[str, Objective] = {
    "elbo": elbo,
    "iwae": iwae,
    "stl": stl,
    "dreg": dreg,
    "miwae": miwae,
    "piwae": piwae,
    "ciwae": ciwae,
    "prior-monte-carlo": prior_monte_carlo,
}
"""Every objective by name."""

IMPORTANCE_WEIGHTED = frozenset({"iwae", "stl", "dreg", "miwae", "piwae", "ciwae"})
"""Those that need K draws to be worth it. All their runs are validated by L_N of all N draws, one
number that compares between them, also where `miwae` or `ciwae` climbs a looser bound."""
