"""Seconds of sampling beside as many bare forward passes: ours, diffusers, denoising-diffusion.

Every row samples a batch of 28×28 images with N evaluations of an untrained U-Net (float32, no
gradients), and has the same number of bare forward passes of *its own* network beside it, in turns
within one process: the ratio of the two is what the solver costs beyond the network. The three
U-Nets have the same widths, depth and attention at 7×7, and about as many parameters. Ours also
samples as the others do, with x̂ clipped; its rows end in a draw of levels from p(x|z_0). The table
has medians over the rounds; ratios are taken round by round.

    python benchmarks/sampling.py [--steps 20] [--batch-size 16] [--width 32] [--rounds 5]
                                  [--threads 2] [--clock wall|cpu] [--compile]

`--clock cpu` counts the processor's seconds in place of the clock's: on a machine that others use.

Rows of the others appear where `pip install diffusers denoising-diffusion-pytorch` is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from peers import diffusers_unet

from lowerbound.build import create_model
from lowerbound.noising import Denoised
from lowerbound.solvers import METHODS, clipped, grid, solve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SIDE, WIDTHS, DEPTH = 28, (1, 2, 2), 2


class Row(NamedTuple):
    """A sampler, and its network called once as the sampler calls it."""

    network: torch.nn.Module
    sample: Callable[[], object]
    forward: Callable[[], object]


def seconds(run: Callable[[], object], args, times: int = 1) -> float:
    """What a number of runs takes by the chosen clock."""

    def now() -> float:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return CLOCKS[args.clock]()

    start = now()
    with torch.no_grad():
        for _ in range(times):
            run()
    return now() - start


def evaluations(row: Row) -> int:
    """How often the sampler calls its network: counted, not believed."""
    calls = []
    handle = row.network.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        row.sample()
    handle.remove()
    return len(calls)


def ours(args) -> dict[str, Row]:
    """The model itself: what `sample` takes, with drawing x from p(x|z_0) at the end."""
    sizes = {"width": args.width, "widths": WIDTHS, "depth": DEPTH, "fourier": ()}
    given = {"support": "discrete:256", "network": "unet", "prediction": "eps", **sizes}
    model = create_model("diffusion", (1, SIDE, SIDE), **given).to(DEVICE)
    net = model.network
    torch.nn.init.normal_(net.network.last.weight, std=0.01)  # it starts by giving zero
    if args.compile:
        net.compile()
    z = torch.randn(args.batch_size, 1, SIDE, SIDE, device=DEVICE)
    level = torch.full((args.batch_size,), 500.0, device=DEVICE)

    def row(method: str, **options) -> Row:
        steps = args.steps // METHODS[method].evaluations
        drawing = model.with_sampler(method, steps=steps, **options)
        return Row(net, lambda: drawing.sample(args.batch_size), lambda: net(z, level))

    inside, gammas = clipped(model.denoiser(), -1.0, 1.0), model.with_sampler(steps=args.steps)
    gammas = gammas.levels()
    return {
        "lowerbound, ddim": row("ddim"),
        "lowerbound, ddim, clipped": Row(
            net, lambda: model.clean(solve(inside, z, gammas)).sample(), lambda: net(z, level)
        ),
        "lowerbound, ddim, η = 1": row("ddim", eta=1.0),
        "lowerbound, dpm++": row("dpm++"),
        "lowerbound, ancestral": row("ancestral"),
        "lowerbound, heun": row("heun"),
    }


def diffusers(args) -> dict[str, Row]:
    """The pipelines of diffusers around its U-Net; their images are made arrays at the end."""
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DPMSolverMultistepScheduler

    net = diffusers_unet(SIDE, args.width, WIDTHS, DEPTH).to(DEVICE).eval()
    z = torch.randn(args.batch_size, 1, SIDE, SIDE, device=DEVICE)
    rows = {}
    for name, make, scheduler in (
        ("diffusers, ddim", DDIMPipeline, DDIMScheduler()),
        ("diffusers, dpm++", DDPMPipeline, DPMSolverMultistepScheduler()),
    ):
        pipeline = make(net, DDIMScheduler())
        pipeline.scheduler = scheduler  # pipelines exchange the scheduler they are made with
        pipeline.set_progress_bar_config(disable=True)
        given = {"batch_size": args.batch_size, "num_inference_steps": args.steps}

        def sample(pipeline=pipeline, given=given):
            return pipeline(**given, output_type="np")

        rows[name] = Row(net, sample, lambda: net(z, 500).sample)
    return rows


def lucidrains(args) -> dict[str, Row]:
    """DDIM of denoising-diffusion-pytorch around its U-Net."""
    os.environ["TQDM_DISABLE"] = "1"
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    net = Unet(dim=args.width, dim_mults=WIDTHS, channels=1, flash_attn=False)
    diffusion = GaussianDiffusion(
        net, image_size=SIDE, timesteps=1000, sampling_timesteps=args.steps
    )
    diffusion = diffusion.to(DEVICE).eval()
    z = torch.randn(args.batch_size, 1, SIDE, SIDE, device=DEVICE)
    t = torch.full((args.batch_size,), 500, device=DEVICE)
    return {
        "denoising-diffusion, ddim": Row(
            net, lambda: diffusion.sample(batch_size=args.batch_size), lambda: net(z, t)
        )
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--compile", action="store_true", help="compile our network")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)  # the others draw by the global generator
    rows, absent = ours(args), []
    for make in (diffusers, lucidrains):
        try:
            rows |= make(args)
        except ImportError as error:
            absent.append(f"{make.__name__}: not measured ({error})")
    counts = {name: evaluations(row) for name, row in rows.items()}  # and warms up
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for turn in range(args.rounds):
        for name, row in rows.items():
            pair = [lambda row=row: seconds(row.sample, args)]
            pair.append(lambda row=row, n=counts[name]: seconds(row.forward, args, n))
            # Each goes first in every other round.
            measured = [run() for run in (pair if turn % 2 else pair[::-1])]
            times[name].append(tuple(measured if turn % 2 else measured[::-1]))
    report(args, rows, counts, times)
    print("\n".join([*absent, alone(args)]))


def alone(args) -> str:
    """What a step costs beside a network that costs nothing."""
    z = torch.randn(args.batch_size, 1, SIDE, SIDE, device=DEVICE)
    gammas = grid("gamma", 200, lambda t: -13 + 18 * t)
    costs = []
    for name in ("ddim", "dpm++", "ancestral"):

        def run(name=name):
            return solve(lambda z, gamma: Denoised(z, z), z, gammas, method=name)

        run()
        cost = statistics.median(seconds(run, args) for _ in range(args.rounds)) / 200
        costs.append(f"{name} {1e6 * cost:.0f} µs")
    return f"lowerbound's own time per step, with what is done once: {', '.join(costs)}"


def report(args, rows, counts, times) -> None:
    """One table."""
    print(
        f"28×28, batch {args.batch_size}, {DEVICE}, {args.threads} threads, {args.clock} "
        f"seconds, torch {torch.__version__}, median of {args.rounds} interleaved rounds"
    )
    print(f"{'':28}{'parameters':>12}{'passes':>8}{'sampling':>11}{'passes':>10}{'ratio':>8}")
    for name, values in times.items():
        size = sum(p.numel() for p in rows[name].network.parameters())
        sampling, bare = (statistics.median(part) for part in zip(*values, strict=True))
        ratio = statistics.median(a / b for a, b in values)
        print(
            f"{name:28}{size:>12,}{counts[name]:>8}{1000 * sampling:>8.0f} ms"
            f"{1000 * bare:>7.0f} ms{ratio:>8.3f}"
        )


if __name__ == "__main__":
    main()
