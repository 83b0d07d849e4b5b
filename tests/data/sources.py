"""Every kind of source, small: 60 examples, each with its number as its first value."""

from __future__ import annotations

import importlib.util
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowerbound.data import DataLimits, Source, load_data

NUM = 60
ON_DISK = DataLimits(memory_bytes=0, sampled_rows=NUM, threads=2)
CLASSES = ("blue", "green", "red")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (NUM, 6, 8), dtype=np.uint8)
PIXELS[:, 0, 0] = np.arange(NUM)
TABLE = RNG.normal(size=(NUM, 3)).astype(np.float32)
TABLE[:, 0] = np.arange(NUM)
LABELS = np.arange(NUM) % 3


def png(index: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[index]).save(stream, "PNG")
    return stream.getvalue()


def table(folder: Path) -> str:
    np.save(folder / "table.npy", TABLE)
    return str(folder / "table.npy")


def pixels(folder: Path) -> str:
    np.save(folder / "pixels.npy", PIXELS)
    return str(folder / "pixels.npy")


def image_folder(folder: Path) -> str:
    for i in range(NUM):
        place = folder / "images" / CLASSES[LABELS[i]]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:03}.png").write_bytes(png(i))
    return f"folder:{folder / 'images'}"


def archives(folder: Path) -> str:
    """Two archives, so that examples are numbered across them."""
    for part in range(2):
        with tarfile.open(folder / f"{part}.tar", "w") as tar:
            for i in range(part * NUM // 2, (part + 1) * NUM // 2):
                for ending, data in (("cls", str(LABELS[i]).encode()), ("png", png(i))):
                    member = tarfile.TarInfo(f"{i:03}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return str(folder)


def image_columns():
    import datasets

    cells = [{"bytes": png(i), "path": None} for i in range(NUM)]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    return datasets.Dataset.from_dict(
        {"image": cells, "label": LABELS.tolist()}, features=datasets.Features(features)
    )


def image_parquet(folder: Path) -> str:
    image_columns().to_parquet(folder / "images.parquet")
    return str(folder / "images.parquet")


def table_parquet(folder: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: TABLE[:, j] for j, name in enumerate(("n", "a", "b"))}
    (folder / "parts").mkdir()
    for part, rows in enumerate((slice(0, 25), slice(25, NUM))):
        some = {name: column[rows] for name, column in columns.items()}
        some["label"] = LABELS[rows]
        pq.write_table(pa.table(some), folder / "parts" / f"{part}.parquet")
    return str(folder / "parts")


KINDS = {  # how it is written, and what it needs
    "table": (table, ""),
    "pixels": (pixels, ""),
    "folder": (image_folder, ""),
    "tar": (archives, ""),
    "parquet table": (table_parquet, "datasets"),
    "parquet images": (image_parquet, "datasets"),
}
PLACES = {"memory": None, "disk": ON_DISK}


def written(kind: str, folder: Path) -> str:
    """The specification of a source of a kind, written into a folder."""
    write, needs = KINDS[kind]
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip(f"the optional library {needs} is not installed")
    return write(folder)


def load(kind: str, folder: Path, place: str, **options) -> Source:
    return load_data(written(kind, folder), limits=PLACES[place], **options)


def numbers(x) -> list[int]:
    """The number that each example carries in its first value."""
    return [int(n) for n in x.flatten(1)[:, 0].tolist()]
