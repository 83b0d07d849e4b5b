"""A conditional VAE in plain PyTorch, whose bound on log p(x|c) agrees with the library's.

Encoder and decoder also see a learned row of numbers for the class. The last lines give the same
networks, the same rows and the same noise to `lowerbound`.
"""

import torch
from _shared import DATA, MODEL, arguments, finish, panels, tiles
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import lowerbound
from lowerbound.data import Classes

D, d, C, E = 64, 4, 10, 8  # pixels, latents, classes, numbers per class


class Network(nn.Module):
    """Two layers that see an embedding beside their input."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        first, last = nn.Linear(num_inputs + E, 128), nn.Linear(128, num_outputs)
        self.layers = nn.Sequential(first, nn.SiLU(), last)

    def forward(self, h: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([h, e], dim=-1))


class CVAE(nn.Module):
    """z ~ N(0, I_d); x | z, c ~ Bernoulli(decoder(z, e_c)); q(z|x, c) = N(μ, diag σ²)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(C, E)
        self.encoder, self.decoder = Network(D, 2 * d), Network(d, D)

    def bound(self, x: torch.Tensor, c: torch.Tensor, eps: torch.Tensor):
        """Reconstruction and KL of x (B, D) given c (B,) with noise (B, d): (B,), (B,), nats."""
        e = self.table(c)
        mu, log_sigma = self.encoder(x - 0.5, e).chunk(2, dim=-1)
        logits = self.decoder(mu + log_sigma.exp() * eps, e)
        reconstruction = (x * logits - F.softplus(logits)).sum(-1)
        kl = 0.5 * (log_sigma.exp() ** 2 + mu**2 - 1 - 2 * log_sigma).sum(-1)
        return reconstruction, kl


def train(model: CVAE, x: torch.Tensor, c: torch.Tensor, steps: int, generator) -> list[float]:
    """Maximise the mean bound by Adam; its value at every step, nats."""
    optimizer, curve = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(steps):
        rows = torch.randint(len(x), (128,), generator=generator)
        eps = torch.randn(128, d, generator=generator)
        reconstruction, kl = model.bound(x[rows], c[rows], eps)
        loss = (kl - reconstruction).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(-loss.item())
    return curve


@torch.no_grad()
def main() -> None:
    args = arguments(__doc__)
    data, generator = load_digits(), torch.Generator().manual_seed(1)
    x, c = torch.from_numpy(data.data > 8).float(), torch.from_numpy(data.target).long()
    model, test_x, test_c = CVAE(), x[1500:].double(), c[1500:]
    with torch.enable_grad():
        curve = train(model, x[:1500], c[:1500], 300 if args.quick else 1_000, generator)

    # The same networks, rows and noise in the library, in float64; it has a row more.
    parts = {"encoder": model.encoder, "decoder": model.decoder, "latent_dim": d}
    options = {"support": "binary", "context": Classes(C), "context_dim": E}
    theirs = lowerbound.create_model("cvae", (D,), **options, **parts).double()
    theirs.embedding.table.weight[:C] = model.double().table.weight
    eps = torch.randn(1, len(test_x), d, generator=generator, dtype=torch.float64)
    bound = theirs.bound(test_x, test_c, noise={"z": eps})
    rec, kl = model.bound(test_x, test_c, eps[0])
    other = theirs.bound(test_x, (test_c + 1) % C, noise={"z": eps})
    rows = [
        ("reconstruction, nats per digit", rec.mean(), bound.reconstruction.mean(), 1e-5),
        ("KL, nats per digit", kl.mean(), bound.rates["kl"].mean(), 1e-5),
        ("bound of a digit: largest difference", (rec - kl - bound.value).abs().max(), 0, 1e-5),
        ("what the next class costs, nats", (bound.value - other.value).mean(), (1, 99), None),
    ]
    figure, (learning, digits) = panels("Bound, nats per digit", "A row per class, a column per z")
    learning.plot(curve, color=DATA, label="batches")
    learning.axhline(float(bound.value.mean()), color=MODEL, label="test digits")
    learning.set(xlabel="step", ylim=(-45, -10))
    logits = model.decoder(eps[0, :8].repeat(C, 1), model.table.weight.repeat_interleave(8, 0))
    digits.imshow(tiles(torch.sigmoid(logits).reshape(-1, 8, 8), columns=8), cmap="gray_r")
    digits.set_axis_off()
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
