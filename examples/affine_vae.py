"""The smallest VAE, x ~ N(μ, σ²) with affine maps, whose bound is known in closed form.

Optimising both terms jointly ends anywhere on a flat ridge, from the collapse t = 1 to the
deterministic limit t → 0, where the two terms diverge and their difference stays put. Optimising
them one after the other ends half a nat lower, with samples of twice the variance.
"""

import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels
from torch import nn

import lowerbound

mu, sigma = 1.5, 2.0
optimum = -0.5 * math.log(2 * math.pi * math.e * sigma**2)  # minus the entropy of the data


def terms(a, b, c, v, t, s):
    """E_x of reconstruction and KL for q = N(ax + b, t²) and p(x|z) = N(cz + v, s²), nats."""
    m = a * mu + b
    error = (mu - c * m - v) ** 2 + (1 - a * c) ** 2 * sigma**2 + c**2 * t**2
    reconstruction = -0.5 * math.log(2 * math.pi * s**2) - error / (2 * s**2)
    kl = 0.5 * (t**2 + m**2 + a**2 * sigma**2 - 1 - math.log(t**2))
    return reconstruction, kl


def L(*parameters):
    return terms(*parameters)[0] - terms(*parameters)[1]


def ridge(t):
    """The maximisers with the encoder's standard deviation t in (0, 1)."""
    c = sigma * math.sqrt(1 - t**2)
    return c / sigma**2, -mu * c / sigma**2, c, mu, t, sigma * t


def model_with(a, b, c, v, t, s) -> lowerbound.Model:
    """The library's VAE with these affine networks."""
    encoder, decoder = nn.Linear(1, 2), nn.Linear(1, 1)
    encoder.weight.data = torch.tensor([[a], [0.0]])
    encoder.bias.data = torch.tensor([b, math.log(t)])
    decoder.weight.data, decoder.bias.data = torch.tensor([[c]]), torch.tensor([v])
    parts = {"encoder": encoder, "decoder": decoder, "latent_dim": 1, "sigma": s}
    return lowerbound.create_model("vae", (1,), **parts).double()


def main() -> None:
    args = arguments(__doc__)
    # The library's bound at one point of the ridge, on the quantiles of N(μ, σ²).
    n = 2_000 if args.quick else 20_000
    x = mu + sigma * torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    generator = torch.Generator().manual_seed(0)
    value = model_with(*ridge(0.6)).bound(x[:, None], num_samples=50, generator=generator).value

    # One term after the other, with the inverse maps z = (x − μ)/σ and x = σz + μ held fixed.
    inverse = (1 / sigma, -mu / sigma, sigma, mu)
    grid = torch.linspace(0.01, 2, 1991, dtype=torch.float64).tolist()
    t_alone = min(grid, key=lambda t: terms(*inverse, t, 1.0)[1])
    s_alone = max((sigma * g for g in grid), key=lambda s: terms(*inverse, t_alone, s)[0])
    separate = L(*inverse, t_alone, s_alone)
    rows = [
        ("bound on the ridge, t = 0.999", L(*ridge(0.999)), optimum, 1e-12),
        ("bound on the ridge, t = 0.6", L(*ridge(0.6)), optimum, 1e-12),
        ("bound on the ridge, t = 0.0001", L(*ridge(1e-4)), optimum, 1e-7),
        (
            "the library's bound there, t = 0.6",
            value.mean().detach(),
            optimum,
            6 / math.sqrt(50 * n),
        ),
        ("KL on the ridge, t = 0.6", terms(*ridge(0.6))[1], -math.log(0.6), 1e-12),
        ("collapse: bound at a = c = 0", L(0, 0, 0, mu, 1, sigma), optimum, 1e-12),
        ("separate optimum: t from the KL", t_alone, 1, 1e-9),
        ("separate optimum: s", s_alone, sigma, 1e-9),
        ("joint minus separate optimum, nats", optimum - separate, 0.5, 1e-9),
        ("variance of samples, separate", sigma**2 + s_alone**2, 2 * sigma**2, 1e-7),
        ("inverse maps, s = 0.1σ, t = 0.1: loss", optimum - L(*inverse, 0.1, 0.2), 5e-3, 1e-9),
    ]
    ts = [i / 200 for i in range(2, 200)]
    titles = ("Bound: a flat ridge", "On the ridge: two terms", "Inverse maps (a, c fixed)")
    figure, (flat, two, off) = panels(*titles)
    flat.plot(ts, [L(*ridge(t)) for t in ts], color=MODEL, label="joint optimum, any t")
    flat.plot(ts, [L(*inverse, t, sigma) for t in ts], color=MARK, label="inverse maps, s = σ")
    flat.plot(1, separate, "o", color=MARK, label="one term after the other")
    flat.set(xlabel="t", ylabel="nats", ylim=(optimum - 3, optimum + 0.5))
    two.plot(ts, [terms(*ridge(t))[0] for t in ts], color=MODEL, label="reconstruction")
    two.plot(ts, [terms(*ridge(t))[1] for t in ts], color=DATA, label="KL = −log t")
    two.plot(ts, [L(*ridge(t)) for t in ts], color=MARK, label="their difference")
    two.set(xlabel="t (collapse at 1, delta functions at 0)")
    off.plot(ts, [L(*inverse, t, sigma * t) for t in ts], color=MODEL, label="s = σt")
    off.axhline(optimum, color=DATA, label="joint optimum")
    off.set(xlabel="t")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
