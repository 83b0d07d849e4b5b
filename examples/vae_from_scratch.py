"""A variational autoencoder in plain PyTorch, whose bound agrees with the library's.

Two small networks, a reparameterised draw, a Bernoulli log-likelihood summed over pixels and a
closed-form KL are all there is. The last lines give the same networks and noise to `lowerbound`.
"""

import math

import torch
from _shared import DATA, MODEL, arguments, finish, panels, tiles
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import lowerbound

D, d, K = 64, 8, 100  # pixels, latents, samples for log p(x)


class VAE(nn.Module):
    """z ~ N(0, I_d); x | z ~ Bernoulli(decoder(z)); q(z|x) = N(μ(x), diag σ²(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(D, 128), nn.SiLU(), nn.Linear(128, 2 * d))
        self.decoder = nn.Sequential(nn.Linear(d, 128), nn.SiLU(), nn.Linear(128, D))

    def forward(self, x: torch.Tensor, eps: torch.Tensor):
        """Of x (B, D) and noise (…, B, d): log p(x|z) summed over pixels; z, μ, log σ."""
        mu, log_sigma = self.encoder(x - 0.5).chunk(2, dim=-1)
        z = mu + log_sigma.exp() * eps
        logits = self.decoder(z)  # log p = x l − log(1 + e^l), stable for every logit l
        return (x * logits - F.softplus(logits)).sum(-1), z, mu, log_sigma

    def bound(self, x: torch.Tensor, eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction and KL of examples (B, D) with noise (B, d): (B,) and (B,), nats."""
        reconstruction, _, mu, log_sigma = self(x, eps)
        kl = 0.5 * (log_sigma.exp() ** 2 + mu**2 - 1 - 2 * log_sigma).sum(-1)
        return reconstruction, kl

    def log_weight(self, x: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """Log p(x, z_k) − log q(z_k|x) for noise (K, B, d): (K, B), nats."""
        reconstruction, z, _, log_sigma = self(x, eps)
        # log p(z) − log q(z|x): the constants of two standard normals cancel.
        return reconstruction + (0.5 * (eps**2 - z**2) + log_sigma).sum(-1)


def train(model: VAE, x: torch.Tensor, steps: int, generator) -> list[float]:
    """Maximise the mean bound by Adam; its value at every step, nats."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    curve = []
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,), generator=generator)]
        reconstruction, kl = model.bound(batch, torch.randn(128, d, generator=generator))
        loss = (kl - reconstruction).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(-loss.item())
    return curve


def main() -> None:
    args = arguments(__doc__)
    x = torch.from_numpy(load_digits().data > 8).float()
    test_x, model, generator = x[1500:], VAE(), torch.Generator().manual_seed(1)
    curve = train(model, x[:1500], 300 if args.quick else 5_000, generator)

    # The same networks and the same noise in the library.
    parts = {"encoder": model.encoder, "decoder": model.decoder, "latent_dim": d}
    theirs = lowerbound.create_model("vae", (D,), support="binary", **parts)
    eps = torch.randn(K, len(test_x), d, generator=generator)
    with torch.no_grad():
        rec, kl = model.bound(test_x, eps[0])
        bound = theirs.bound(test_x, noise={"z": eps[:1]})
        ours = model.log_weight(test_x, eps)
        weight = theirs.log_weight(test_x, K, noise={"z": eps})
    terms = {name: term.mean() for name, term in bound.terms().items()}
    log_p, theirs_p = ((w.logsumexp(0) - math.log(K)).mean() for w in (ours, weight))
    rows = [
        ("reconstruction, nats per digit", rec.mean(), terms["reconstruction"], 1e-3),
        ("KL, nats per digit", kl.mean(), terms["kl"], 1e-3),
        ("bound of a digit: largest difference", (rec - kl - bound.value).abs().max(), 0, 1e-3),
        ("log weights: largest difference", (ours - weight).abs().max(), 0, 1e-3),
        ("log p(x), K = 100", log_p, theirs_p, 1e-3),
        ("fair coins: −D log 2, which it must beat", -D * math.log(2), None, None),
    ]
    figure, (learning, digits) = panels("Bound, nats per digit", "Draws: means of p(x|z)")
    learning.plot(curve, color=DATA, label="batches")
    learning.axhline(float(bound.value.mean()), color=MODEL, label="test digits")
    learning.set(xlabel="step", ylim=(-45, -10))
    means = torch.sigmoid(model.decoder(torch.randn(24, d, generator=generator))).detach()
    digits.imshow(tiles(means.reshape(-1, 8, 8), columns=6), cmap="gray_r")
    digits.set_axis_off()
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
