"""A mixture of Gaussians is a latent-variable model whose posterior is known, fitted by EM.

z is the component, x | z = k ~ N(μ_k, σ_k² I), and the exact posterior p(k|x) makes the bound
equal to log p(x). The hard code that keeps only the most probable component loses
−log max_k p(k|x); a code drawn from the posterior loses its entropy, which is never less.
"""

import itertools
import math

import torch
from _shared import DATA, HUES, MARK, MODEL, arguments, finish, panels
from matplotlib.patches import Circle

import lowerbound
from lowerbound.data import InMemorySplit, Source

WEIGHTS, SIGMAS = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([1.0, 0.4, 0.6]).double()
TRUE = (WEIGHTS, torch.tensor([[0.0, 0.0], [2.5, 1.0], [-1.0, 2.5]]).double(), SIGMAS)


def draw(n: int, weights, means, sigmas, generator) -> torch.Tensor:
    """Draws (n, 2): first the component z, then x given z."""
    z = torch.multinomial(weights, n, replacement=True, generator=generator)
    return means[z] + sigmas[z, None] * torch.randn(n, 2, generator=generator).double()


def log_joint(x, weights, means, sigmas) -> torch.Tensor:
    """Log p(x, z = k), (n, K): log π_k − ‖x − μ_k‖²/2σ_k² − log 2πσ_k² in two dimensions."""
    squared = (x[:, None] - means).square().sum(-1)
    return weights.log() - squared / (2 * sigmas**2) - (2 * math.pi * sigmas**2).log()


def fit(x: torch.Tensor, K: int, steps: int, generator):
    """EM: the E step makes the bound tight, the M step raises it; log p never falls."""
    weights = torch.full((K,), 1 / K, dtype=torch.float64)
    means = x[torch.randperm(len(x), generator=generator)[:K]]
    sigmas = x.std().expand(K).clone()
    curve = []
    for _ in range(steps):
        joint = log_joint(x, weights, means, sigmas)
        curve.append(float(joint.logsumexp(1).mean()))
        r = joint.softmax(1)  # E step: the posterior p(k|x)
        n_k = r.sum(0)
        weights, means = n_k / len(x), (r.T @ x) / n_k[:, None]
        squared = (x[:, None] - means).square().sum(-1)
        sigmas = ((r * squared).sum(0) / (2 * n_k)).sqrt()
    return (weights, means, sigmas), curve


def main() -> None:
    args = arguments(__doc__)
    generator = torch.Generator().manual_seed(4)
    x = draw(2_000 if args.quick else 20_000, *TRUE, generator)
    fitted, curve = fit(x, 3, 200, generator)

    # The bound of three encoders: E_q log p(x, z) plus the entropy of q.
    joint = log_joint(x, *fitted)
    log_p, posterior = joint.logsumexp(1), joint.softmax(1)
    entropy = -(posterior * posterior.clamp_min(1e-300).log()).sum(1)
    soft = (posterior * joint).sum(1) + entropy
    lost = log_p - joint.max(1).values  # all on the MAP component: no entropy
    code = torch.multinomial(posterior, 1, generator=generator)
    drawn = log_p - joint.gather(1, code).squeeze(1)  # from the posterior, its entropy not used
    error = 5 * float(drawn.std()) / math.sqrt(len(x))

    source = Source(*(InMemorySplit(x),) * 3, (2,), lowerbound.Real())
    library = lowerbound.create_model("mixture", source, components=3, covariance="spherical")
    lowerbound.fit(library, source, quiet=True)
    theirs = library.bound(x).value.mean()
    falls = sum(b < a - 1e-12 for a, b in itertools.pairwise(curve))
    rows = [
        ("log p(x) after EM, against the library's", log_p.mean(), theirs, 1e-3),
        ("steps at which EM lowered log p(x)", falls, 0, 0),
        ("gap of the exact posterior", (log_p - soft).abs().max(), 0, 1e-9),
        ("gap of the MAP code", lost.mean(), -posterior.max(1).values.log().mean(), 1e-9),
        ("examples where that exceeds the entropy", (lost > entropy + 1e-9).sum(), 0, 0),
        ("gap of a code drawn from the posterior", drawn.mean(), entropy.mean(), error),
    ]
    for i, k in enumerate(fitted[0].argsort(descending=True).tolist()):
        within = 5 * SIGMAS[i] / math.sqrt(len(x) * WEIGHTS[i])
        rows.append((f"sigma of component {i + 1}", fitted[2][k], SIGMAS[i], within))
    figure, (plane, rise, gap) = panels("Data and components (2σ)", "EM: log p(x)", "Gap of one x")
    plane.scatter(*x[:1500].T, 3, [HUES[k] for k in posterior[:1500].argmax(1)], alpha=0.5)
    for mean, sigma in zip(fitted[1].tolist(), fitted[2].tolist(), strict=True):
        plane.add_patch(Circle(mean, 2 * sigma, fill=False, color=MARK))
    plane.set_aspect("equal")
    rise.plot(curve, color=MODEL)
    rise.set(xlabel="EM steps", ylabel="nats per example", xscale="symlog")
    gap.plot([0, 1.1], [0, 1.1], color=DATA, label="equal")
    gap.plot(entropy[:1500], lost[:1500], ".", color=MODEL, label="hard MAP code")
    gap.set(xlabel="entropy of the posterior, nats", ylabel="nats lost")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
