"""A VAE on a ring in the plane: one latent must cut the circle open somewhere.

The density of the noisy ring is known, so that the evidence of each VAE has an exact ceiling:
minus the entropy of the data. One latent folds the line around the circle and tears it at a seam;
two latents have no seam, but their prior also fills the hole in the middle, which costs nats.
"""

import math

import torch
from _shared import DATA, HUES, MARK, MODEL, arguments, finish, panels

import lowerbound
from lowerbound.data import InMemorySplit, Source

radius, s = 1.0, 0.1


def log_density(x: torch.Tensor) -> torch.Tensor:
    """Log p of a ring of noise s: −log 2πs² − (r² + R²)/2s² + log I₀(rR/s²), nats."""
    r = x.norm(dim=-1).double()
    bessel = torch.special.i0e(r * radius / s**2).log()  # log I₀(u) − u
    return -math.log(2 * math.pi * s**2) - (r - radius) ** 2 / (2 * s**2) + bessel


def draw(n: int, seed: int) -> torch.Tensor:
    """Points (n, 2): an angle, then noise."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    circle = radius * torch.stack([angle.cos(), angle.sin()], dim=-1)
    return circle + s * torch.randn(n, 2, generator=generator)


def entropy() -> float:
    """−∫ p log p over the plane, by the trapezoidal rule along the radius."""
    r = torch.linspace(0, radius + 12 * s, 20_001, dtype=torch.float64)
    log_p = log_density(torch.stack([r, torch.zeros_like(r)], dim=-1))
    return float(torch.trapezoid(-2 * math.pi * r * log_p.exp() * log_p, r))


def main() -> None:
    args = arguments(__doc__)
    train, validation, test = (InMemorySplit(draw(n, n)) for n in (8_000, 1_000, 2_000))
    source = Source(train, validation, test, (2,), lowerbound.Real())
    ceiling = -entropy()
    truth = log_density(test.x)
    error = 5 * float(truth.std()) / math.sqrt(len(test))
    rows = [("mean log p of test points, the ring's own", truth.mean(), ceiling, error)]
    figure, axes = panels(
        "One latent: draws, line of means", "Two latents: draws", "Two latents: codes of x"
    )
    for ax, d in zip(axes, (1, 2), strict=False):
        options = {"width": 64, "depth": 1, "sigma": s}
        model = lowerbound.create_model("vae", source, latent_dim=d, **options)
        steps, within = (300, 0.9) if args.quick else (3_000, 0.3)
        lowerbound.fit(model, source, steps=steps, quiet=True, device="cpu", precision="float32")
        with torch.no_grad():
            bound = model.bound(test.x, num_samples=20).value.double()
        evidence = lowerbound.log_likelihood(
            model, test.x, num_samples=200 if args.quick else 500
        ).value
        loss = truth - evidence  # its mean estimates KL(data ‖ model)
        above = max(0.0, -float(loss.mean()))
        rows += [
            (f"d = {d}: bound, nats", bound.mean(), None, None),
            (f"d = {d}: log p, importance-sampled, nats", evidence.mean(), ceiling, within),
            (f"d = {d}: gap, nats", (evidence - bound).mean(), None, None),
            (f"d = {d}: nats above the ceiling", above, 0, 5 * loss.std() / math.sqrt(len(loss))),
        ]
        x = model.sample(1500, generator=torch.Generator().manual_seed(0))
        ax.scatter(*test.x[:1500].T, 3, DATA, alpha=0.5)
        ax.scatter(*x.T, 3, MODEL, alpha=0.5)
        ax.set_aspect("equal")
        if d == 1:
            with torch.no_grad():
                line = model.decode(torch.linspace(-3, 3, 400)[:, None]).mean
            ax.plot(*line.T, color=MARK)
    z = model.encode(test.x).mean.detach()
    sector = ((torch.atan2(test.x[:, 1], test.x[:, 0]) / math.pi + 1) * 4).long().clamp(0, 7)
    axes[2].scatter(*z.T, 3, [HUES[i] for i in sector])
    axes[2].set(xlabel="z₁", ylabel="z₂")
    axes[2].set_aspect("equal")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
