"""Images per second of training, side by side: ours, a bare loop, pythae's trainer, a DataLoader.

All of them train the same modules (784-400-20) on the same binarised images with the same batch
size and AdamW settings, in turns within one process; the table has medians over the rounds and the
ratio to the bare loop, round by round. pythae's row appears where `pip install pythae==0.1.2` is.

    python benchmarks/training.py --data mnist:DIR [--batch-size 128] [--rounds 5] [--steps 1000]
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
from lowerbound.training import fit_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ADAM = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.0}


def fresh_model():
    torch.manual_seed(0)
    return create_model(
        "vae", (1, 28, 28), support=Binary(), latent_dim=20, width=400, depth=0, network="mlp"
    )


def images(spec: str) -> torch.Tensor:
    """Binarised training images (N, 1, 28, 28) as uint8; random ones without data."""
    if spec:
        return load_data(spec, binarize="static").train.x
    return (torch.rand(50_000, 1, 28, 28) < 0.13).to(torch.uint8)


def ours(x: torch.Tensor, batch_size: int, steps: int, precision: str) -> float:
    source = Source(
        *(InMemorySplit(part) for part in (x, x[:100], x[:100])), (1, 28, 28), Binary()
    )
    config = TrainingConfig(
        steps=steps,
        validations=1,
        batch_size=batch_size,
        learning_rate=ADAM["lr"],
        precision=precision,
        device=DEVICE,
    )
    model = fresh_model()
    start = time.perf_counter()
    fit_model(model, source, config)
    return steps * batch_size / (time.perf_counter() - start)


def loss_of(encoder, decoder, x: torch.Tensor) -> torch.Tensor:
    """Minus the bound, mean over the batch, as anybody would write it by hand."""
    mean, log_scale = encoder(x).chunk(2, dim=-1)
    scale = log_scale.exp()
    logits = decoder(mean + scale * torch.randn_like(mean))
    bce = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(-1)
    kl = 0.5 * (scale**2 + mean**2 - 1 - 2 * log_scale).sum(-1)
    return (bce + kl).mean()


def bare(x: torch.Tensor, batch_size: int, steps: int) -> float:
    model = fresh_model().to(DEVICE)
    encoder, decoder = model.encoder, model.decoder
    x = x.float().to(DEVICE)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=ADAM["lr"], betas=ADAM["betas"], fused=True)
    start = time.perf_counter()
    done = 0
    while done < steps:
        order = torch.randperm(len(x), device=DEVICE)
        for first in range(0, len(x) - batch_size + 1, batch_size):
            loss = loss_of(encoder, decoder, x[order[first : first + batch_size]])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    float(loss.detach())
    return steps * batch_size / (time.perf_counter() - start)


def loader(x: torch.Tensor, batch_size: int, steps: int) -> float:
    """The usual loop: a DataLoader that fetches one image at a time, a loss read every step."""
    model = fresh_model().to(DEVICE)
    encoder, decoder = model.encoder, model.decoder
    data = torch.utils.data.TensorDataset(x.float())
    batches = torch.utils.data.DataLoader(data, batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=ADAM["lr"], betas=ADAM["betas"])
    start = time.perf_counter()
    done, total = 0, 0.0
    while done < steps:
        for (batch,) in batches:
            optimizer.zero_grad()
            loss = loss_of(encoder, decoder, batch.to(DEVICE))
            loss.backward()
            optimizer.step()
            total += loss.item()
            done += 1
            if done == steps:
                break
    return steps * batch_size / (time.perf_counter() - start)


def pythae(x: torch.Tensor, batch_size: int, steps: int) -> float | None:
    """pythae's own trainer and VAE around the same two networks."""
    try:
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
    except ImportError:
        return None

    ours = fresh_model()

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
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    x = images(args.data)
    rows = {
        "bare loop, float32": lambda: bare(x, args.batch_size, args.steps),
        "lowerbound, float32": lambda: ours(x, args.batch_size, args.steps, "float32"),
        "lowerbound, bf16": lambda: ours(x, args.batch_size, args.steps, "bf16"),
        "pythae 0.1.2 trainer": lambda: pythae(x, args.batch_size, args.steps),
        "DataLoader loop": lambda: loader(x, args.batch_size, args.steps),
    }
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(args.rounds + 1):  # the first round warms up
        for name, run in rows.items():
            speed = run()
            if turn and speed is not None:
                speeds[name].append(speed)
    base = speeds["bare loop, float32"]
    print(
        f"784-400-20 VAE, batch {args.batch_size}, {args.steps} steps, {DEVICE}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"median of {args.rounds} interleaved rounds"
    )
    print(f"{'':24}{'images/s':>10}{'of the bare loop':>18}")
    for name, values in speeds.items():
        if not values:
            print(f"{name:24}{'not installed':>10}")
            continue
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        print(f"{name:24}{statistics.median(values):>10,.0f}{ratio:>18.2f}")


if __name__ == "__main__":
    main()
