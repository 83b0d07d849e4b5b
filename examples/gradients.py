"""Two right gradients of the bound and a wrong one: pathwise, score function, wrongly exchanged.

Both right estimators have the exact gradient as their mean, but the variance of the pathwise one,
which follows z = μ + σε, does not grow with the number of latents. Exchanging gradient and
expectation without following z is an error: for the entropy it gives 0 on average, while the
true derivative in log σ is 1.
"""

import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels

from lowerbound.distributions import DiagonalGaussian

# z ~ N(0, 1), x | z ~ N(cz, s²), q = N(η, τ²): the bound and its gradient are known.
x, c, s, eta, tau = 1.2, 0.9, math.sqrt(0.5), 0.3, math.sqrt(0.6)
P, m = s**2 / (c**2 + s**2), c * x / (c**2 + s**2)
EXACT = ((m - eta) / P, 1 - tau**2 / P)  # in η and in log τ


def log_joint(z: torch.Tensor) -> torch.Tensor:
    """Log p(x, z) at draws (n, d), summed over d copies of the model; up to a constant."""
    return (-0.5 * ((x - c * z) / s) ** 2 - 0.5 * z**2).sum(-1)


def all_gradients(n: int, d: int) -> dict[str, torch.Tensor]:
    """Gradients in the first η and log τ of d copies of the model, one for each draw: (2, n)."""
    eps = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
    # A copy of the parameters for each draw, so that autograd gives a gradient for each draw.
    mean = torch.full_like(eps, eta).requires_grad_()
    log_sigma = torch.full_like(eps, math.log(tau)).requires_grad_()
    q = DiagonalGaussian(mean, log_sigma)
    z = q.rsample(eps)
    fixed = z.detach()  # the same draws, cut off from the parameters
    weight = (log_joint(fixed) - q.log_prob(fixed)).detach()
    values = {
        "pathwise": log_joint(z) - q.log_prob(z),
        "score function": weight * q.log_prob(fixed),
        "with baseline": (weight - weight.mean()) * q.log_prob(fixed),
        "entropy, pathwise": -q.log_prob(z),
        "entropy, wrongly exchanged": -q.log_prob(fixed),
    }
    both = {}
    for name, value in values.items():
        parts = torch.autograd.grad(value.sum(), (mean, log_sigma), retain_graph=True)
        both[name] = torch.stack([part[:, 0] for part in parts])
    return both


def main() -> None:
    args = arguments(__doc__)
    n = 50_000 if args.quick else 1_000_000
    draws = all_gradients(n, 1)
    # Along the path the gradient is ∂z log p(x, z) = (m − z)/P: its variance is known.
    variances = ((tau / P) ** 2, ((m - eta) ** 2 * tau**2 + 2 * tau**4) / P**2)
    rows = []
    for i, name in enumerate(("η", "log τ")):
        for kind, exact in (
            ("pathwise", EXACT[i]),
            ("score function", EXACT[i]),
            ("entropy, pathwise", i),
            ("entropy, wrongly exchanged", 0),
        ):
            within = 5 * float(draws[kind][i].std()) / math.sqrt(n) + 1e-9
            rows.append((f"{kind}, in {name}: mean", draws[kind][i].mean(), exact, within))
        spread = draws["pathwise"][i].var()
        rows.append((f"pathwise, in {name}: variance", spread, variances[i], 0.05 * variances[i]))
    ratios = {}
    for d in (1, 4, 16, 64):
        several = all_gradients(n // (5 * d), d)
        ratios[d] = float(several["score function"][0].var() / several["pathwise"][0].var())
        rows.append((f"variance, score / pathwise, d = {d}", ratios[d], None, None))

    titles = (
        "Gradient of the bound in η",
        "Gradient of the entropy in log τ",
        "Ratio of variances",
    )
    figure, (spread, wrong, growth) = panels(*titles)
    style = {"bins": torch.linspace(-8, 12, 81).tolist(), "density": True, "histtype": "step"}
    for kind, colour in (("score function", MARK), ("with baseline", DATA), ("pathwise", MODEL)):
        spread.hist(draws[kind][0], color=colour, label=kind, **style)
    spread.axvline(EXACT[0], color="black", linewidth=1, label="exact")
    spread.set(xlabel="one draw's gradient", yscale="log")
    counts = torch.arange(1, 2_001)
    for kind, colour in (("pathwise", MODEL), ("wrongly exchanged", MARK)):
        running = draws[f"entropy, {kind}"][1, :2_000].cumsum(0) / counts
        wrong.plot(counts, running, color=colour, label=kind)
    wrong.set(xlabel="draws", ylabel="running mean", ylim=(-1, 1.6))
    growth.plot(list(ratios), list(ratios.values()), "o-", color=MARK)
    growth.set(xlabel="latents", ylabel="score function / pathwise", xscale="log", yscale="log")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
