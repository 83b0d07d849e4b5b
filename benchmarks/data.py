"""Examples per second that a training can be fed with, by where they lie.

Every kind holds the same grey images and gives the same batches, by the same call; the table has
the median over rounds, made in turns, beside the in-memory path. Files are in the system's cache,
unless --cold asks that it be dropped for the mapped file before each round. Parquet's row appears
where ``pip install "lowerbound[data]"`` was done.

    python benchmarks/data.py [--size 32] [--num 20000] [--batch-size 128] [--rounds 3] [--cold]
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lowerbound.data import DataLimits, Source, load_data
from lowerbound.training.batches import Batches

SECONDS = 1.0


def encoded(levels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "PNG")
    return stream.getvalue()


def pictures(num: int, size: int):
    """Smooth grey images: noise would be stored as it is, and decoded too fast."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (256, 4, 4), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(s).resize((size, size), 2)) for s in small]
    return np.stack(smooth)[rng.integers(0, 256, num)]


def written(folder: Path, x) -> dict[str, str]:
    """The specification of every kind."""
    np.save(folder / "x.npy", x)
    (folder / "images").mkdir()
    with tarfile.open(folder / "x.tar", "w") as tar:
        for i, levels in enumerate(x):
            data = encoded(levels)
            (folder / "images" / f"{i:06}.png").write_bytes(data)
            member = tarfile.TarInfo(f"{i:06}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    specs = {"mapped .npy": "x.npy", "folder of PNG": "images", "tar of PNG": "x.tar"}
    if importlib.util.find_spec("datasets"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(
            pa.table({"image": [encoded(levels) for levels in x]}), folder / "x.parquet"
        )
        specs["parquet of PNG"] = "x.parquet"
    return {name: str(folder / spec) for name, spec in specs.items()}


def dropped(path: str) -> None:
    """Ask the system to forget what it holds of a file."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def speed(source: Source, batch_size: int, seed: int) -> float:
    """Examples per second of batches that nobody computes with."""
    done = 0
    with Batches(source.train, batch_size, seed) as batches:
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            batches(done)
            done += 1
        return done * batch_size / (time.perf_counter() - start)


def direct(source: Source, batch_size: int, seed: int) -> float:
    """The same without threads that read ahead."""
    order = torch.randperm(len(source.train), generator=torch.Generator().manual_seed(seed))
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        first = done % (len(order) // batch_size) * batch_size
        _ = source.train[order[first : first + batch_size]]
        done += 1
    return done * batch_size / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--num", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        specs = written(Path(name), pictures(args.num, args.size))
        rows: dict[str, Callable[[int], float]] = {}
        memory = load_data(specs["mapped .npy"], binarize="dynamic")
        rows["memory"] = lambda seed: speed(load_data(specs["mapped .npy"]), args.batch_size, seed)
        rows["memory, binarised"] = lambda seed: speed(memory, args.batch_size, seed)
        for kind, spec in specs.items():
            for threads in (1,) if spec.endswith(".npy") else (1, os.cpu_count() or 1):
                source = load_data(spec, limits=DataLimits(memory_bytes=0, threads=threads))
                title = kind if spec.endswith(".npy") else f"{kind}, {threads} decoding"
                rows[f"{title}, on demand"] = lambda s, d=source: direct(d, args.batch_size, s)
                rows[title] = lambda s, d=source: speed(d, args.batch_size, s)
        speeds: dict[str, list[float]] = {title: [] for title in rows}
        for turn in range(args.rounds):
            for title, run in rows.items():
                if args.cold and "npy" in title:
                    dropped(specs["mapped .npy"])
                speeds[title].append(run(turn))
    shape = f"{args.num} grey images of {args.size}x{args.size}, batch {args.batch_size}"
    print(f"{shape}, {os.cpu_count()} processors, median of {args.rounds} rounds")
    print(f"{'':36}{'examples/s':>12}{'of memory':>11}")
    for title, values in speeds.items():
        median = statistics.median(values)
        print(f"{title:36}{median:>12,.0f}{median / statistics.median(speeds['memory']):>11.3f}")


if __name__ == "__main__":
    main()
