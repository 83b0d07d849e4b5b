"""Images per second of training, side by side: ours, a bare loop, pythae's trainer, a DataLoader.

All of them train the same modules on the same binarised images with the same batch size and Adam
settings, in turns within one process; the table has medians over the rounds and the ratio to the
bare loop, round by round. Three models: the 784-400-20 VAE, a convolutional VAE, and a small U-Net
that learns to predict the noise in an image. What is counted is the loop: data are loaded and
modules made before the clock starts, and a compiled step was compiled in the round that warms up
(its seconds are told apart). pythae's row appears where `pip install pythae==0.1.2` is.

    python benchmarks/training.py --data mnist:DIR [--model mlp|conv|unet] [--batch-size 128]
                                  [--rounds 5] [--steps N] [--compile]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time

import torch
from torch.nn import functional as F

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.data import InMemorySplit, Source, load_data
from lowerbound.distributions import Binary
from lowerbound.models import Model
from lowerbound.nn.unet import UNet
from lowerbound.objectives import Bound
from lowerbound.training import fit_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ADAM = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.0}
STEPS = {"mlp": 1000, "conv": 60, "unet": 20}
VAES = {
    "mlp": {"latent_dim": 20, "width": 400, "depth": 0, "network": "mlp"},
    "conv": {"latent_dim": 20, "width": 16, "depth": 1, "network": "conv"},
}


class Denoiser(Model):
    """A U-Net under our loop: mean squared error of the noise in an image, at a random level."""

    name, is_likelihood, has_encoder, can_sample = "denoiser", False, False, False

    def __init__(self) -> None:
        super().__init__((1, 28, 28), Binary())
        self.net = UNet(1, 1, width=16, widths=(1, 2, 2), depth=1, attention=(2,))

    def noise(self, batch_size, num_samples=1, generator=None):
        given = {"generator": generator, "device": self.calibrated.device}
        eps = torch.randn(num_samples, batch_size, 1, 28, 28, **given)
        return {"eps": eps, "time": torch.rand(num_samples, batch_size, **given)}

    def bound(self, x, context=None, *, num_samples=1, noise=None, generator=None):
        error = denoising_error(self.net, x.float(), noise["eps"][0], noise["time"][0])
        return Bound(-error, {})

    def sample(self, num, context=None, *, generator=None, mean=False):
        raise NotImplementedError


def denoising_error(net, x, eps, time_):
    signal = torch.cos(0.5 * torch.pi * time_)[:, None, None, None]
    seen = signal * x + (1 - signal**2).sqrt() * eps
    return (net(seen, 1000 * time_).float() - eps).square().flatten(1).sum(1)


def fresh_model(kind: str):
    torch.manual_seed(0)
    if kind == "unet":
        return Denoiser()
    return create_model("vae", (1, 28, 28), support=Binary(), **VAES[kind])


def images(spec: str) -> torch.Tensor:
    """Binarised training images (N, 1, 28, 28) as uint8; random ones without data."""
    if spec:
        return load_data(spec, binarize="static").train.x
    return (torch.rand(50_000, 1, 28, 28) < 0.13).to(torch.uint8)


def ours(kind, x, batch_size, steps, precision, compiled="never"):
    source = Source(
        *(InMemorySplit(part) for part in (x, x[:100], x[:100])), (1, 28, 28), Binary()
    )
    config = TrainingConfig(
        steps=steps,
        validations=1,
        batch_size=batch_size,
        learning_rate=ADAM["lr"],
        precision=precision,
        compile=compiled,
        device=DEVICE,
    )
    torch._dynamo.reset()
    history = fit_model(fresh_model(kind), source, config)
    if compiled == "never":
        return steps * batch_size / history.seconds
    # Compiling again in every round is no part of the loop: from the first log line to the last.
    rows = [row for row in history.rows if row["kind"] == "train"]
    first, last = rows[0], rows[-1]
    return (last["step"] - first["step"]) * batch_size / (last["seconds"] - first["seconds"])


def loss_of(model, x: torch.Tensor) -> torch.Tensor:
    """Minus the bound, mean over the batch, as anybody would write it by hand."""
    if isinstance(model, Denoiser):
        eps, time_ = torch.randn_like(x), torch.rand(len(x), device=x.device)
        return denoising_error(model.net, x, eps, time_).mean()
    mean, log_scale = model.encoder(x).chunk(2, dim=-1)
    scale = log_scale.exp()
    logits = model.decoder(mean + scale * torch.randn_like(mean)).reshape(x.shape)
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(-1)
    kl = 0.5 * (scale**2 + mean**2 - 1 - 2 * log_scale).sum(-1)
    return (bce + kl).mean()


def trained(model):
    """The parameters that the bare loops train: those of the networks."""
    return [p for n, p in model.named_parameters() if n.startswith(("net", "encoder", "decoder"))]


def bare(kind, x, batch_size, steps):
    model = fresh_model(kind).to(DEVICE)
    model.train()
    x = x.float().to(DEVICE)
    optimizer = torch.optim.Adam(trained(model), lr=ADAM["lr"], betas=ADAM["betas"], fused=True)
    start = time.perf_counter()
    done = 0
    while done < steps:
        order = torch.randperm(len(x), device=DEVICE)
        for first in range(0, len(x) - batch_size + 1, batch_size):
            loss = loss_of(model, x[order[first : first + batch_size]])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    float(loss.detach())
    return steps * batch_size / (time.perf_counter() - start)


def loader(kind, x, batch_size, steps):
    """The usual loop: a DataLoader that fetches one image at a time, a loss read every step."""
    model = fresh_model(kind).to(DEVICE)
    model.train()
    data = torch.utils.data.TensorDataset(x.float())
    batches = torch.utils.data.DataLoader(data, batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(trained(model), lr=ADAM["lr"], betas=ADAM["betas"])
    start = time.perf_counter()
    done, total = 0, 0.0
    while done < steps:
        for (batch,) in batches:
            optimizer.zero_grad()
            loss = loss_of(model, batch.to(DEVICE))
            loss.backward()
            optimizer.step()
            total += loss.item()
            done += 1
            if done == steps:
                break
    return steps * batch_size / (time.perf_counter() - start)


def pythae(kind, x, batch_size, steps):
    """pythae's own trainer and VAE around the same two networks; None without it."""
    try:
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
    except ImportError:
        return None
    if kind == "unet":
        return None
    ours = fresh_model(kind)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(ours.encoder)

        def forward(self, x):
            mean, log_scale = self.net(x).chunk(2, dim=-1)
            return ModelOutput(embedding=mean, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(ours.decoder)

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)).reshape(-1, 1, 28, 28))

    x = x[: steps * batch_size]
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    model = VAE(config, Encoder(), Decoder())
    with tempfile.TemporaryDirectory() as folder:
        options = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            learning_rate=ADAM["lr"],
            per_device_train_batch_size=batch_size,
            optimizer_cls="Adam",
            no_cuda=DEVICE == "cpu",
        )
        data = BaseDataset(x.float(), torch.ones(len(x)))
        trainer = BaseTrainer(model, data, training_config=options)
        trainer.prepare_training()
        start = time.perf_counter()
        trainer.train_step(epoch=1)
        return len(x) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="")
    parser.add_argument("--model", choices=STEPS, default="mlp")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--compile", action="store_true", help="also the compiled steps")
    args = parser.parse_args()
    x = images(args.data)
    given = (args.model, x, args.batch_size, args.steps or STEPS[args.model])
    rows = {
        "bare loop, float32": lambda: bare(*given),
        "lowerbound, float32": lambda: ours(*given, "float32"),
        "lowerbound, bf16": lambda: ours(*given, "bf16"),
    }
    if args.compile:
        rows["  float32, compiled"] = lambda: ours(*given, "float32", "always")
        rows["  bf16, compiled"] = lambda: ours(*given, "bf16", "always")
    rows["pythae 0.1.2 trainer"] = lambda: pythae(*given)
    rows["DataLoader loop"] = lambda: loader(*given)
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    warm: dict[str, float] = {}
    for turn in range(args.rounds + 1):  # the first round warms up
        for name, run in rows.items():
            start = time.perf_counter()
            speed = run()
            if turn == 0:
                warm[name] = time.perf_counter() - start
            elif speed is not None:
                speeds[name].append(speed)
    report(args, given, speeds, warm)


def report(args, given, speeds, warm) -> None:
    """One table."""
    base = speeds["bare loop, float32"]
    print(
        f"{args.model}, batch {args.batch_size}, {given[-1]} steps, {DEVICE}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"median of {args.rounds} interleaved rounds"
    )
    print(f"{'':24}{'images/s':>10}{'of the bare loop':>18}")
    for name, values in speeds.items():
        if not values:
            print(f"{name:24}{'not there':>10}")
            continue
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        once = f"   first round {warm[name]:.0f} s" if "compiled" in name else ""
        print(f"{name:24}{statistics.median(values):>10,.0f}{ratio:>18.2f}{once}")


if __name__ == "__main__":
    main()
