"""Importance samples per second of the log-likelihood: ours beside pythae's `get_nll`.

Both judge the same untrained network (784-400-20, the same weights) on the same binary images with
K importance samples each, in float32, in turns within one process; the table has medians over the
rounds and the ratio to pythae, round by round. pythae 0.1.2 draws `batch_size` samples per pass
whatever it is asked for, and returns +log p: its samples are counted as they were drawn, at every
`batch_size` it is given here they are exactly K, and its sign is mended. It records gradients;
a second row spares it that. Its values and ours must agree within 3 standard errors, which is
checked on one image with more samples.

    python benchmarks/likelihood.py [--images 20] [--samples 1000] [--rounds 7] [--threads 2]

pythae's rows appear where `pip install pythae==0.1.2` is.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable

import torch

from lowerbound.build import create_model
from lowerbound.distributions import Binary
from lowerbound.evaluation import log_likelihood


def network():
    """The model, with outputs that differ between latents as those of a trained one do."""
    model = create_model(
        "vae", (1, 28, 28), support=Binary(), latent_dim=20, width=400, depth=0, network="mlp"
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def pythae_model(ours):
    """pythae's VAE around copies of the same two networks; None without pythae."""
    try:
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    except ImportError:
        return None

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(ours.encoder)

        def forward(self, x):
            # Our encoder sees x standardised; the log-variance is twice the log-scale.
            mean, log_scale = self.net(ours.likelihood.standardized(x)).chunk(2, dim=-1)
            return ModelOutput(embedding=mean, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(ours.decoder)

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)).reshape(-1, 1, 28, 28))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    return VAE(config, Encoder(), Decoder()).eval()


def samples_drawn(num_samples: int, batch_size: int) -> int:
    """How many importance samples pythae's `get_nll` really draws per image."""
    return batch_size * (1 if num_samples <= batch_size else num_samples // batch_size)


def speed(run: Callable[[], object], samples: int) -> float:
    start = time.perf_counter()
    run()
    return samples / (time.perf_counter() - start)


def agreement(ours, theirs, x: torch.Tensor, num_samples: int) -> str:
    """One image judged 20 times by each: how many standard errors the means lie apart."""
    runs = range(20)
    mine = [float(log_likelihood(ours, x, num_samples=num_samples, seed=s).value) for s in runs]
    with torch.no_grad():
        their = [float(theirs.get_nll(x, num_samples, 100)) for _ in runs]
    a, b = torch.tensor(mine, dtype=torch.float64), torch.tensor(their, dtype=torch.float64)
    error = math.sqrt((float(a.var()) + float(b.var())) / len(runs))
    sigmas = abs(float(a.mean() - b.mean())) / error
    verdict = "agree" if sigmas < 3 else "DISAGREE"
    return (
        f"log p of one image, mean of 20 runs of K = {num_samples:,}: "
        f"ours {float(a.mean()):.3f}, pythae (sign mended) {float(b.mean()):.3f}, "
        f"{sigmas:.1f} standard errors apart: they {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)  # pythae draws by the global generator
    ours, k = network(), args.samples
    theirs = pythae_model(ours)
    x = (torch.rand(args.images, 1, 28, 28) < 0.13).float()
    rows = {"lowerbound": (lambda: log_likelihood(ours, x, num_samples=k), k)}

    def nll(batch_size: int, grad: bool) -> Callable[[], object]:
        def run() -> object:
            with torch.set_grad_enabled(grad):
                return theirs.get_nll(x, k, batch_size)

        return run

    if theirs is not None:
        for size in (100, k):
            rows[f"pythae, batch_size={size}"] = (nll(size, True), samples_drawn(k, size))
        rows[f"pythae, {k}, no_grad"] = (nll(k, False), samples_drawn(k, k))
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(args.rounds + 1):  # the first round warms up
        for name, (run, drawn) in rows.items():
            measured = speed(run, args.images * drawn)
            if turn:
                speeds[name].append(measured)
    print(
        f"784-400-20 VAE, float32, K = {k:,}, {args.images} images, {args.threads} threads, "
        f"torch {torch.__version__}, median of {args.rounds} interleaved rounds"
    )
    print(f"{'':28}{'samples/s':>12}{'lowerbound is':>15}")
    for name, values in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(speeds["lowerbound"], values, strict=True))
        print(f"{name:28}{statistics.median(values):>12,.0f}{ratio:>14.2f}×")
    print(agreement(ours, theirs, x[:1], k) if theirs else "pythae 0.1.2 is not installed")


if __name__ == "__main__":
    main()
