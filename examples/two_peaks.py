"""Two-peaked data under a Gaussian likelihood, under a mixture, and under a VAE.

The best Gaussian puts its mean between the peaks, where there are no data, and pays the KL for it.
A mixture likelihood says "here or there" and reaches the entropy. A latent in front of a Gaussian
wins most of it back, for the marginal of a VAE is a mixture; its posteriors would have to be
halves of a normal, which no Gaussian q is, and that costs the rest.
"""

import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels
from torch.distributions import Categorical, MixtureSameFamily, Normal

import lowerbound
from lowerbound.data import InMemorySplit, Source

peaks, s = torch.tensor([-1.0, 1.0]).double(), 0.2


def truth() -> MixtureSameFamily:
    """Half of the data near −1, half near 1."""
    return MixtureSameFamily(Categorical(torch.ones(2).double()), Normal(peaks, s))


def trained_mixture(x: torch.Tensor, steps: int) -> MixtureSameFamily:
    """A likelihood of two Gaussians, its five numbers fitted by gradients."""
    logits, log_sigma = torch.zeros(2).double(), torch.zeros(2).double()
    means = torch.tensor([-0.1, 0.1]).double()
    parameters = [v.requires_grad_() for v in (logits, means, log_sigma)]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(steps):
        p = MixtureSameFamily(Categorical(logits=logits), Normal(means, log_sigma.exp()))
        optimizer.zero_grad()
        (-p.log_prob(x).mean()).backward()
        optimizer.step()
    return p


def main() -> None:
    args = arguments(__doc__)
    p = truth()
    grid = torch.linspace(-4, 4, 8_001).double()
    density = p.log_prob(grid).exp()
    minus_entropy = float(torch.trapezoid(density * p.log_prob(grid), grid))
    generator = torch.Generator().manual_seed(0)
    n = 10_000
    side = torch.randint(0, 2, (n,), generator=generator)
    x = peaks[side] + s * torch.randn(n, generator=generator).double()
    error = 5 * float(p.log_prob(x).std()) / math.sqrt(n)

    # One Gaussian: its best mean and variance are those of the data.
    variance = 1 + s**2
    gaussian = Normal(x.mean(), x.std())
    of_gaussian = float(torch.trapezoid(density * gaussian.log_prob(grid), grid))
    best = -0.5 * math.log(2 * math.pi * math.e * variance)
    mixture = trained_mixture(x, 500 if args.quick else 2_000)
    of_mixture = torch.trapezoid(density * mixture.log_prob(grid), grid).detach()

    # A VAE: a Gaussian likelihood of the same fixed sigma behind one latent.
    part = InMemorySplit(x[:, None].float())
    source = Source(part, part, part, (1,), lowerbound.Real())
    model = lowerbound.create_model("vae", source, latent_dim=1, width=64, depth=1, sigma=s)
    steps, within = (300, 0.4) if args.quick else (4_000, 0.25)
    lowerbound.fit(model, source, steps=steps, quiet=True, device="cpu", precision="float32")
    rows_x = part.x[:2_000]
    of_vae = lowerbound.log_likelihood(model, rows_x, num_samples=200).value.mean()
    z = torch.special.ndtri((torch.arange(4_000) + 0.5) / 4_000)[:, None]
    with torch.no_grad():
        marginal = Normal(model.decode(z).mean.double(), s)  # p(x) is the mean over the prior
        vae_density = marginal.log_prob(grid[::20]).exp().mean(0)
    between = Normal(0.0, math.sqrt(variance)).log_prob(torch.tensor(0.0)).exp()
    lost = minus_entropy - of_gaussian
    at_zero, area = gaussian.log_prob(grid[4_000]).exp(), torch.trapezoid(vae_density, grid[::20])
    rows = [
        ("mean log p of the draws, nats", p.log_prob(x).mean(), minus_entropy, error),
        ("Gaussian likelihood: nats", of_gaussian, best, 0.01),
        ("mixture likelihood: nats", of_mixture, minus_entropy, 0.01),
        ("VAE, Gaussian likelihood: nats (K = 200)", of_vae, minus_entropy, within),
        ("nats that the Gaussian loses: its KL", lost, minus_entropy - best, 0.01),
        ("density between the peaks: data", p.log_prob(grid[4_000]).exp(), None, None),
        ("density between the peaks: Gaussian", at_zero, between, 0.02),
        ("integral of the VAE's density", area, 1, 1e-3),
    ]
    figure, axes = panels(
        "A Gaussian likelihood", "A mixture of two", "A VAE: Gaussian, one latent"
    )
    curves = (gaussian.log_prob(grid).exp(), mixture.log_prob(grid).exp().detach(), None)
    for ax, curve, colour in zip(axes, curves, (MARK, MODEL, MODEL), strict=True):
        ax.fill_between(grid, density, color=DATA, alpha=0.4, label="data")
        where, height = (grid[::20], vae_density) if curve is None else (grid, curve)
        ax.plot(where, height, color=colour, label="model")
        ax.set(xlabel="x", xlim=(-3, 3))
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
