"""A VAE on a ring in the plane: what the shape of the latents costs, and what training costs.

The density of the noisy ring is known, so that the evidence of each VAE has an exact ceiling:
minus the entropy of the data. One latent bends the line around the circle and tears it at a seam.
The same networks are trained by the ELBO, which also wants the posterior to be Gaussian, and by
DReG with 16 draws, which hardly does: nearly all of the loss is that of the ELBO.
"""

import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels

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
    every = [(d, objective) for d in (1, 2) for objective in ("elbo", "dreg")]
    cases = every[::3] if args.quick else every
    figure, axes = panels(*(f"{d} latent(s), {name}: draws" for d, name in cases), columns=2)
    for ax, (d, objective) in zip(axes, cases, strict=True):
        case, many = f"d = {d}, {objective}", {"objective": "dreg", "num_samples": 16}
        options = {"width": 64, "depth": 1, "sigma": s}
        model = lowerbound.create_model("vae", source, latent_dim=d, **options)
        options = {"device": "cpu", "precision": "float32"} | (many if objective == "dreg" else {})
        steps = 100 if args.quick else 3_000
        lowerbound.fit(model, source, steps=steps, quiet=True, **options)
        with torch.no_grad():
            bound = model.bound(test.x, num_samples=20).value.double()
        draws = 50 if args.quick else 500
        lower = lowerbound.log_likelihood(model, test.x, num_samples=draws).value
        loss = truth - lower  # its mean is at least KL(data ‖ model), but for the test points
        above = max(0.0, -float(loss.mean()))
        claim = (0, 1.5 if args.quick else 0.05) if objective == "dreg" else (None, None)
        rows += [
            (f"{case}: ELBO, nats", bound.mean(), None, None),
            (f"{case}: L_K, a lower bound on log p, nats", lower.mean(), None, None),
            (f"{case}: nats that L_K is below the ring's own", loss.mean(), *claim),
            (f"{case}: nats above the ceiling", above, 0, 5 * loss.std() / math.sqrt(len(loss))),
        ]
        x = model.sample(1500, generator=torch.Generator().manual_seed(0))
        ax.scatter(*test.x[:1500].T, 3, DATA, alpha=0.5)
        ax.scatter(*x.T, 3, MODEL, alpha=0.5)
        ax.set(aspect="equal", xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))
        if d == 1:
            with torch.no_grad():
                line = model.decode(torch.linspace(-3, 3, 400)[:, None]).mean
            ax.plot(*line.T, color=MARK)
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
