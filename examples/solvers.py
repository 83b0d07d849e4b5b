"""How wrong a solver is with n steps, on data where everything is known: x ~ N(0, λ).

The optimal denoiser of Gaussian data is linear, so that a solver only multiplies z by a number:
its own standard deviation follows without sampling. With levels uniform in γ, and h half the step
in γ, its logarithm errs by −h/4 with DDIM, −h/2 with the ancestral chain, h²/8 with Heun's method
and h²/16 with DPM-Solver++(2M), whatever λ is.
"""

import torch
from _shared import DATA, GREY, MARK, MODEL, arguments, finish, panels

from lowerbound.noising import Denoised, alpha, sigma
from lowerbound.solvers import METHODS, grid, plan, solve

VARIANCE, LOW, HIGH = 0.3, -18.0, 10.0  # of x, and the ends of γ
LEADING = {"ancestral": (-1 / 2, 1), "ddim": (-1 / 4, 1), "heun": (1 / 8, 2), "dpm++": (1 / 16, 2)}
COLOURS = {"ancestral": GREY, "ddim": DATA, "heun": MARK, "dpm++": MODEL}


def denoise(z: torch.Tensor, gamma: torch.Tensor) -> Denoised:
    """What is known of x and of its noise from z."""
    a, s = alpha(gamma), sigma(gamma)
    whitened = z / (a**2 * VARIANCE + s**2)
    return Denoised(a * VARIANCE * whitened, s * whitened)


def levels(steps: int, low: float = LOW, high: float = HIGH) -> torch.Tensor:
    return grid("gamma", steps, lambda t: low + (high - low) * t)


def spread(gamma: torch.Tensor) -> torch.Tensor:
    """The standard deviation of z."""
    return (alpha(gamma) ** 2 * VARIANCE + sigma(gamma) ** 2).sqrt()


def log_error(method: str, gammas: torch.Tensor) -> float:
    """Log of the standard deviation that a solver makes over that of q(z) at the last level."""
    start, end = spread(gammas[0]), spread(gammas[-1])
    if method != "ancestral":
        return float((solve(denoise, start[None], gammas, method=method) / end).log())
    variance = start**2
    for gamma, leap in zip(gammas[:-1], plan(gammas, method), strict=True):
        one = denoise(torch.ones_like(gamma), gamma)
        variance = (leap.x * one.x + leap.eps * one.eps) ** 2 * variance + leap.noise**2
    return float((variance.sqrt() / end).log())


def paths(method: str, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Twelve walks from noise to data: γ (steps,) and z (steps, 12)."""
    gammas, seen = levels(steps, -6.0, 5.0), []
    z = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    solve(denoise, z, gammas, method=method, keep=lambda i, z, found: seen.append(z))
    return gammas[:-1], torch.stack(seen)


def main() -> None:
    args = arguments(__doc__)
    counts = (20, 50, 100, 250) if args.quick else (10, 20, 50, 100, 250, 500, 1000)
    errors = {m: {n: log_error(m, levels(n)) for n in counts} for m in LEADING}
    rows = []
    for method, (factor, order) in LEADING.items():
        for n in counts:
            h = (HIGH - LOW) / (2 * n)
            expected = factor * h**order
            claim = (expected, 0.5 * h * abs(expected)) if n >= 100 else (None, None)
            rows.append((f"{method}, {n} steps: log error", errors[method][n], *claim))
    evidence = levels(1000, -13.0, 5.0)
    chain = float(log_error("ancestral", evidence))
    rows.append(("ancestral, γ from 5 to −13, 1000 steps", chain, -9e-3 / 2, 5e-4))
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    few, many = (solve(denoise, z, levels(n), method="dpm++") for n in (20, 250))
    apart = float((few - many).abs().max() / many.abs().max())
    rows.append(("dpm++, same noise: 20 steps and 250", apart, (0, 0.05), None))

    figure, (orders, still, noisy) = panels(
        "Error of the spread", "Heun: paths", "Ancestral: paths"
    )
    for method, found in errors.items():
        evaluations = [n * METHODS[method].evaluations for n in found]
        sizes = [abs(error) for error in found.values()]
        orders.loglog(evaluations, sizes, "o-", markersize=3, color=COLOURS[method], label=method)
    orders.set(xlabel="evaluations of the denoiser", ylabel="|log error|")
    for axes, method in ((still, "heun"), (noisy, "ancestral")):
        gammas, walks = paths(method, 60)
        axes.plot(gammas, walks, color=COLOURS[method], linewidth=0.8)
        axes.set(xlabel="γ", ylabel="z", ylim=(-3, 3))
        axes.invert_xaxis()
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
