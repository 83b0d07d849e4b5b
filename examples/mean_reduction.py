"""Why a squared error averaged over pixels is a β-VAE in disguise.

Beside a KL that is summed, the mean squared error has the gradients of a Gaussian with σ² = ½ and
β = D pixels. The same pictures at twice the size, each pixel four times, have four times the
evidence about z: the summed error says so, the mean-reduced one is a β-VAE with four times the β.
"""

import math

import torch
from _shared import DATA, MARK, arguments, finish, panels
from sklearn.datasets import load_digits
from torch import nn

import lowerbound
from lowerbound.data import InMemorySplit, Source

k = 16


def linear_vae(x: torch.Tensor) -> tuple[lowerbound.Model, Source]:
    """A VAE with linear networks and the reference σ² = ½, in the unit of the data."""
    part, D = InMemorySplit(x), x.shape[1]
    source = Source(part, part, part, (D,), lowerbound.Real())
    networks = {"encoder": nn.Linear(D, 2 * k), "decoder": nn.Linear(k, D)}
    sigma = math.sqrt(0.5)
    return lowerbound.create_model("vae", source, latent_dim=k, sigma=sigma, **networks), source


def rates(x: torch.Tensor, variance: float) -> torch.Tensor:
    """Nats in each latent at the optimum for a fixed variance βσ²: ½ log λ/βσ², or nothing."""
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0)).flip(0)[:k]
    return 0.5 * (eigenvalues / variance).clamp_min(1).log()


def difference(model: lowerbound.Model, x: torch.Tensor) -> torch.Tensor:
    """How far D · (mean squared error + KL) is from the β-VAE's loss, in their gradients."""
    D, noise = x.shape[1], model.noise(len(x), generator=torch.Generator().manual_seed(1))
    z = model.encode(x).rsample(noise["z"])[0]
    bound = model.bound(x, noise=noise)
    mean_reduced = (x - model.decode(z).mean).square().mean(1) + bound.rate
    beta_vae = -bound.reconstruction + D * bound.rate
    mine, theirs = (
        torch.autograd.grad(loss.mean(), model.decoder.weight, retain_graph=True)[0]
        for loss in (D * mean_reduced, beta_vae)
    )
    return (mine - theirs).norm() / theirs.norm()


def main() -> None:
    args = arguments(__doc__)
    small = torch.from_numpy(load_digits().images).float()  # levels 0 … 16 as real numbers
    large = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    steps = 300 if args.quick else 4_000
    rows, kept = [], {}
    for side, images in ((8, small), (16, large)):
        x, D = images.flatten(1), side**2
        model, source = linear_vae(x)
        rows.append((f"D = {D}: gradients, D · mean − (β = D)", difference(model, x), 0, 1e-4))
        kept[side] = rates(x, 0.5), rates(x, D / 2)
        options = {"learning_rate": 1e-2, "validations": 1, "quiet": True, "device": "cpu"}
        lowerbound.fit(model, source, steps=steps, beta=float(D), **options)
        with torch.no_grad():
            trained = model.bound(x).rate.mean()
        exact = kept[side][1].sum()
        rows.append((f"D = {D}: nats kept, trained with β = D", trained, exact, 0.05 * exact))
        rows.append((f"D = {D}: nats kept, optimum of the sum", kept[side][0].sum(), None, None))
    more = [large - small for small, large in zip(kept[8], kept[16], strict=True)]
    rows.append(("sum: nats from four times the pixels", more[0].sum(), k * math.log(2), 1e-3))
    rows.append(("mean: nats from four times the pixels", more[1].sum(), 0, 1e-3))

    figure, axes = panels("Digits of 8×8 pixels", "The same, 16×16 pixels", width=3.6)
    for ax, side in zip(axes, (8, 16), strict=True):
        ax.bar(range(1, k + 1), kept[side][0].tolist(), color=DATA, label="summed error, σ² = ½")
        ax.bar(
            range(1, k + 1),
            kept[side][1],
            color=MARK,
            label=f"mean error: β = {side**2}",
        )
        ax.set(xlabel="latent", ylabel="nats", ylim=(0, 4.5))
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
