"""Seconds of a diffusion's training step beside a bare loop of the same U-Net, and diffusers'.

The bare loop is what no training can do without: forward, backward and AdamW of the network, on
noise that is drawn once. Ours is `fit` of the model with all of its bound: batches, noise levels,
noise, three terms, clipping, averages, logs. diffusers' row is the loop of its tutorial (random
timesteps, `add_noise`, squared error, AdamW) around its U-Net with the same widths, depth and
attention, and about as many parameters; its batches wait in memory, as ours do. In turns within
one process; medians over the rounds, ratios to the bare loop round by round.

    python benchmarks/denoising.py [--steps 8] [--batch-size 64] [--width 32] [--rounds 5]
                                   [--threads 2] [--data mnist:DIR]

diffusers' row appears where `pip install diffusers` is.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from peers import diffusers_unet
from torch.nn import functional as F

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.data import InMemorySplit, Source, load_data
from lowerbound.distributions import Discrete
from lowerbound.models import Diffusion
from lowerbound.training import fit_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIDE, WIDTHS, DEPTH = 28, (1, 2, 2), 1
ADAM = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.0, "fused": True}


def fresh(args) -> Diffusion:
    """The model; it starts by giving zero, which costs as much as anything."""
    sizes = {"network": "unet", "width": args.width, "widths": WIDTHS, "depth": DEPTH}
    return create_model("diffusion", (1, SIDE, SIDE), support="discrete:256", **sizes)


def synchronized() -> float:
    """The clock, once the device has done its work."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bare(args, x: torch.Tensor, half: bool = False) -> float:
    """Seconds per step of forward, backward and AdamW."""
    net = fresh(args).network.to(DEVICE)
    optimizer = torch.optim.AdamW(net.parameters(), **ADAM)
    z = torch.randn(args.batch_size, 1, SIDE, SIDE, device=DEVICE)
    level, target = torch.rand(args.batch_size, device=DEVICE) * 1000, torch.randn_like(z)
    start = synchronized()
    for _ in range(args.steps):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            loss = F.mse_loss(net(z, level).float(), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (synchronized() - start) / args.steps


def ours(args, x: torch.Tensor, precision: str) -> float:
    """Seconds per step of `fit`, between the first and the last line of its log."""
    parts = (InMemorySplit(part) for part in (x, x[:64], x[:64]))
    source = Source(*parts, (1, SIDE, SIDE), Discrete(256))
    config = TrainingConfig(
        steps=args.steps,
        validations=1,
        batch_size=args.batch_size,
        precision=precision,
        device=DEVICE,
        compile="never",
    )
    model, ends = fresh(args), []
    take_in = model.take_in

    def after_step(*given):  # the last thing that a step does
        ends.append(synchronized())
        return take_in(*given)

    model.take_in = after_step
    start = synchronized()
    fit_model(model, source, config)
    return (ends[-1] - ends[0]) / (args.steps - 1) if args.steps > 1 else ends[-1] - start


def diffusers(args, x: torch.Tensor) -> float | None:
    """Seconds per step of the loop of diffusers' tutorial; None without it."""
    try:
        from diffusers import DDPMScheduler
    except ImportError:
        return None
    net = diffusers_unet(SIDE, args.width, WIDTHS, DEPTH).to(DEVICE)
    args.sizes["diffusers' loop, float32"] = sum(p.numel() for p in net.parameters())
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(net.parameters(), **ADAM)
    clean = (x.float() / 127.5 - 1).to(DEVICE)
    start = synchronized()
    for _ in range(args.steps):
        rows = torch.randint(len(clean), (args.batch_size,), device=DEVICE)
        batch = clean[rows]
        noise = torch.randn_like(batch)
        t = torch.randint(1000, (args.batch_size,), device=DEVICE)
        predicted = net(scheduler.add_noise(batch, noise, t), t, return_dict=False)[0]
        F.mse_loss(predicted, noise).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (synchronized() - start) / args.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", default="")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    x = load_data(args.data).train.x if args.data else torch.randint(256, (512, 1, SIDE, SIDE))
    own = sum(p.numel() for p in fresh(args).network.parameters())
    rows = {
        "bare loop, float32": lambda: bare(args, x),
        "lowerbound, float32": lambda: ours(args, x, "float32"),
        "bare loop, bf16": lambda: bare(args, x, half=True),
        "lowerbound, bf16": lambda: ours(args, x, "bf16"),
        "diffusers' loop, float32": lambda: diffusers(args, x),
    }
    args.sizes = dict.fromkeys(rows, own)
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(args.rounds + 1):  # the first warms up
        order = list(rows) if turn % 2 else list(rows)[::-1]
        for name in order:
            found = rows[name]()
            if turn and found is not None:
                times[name].append(found)
    print(
        f"28×28, batch {args.batch_size}, {args.steps} steps, {DEVICE}, {args.threads} threads, "
        f"torch {torch.__version__}, median of {args.rounds} interleaved rounds"
    )
    print(f"{'':28}{'parameters':>12}{'step':>10}{'of the bare loop':>18}")
    for name, values in times.items():
        if not values:
            print(f"{name:28}{'not there':>12}")
            continue
        base = times["bare loop, bf16" if "bf16" in name else "bare loop, float32"]
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        step = 1000 * statistics.median(values)
        print(f"{name:28}{args.sizes[name]:>12,}{step:>7.0f} ms{ratio:>18.3f}")


if __name__ == "__main__":
    main()
