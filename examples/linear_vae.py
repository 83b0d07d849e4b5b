"""A VAE with linear networks is probabilistic PCA: gradient training finds the closed form.

The bound of a linear VAE has one maximum value, −½[D log 2π + Σ_{i≤k} log λ_i + (D−k) log σ² + D],
with λ the eigenvalues of the covariance. The table shows the closed form, the library's
probabilistic PCA, and the library's own VAE with `nn.Linear` networks trained by gradients; the
picture shows how close training comes, and that its decoder spans the plane of PCA.
"""

import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels
from sklearn.datasets import load_digits
from torch import nn

import lowerbound
from lowerbound.data import InMemorySplit, Source

# Nats of the optimum on the digits as rows x/16, all 1,797 of them.
EXACT = {2: 0.005707, 5: 8.907637, 10: 17.451947, 16: 23.929443, 20: 27.277300, 32: 35.247022}


class LinearEncoder(nn.Module):
    """q(z|x) = N(Vx + b, diag δ): a mean that is linear in x, and one sigma for all x."""

    def __init__(self, D: int, k: int) -> None:
        super().__init__()
        self.mean = nn.Linear(D, k)
        self.log_sigma = nn.Parameter(torch.zeros(k))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.mean(x)
        return torch.cat([mean, self.log_sigma.expand_as(mean)], dim=-1)


def trained_vae(source: Source, k: int, steps: int) -> lowerbound.Model:
    """The library's VAE with linear networks, trained by gradients in float64."""
    D = source.event_shape[0]
    model = lowerbound.create_model(
        "vae",
        source,
        latent_dim=k,
        encoder=LinearEncoder(D, k),
        decoder=nn.Linear(k, D),
        sigma="scalar",
    ).double()
    options = {"batch_size": 1797, "learning_rate": 2e-2, "validations": 4}
    lowerbound.fit(model, source, steps=steps, quiet=True, device="cpu", **options)
    return model


def main() -> None:
    args = arguments(__doc__)
    x = torch.from_numpy(load_digits().data / 16)  # (1797, 64)
    everything = InMemorySplit(x)
    source = Source(everything, everything, everything, (64,), lowerbound.Real())
    D = x.shape[1]
    eigenvalues, U = torch.linalg.eigh(torch.cov(x.T, correction=0))
    eigenvalues, U = eigenvalues.flip(0), U.flip(1)  # the largest first
    rows, trained, angles = [], [], []
    for k in [2] if args.quick else EXACT:
        variance = eigenvalues[k:].mean()
        scales = eigenvalues[:k].log().sum() + (D - k) * variance.log()
        optimum = -0.5 * (D * math.log(2 * math.pi) + scales + D)
        ppca = lowerbound.create_model("ppca", source, latent_dim=k)
        lowerbound.fit(ppca, source, quiet=True)
        vae = trained_vae(source, k, steps=500 if args.quick else 6_000)
        # log p(x|z) is quadratic in z: the mean over ε = ±√k e_j is its exact expectation.
        points = math.sqrt(k) * torch.cat([torch.eye(k), -torch.eye(k)]).double()
        with torch.no_grad():
            bound = vae.bound(x, noise={"z": points[:, None]}).value.mean()
            W = vae.decoder.weight * vae.likelihood.scale[:, None]
        # The largest angle between the plane of the decoder and that of PCA.
        cosines = torch.linalg.svdvals(torch.linalg.qr(W).Q.T @ U[:, :k])
        angle = torch.rad2deg(torch.arccos(cosines.min().clamp(max=1)))
        rows += [
            (f"k = {k}: closed form, nats", optimum, EXACT[k], 1e-6),
            (f"k = {k}: probabilistic PCA, nats", ppca.bound(x).value.mean(), EXACT[k], 1e-6),
            (f"k = {k}: VAE by gradients, nats", bound, EXACT[k], 0.05),
            (f"k = {k}: angle to PCA's plane, degrees", angle, 0, 1.0),
        ]
        trained.append(float(bound))
        angles.append(float(angle))
    ks = list(EXACT)[: len(trained)]
    figure, (curve, turn) = panels("Bound, nats per digit", "Angle to the plane of PCA, degrees")
    curve.plot(list(EXACT), list(EXACT.values()), color=DATA, label="closed form")
    curve.plot(ks, trained, "o", color=MODEL, label="VAE, trained by gradients")
    curve.set_xlabel("latent dimensions k")
    turn.plot(ks, angles, "o-", color=MODEL)
    turn.axhline(1, color=MARK, linewidth=1)
    turn.set(xlabel="latent dimensions k", ylim=(0, 1.1))
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
