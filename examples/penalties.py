"""Dependent codes, what a penalty makes of them, and how much of it a batch can see.

The total correlation KL(q(z) ‖ Π_d q(z_d)) needs q(z), a mean over all N examples; a batch has B.
Counting the example itself as one of N leaves the batch's q(z) without bias; giving all B the same
weight counts the peak at the example's own code N/B times too often.
"""

import itertools
import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels

from lowerbound.distributions import DiagonalGaussian
from lowerbound.models.penalties import log_aggregate, total_correlation

N, B, SCALE = 900, 90, 0.5
CORNERS = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]).double()
FAR = math.log(0.75) / 3 + 2 * math.log(1.5) / 3  # of three corners of a square, far apart


def alike(log_prob: torch.Tensor) -> torch.Tensor:
    """Log of the mean over the batch, as if it were all there is, (B, d)."""
    return log_prob.logsumexp(1) - math.log(log_prob.shape[1])


def posteriors(loc: torch.Tensor) -> DiagonalGaussian:
    return DiagonalGaussian(loc, torch.full_like(loc, math.log(SCALE)))


def correlation(loc: torch.Tensor, generator, count: int = N) -> torch.Tensor:
    """log q(z) − Σ_d log q(z_d) at a draw of each of these codes, as the library estimates it."""
    q = posteriors(loc)
    z = q.rsample(torch.randn(loc.shape, generator=generator).double())
    return total_correlation(q, z, torch.tensor(float(count)).double())


def pushed(loc: torch.Tensor, steps: int, weight: float, generator) -> torch.Tensor:
    """Codes that pay for their dependence, and for each square unit they move from ``loc``."""
    moved = loc.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=0.05)
    for _ in range(steps):
        rows = torch.randperm(N, generator=generator)[:B]
        distance = (moved[rows] - loc[rows]).square().sum(-1)
        loss = (weight * correlation(moved[rows], generator) + distance).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return moved.detach()


def main() -> None:
    args = arguments(__doc__)
    generator = torch.Generator().manual_seed(0)
    # Every batch of three, of six examples, that holds the first: their mean is exact.
    loc = torch.randn(6, 2, generator=generator).double()
    six = DiagonalGaussian(loc, torch.full((6, 2), -1.0).double(), 0).log_prob(loc[0] + 0.2)
    batches = [six[[0, *pair]] for pair in itertools.combinations(range(1, 6), 2)]
    one = [log_aggregate(b.expand(3, 3, 2), torch.tensor(6.0).double())[0, 0] for b in batches]
    same, exact = alike(torch.stack(batches))[:, 0].exp().mean(), six.exp().mean(0)[0]
    rows = [
        ("q(z) of six, mean over batches of three", torch.stack(one).exp().mean(), exact, 1e-12),
        ("the same with one weight for all, times q(z)", same / exact, (1.05, 3), None),
    ]
    # Three corners: each dimension alone does not say where the fourth is missing.
    corners = CORNERS[torch.arange(N) % 3] + 0.2 * torch.randn(N, 2, generator=generator).double()
    before = correlation(corners, generator)
    error = 5 * float(before.std()) / math.sqrt(N)
    rows.append(("total correlation of three corners, nats", before.mean(), FAR, error))
    parts = torch.randperm(N, generator=generator).split(B)
    ours = torch.cat([correlation(corners[b], generator) for b in parts])
    theirs = torch.cat([correlation(corners[b], generator, B) for b in parts])
    rows.append((f"by batches of {B}, itself as one of {N}", ours.mean(), None, None))
    rows.append((f"by batches of {B}, all alike", theirs.mean(), None, None))
    moved = pushed(corners, 100 if args.quick else 1_500, 8.0, generator)
    after, far = correlation(moved, generator).mean(), (moved - corners).square().sum(1)
    rows.append(("total correlation after the push, nats", after, (-0.02, FAR), None))
    rows.append(("distance moved, root mean square", far.mean().sqrt(), None, None))
    figure, axes = panels("Codes without a penalty", "Codes that pay for it", f"Batches of {B}")
    for ax, codes in zip(axes[:2], (corners, moved), strict=True):
        z = posteriors(codes).rsample(torch.randn(N, 2, generator=generator).double())
        ax.scatter(*z.T, 4, DATA, alpha=0.4)
        ax.scatter(*codes.T, 4, MODEL, alpha=0.6)
        ax.set(xlabel="z₁", ylabel="z₂", aspect="equal")
    axes[2].hist(ours.numpy(), 50, color=MODEL, alpha=0.6, label=f"itself as one of {N}")
    axes[2].hist(theirs.numpy(), 50, color=DATA, alpha=0.6, label="all alike")
    axes[2].axvline(FAR, color=MARK, label="known mean")
    axes[2].set(xlabel="log q(z) − Σ log q(z_d), nats")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
