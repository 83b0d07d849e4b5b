"""A decoder that nobody trained: F⁻¹(Φ(z)) turns a normal z into any distribution on the line.

In one dimension the exact noiseless decoder is known: the inverse distribution function of the
data, after Φ. A VAE with a fixed small sigma, trained on draws from the same exponential, learns
the same curve (or its mirror image), and its evidence comes close to minus the entropy.
"""

import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels

import lowerbound
from lowerbound.data import InMemorySplit, Source

s = 0.1  # sigma of p(x|z)


def decoder(z: torch.Tensor) -> torch.Tensor:
    """F⁻¹(Φ(z)) for the exponential, F(x) = 1 − e⁻ˣ: −log Φ(−z), stable in both tails."""
    return -torch.special.log_ndtr(-z)


def distance(x: torch.Tensor) -> float:
    """Kolmogorov's largest distance of the draws' distribution function from F."""
    steps = torch.arange(1, len(x) + 1).double() / len(x)
    F = -torch.expm1(-x.sort().values.double().clamp_min(0))
    return float(torch.maximum((steps - F).abs(), (steps - 1 / len(x) - F).abs()).max())


def main() -> None:
    args = arguments(__doc__)
    n = 20_000
    z = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = decoder(z)
    generator = torch.Generator().manual_seed(1)
    data = torch.empty(12_000, 1).exponential_(generator=generator)
    train, validation, test = (InMemorySplit(part) for part in data.split([8_000, 2_000, 2_000]))
    source = Source(train, validation, test, (1,), lowerbound.Real())
    model = lowerbound.create_model("vae", source, latent_dim=1, width=64, depth=1, sigma=s)
    steps = 500 if args.quick else 6_000
    lowerbound.fit(model, source, steps=steps, quiet=True, device="cpu", precision="float32")

    grid = torch.linspace(-2, 2, 401)[:, None]
    with torch.no_grad():
        learned = model.decode(grid).mean.squeeze()
        codes = model.encode(test.x).mean.squeeze()
        bound = model.bound(test.x, num_samples=20).value
    if learned[0] > learned[-1]:  # z and −z are equally good: turn the picture round
        learned, codes = learned.flip(0), -codes
    evidence = lowerbound.log_likelihood(model, test.x, num_samples=200).value
    exact = decoder(grid.squeeze().double())
    density = torch.exp(-0.5 * grid.squeeze() ** 2) / math.sqrt(2 * math.pi)
    rms = float(((learned - exact).square() * density).sum() / density.sum()) ** 0.5
    drawn = model.sample(n, generator=torch.Generator().manual_seed(2)).squeeze()
    tail = 5 / math.sqrt(n)  # five standard errors: the exponential has variance 1
    loose = 2 if args.quick else 1
    rows = [
        ("F⁻¹(Φ(z)): mean of draws", x.mean(), 1, tail),
        ("F⁻¹(Φ(z)): share below log 2", (x < math.log(2)).double().mean(), 0.5, tail / 2),
        ("F⁻¹(Φ(z)): Kolmogorov distance × √n, below 1.95", distance(x) * math.sqrt(n), 0, 1.95),
        ("learned: mean of draws", drawn.mean(), 1, 0.1 * loose),
        ("learned: Kolmogorov distance", distance(drawn), 0, 0.05 * loose),
        ("learned decoder − exact map, root mean square", rms, 0, 0.1 * loose),
        ("learned: bound, nats", bound.mean(), None, None),
        ("learned: log p, K = 200, against −entropy", evidence.mean(), -1, 0.1 * loose),
    ]
    figure, (curve, code, histogram) = panels("Decoders", "Encoder: Φ⁻¹(F(x))", "Draws")
    curve.plot(grid, exact, color=DATA, linewidth=4, label="exact, F⁻¹(Φ(z))")
    curve.plot(grid, learned, color=MODEL, label="learned mean of p(x|z)")
    curve.set(xlabel="z", ylabel="x")
    ordered = test.x.squeeze().argsort()
    sorted_x = test.x.squeeze()[ordered]
    code.plot(
        sorted_x,
        -torch.special.ndtri(torch.exp(-sorted_x)),
        color=DATA,
        linewidth=4,
        label="exact",
    )
    code.plot(sorted_x, codes[ordered], color=MODEL, label="learned mean of q(z|x)")
    code.set(xlabel="x", ylabel="z")
    style = {"bins": torch.linspace(-0.5, 6, 66).tolist(), "density": True, "histtype": "step"}
    histogram.hist(x, color=DATA, label="F⁻¹(Φ(z))", **style)
    histogram.hist(drawn, color=MARK, label="learned model", **style)
    histogram.set(xlabel="x", ylabel="density")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
