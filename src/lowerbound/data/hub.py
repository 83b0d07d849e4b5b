"""Opening ``t.parquet``, folders of such files, and ``hf:owner/name[:config]``.

Both need the optional library ``datasets``. Files are opened without a network; the hub is asked
for ``hf:`` alone, and not even then where HF_HUB_OFFLINE is set and its cache holds the data.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lowerbound.data.base import Rows
from lowerbound.data.columns import Reading, read_columns
from lowerbound.data.stored import DataLimits, StoredRows
from lowerbound.errors import LowerboundError, printable, refuse
from lowerbound.files import MAX_FILE_BYTES

__all__ = ["find_parquet", "read_hub", "read_parquet"]

VALIDATION_NAMES = ("validation", "valid", "val", "dev")


def find_parquet(path: Path) -> list[Path]:
    """The file itself, or the ``*.parquet`` files of a folder, in sorted order."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.glob("*.parquet") if p.is_file() and p.name[0] != ".")


def read_parquet(path: Path, *, limits: DataLimits | None, **options: Any) -> Rows | StoredRows:
    """Examples from one parquet file, or from all of a folder; options as those of `Reading`.

    Raises:
        InputError: damaged files or of several kinds, or the library is missing.
    """
    with library(str(path)) as datasets:
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = find_parquet(path)
        facts = [pq.read_metadata(file) for file in files]
        num_bytes = sum(
            max(fact.num_rows * fact.num_columns * 8, _unpacked(fact)) for fact in facts
        )
        most = MAX_FILE_BYTES if limits is None else limits.memory_bytes
        if num_bytes <= most:
            table = pa.concat_tables([pq.read_table(file) for file in files])
            dataset = datasets.Dataset(datasets.table.InMemoryTable(table))
        elif limits is None:
            limit = f"at most {most} bytes of data"
            raise refuse(path, limit, f"{num_bytes} by its header", "split it")
        else:  # unpacked once into the library's cache, from where it is mapped
            dataset = datasets.Dataset.from_parquet([str(file) for file in files])
    return read_columns(dataset, str(path), Reading(limits=limits, **options))


def _unpacked(fact: Any) -> int:
    return sum(fact.row_group(i).total_byte_size for i in range(fact.num_row_groups))


def read_hub(text: str, **options: Any) -> Rows | StoredRows:
    """Examples of ``owner/name`` or ``owner/name:config``; its own splits are kept.

    Where there is no test set the validation set is; what is missing is drawn from the training
    set.

    Raises:
        InputError: no such data set, no way to it, or the library is missing.
    """
    name, _, config = text.partition(":")
    with library(f"hf:{text}") as datasets:
        found = datasets.load_dataset(name, config or None)
        train, validation, test = chosen_splits(list(found))
        parts = [found[part] for part in (train, validation, test) if part is not None]
        dataset = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
        held_out = (
            0 if validation is None else len(found[validation]),
            0 if test is None else len(found[test]),
        )
    return read_columns(dataset, f"hf:{text}", Reading(files=True, **options), held_out)


def chosen_splits(names: list[str]) -> tuple[str, str | None, str | None]:
    """Which splits train, validate and test; the one that there is trains.

    >>> chosen_splits(["train", "valid"])
    ('train', None, 'valid')
    """
    train = "train" if "train" in names else names[0]
    others = [name for name in names if name != train]
    validation = next((name for name in VALIDATION_NAMES if name in others), None)
    test = "test" if "test" in others else None
    return (train, None, validation) if test is None else (train, validation, test)


@contextlib.contextmanager
def library(name: str) -> Iterator[Any]:
    """The library ``datasets``, silenced; whatever it raises within is a refusal of ``name``."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise refuse(
            name,
            "read with the optional library datasets",
            "a Python without it",
            'pip install "lowerbound[data]"',
        ) from error
    showed = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    except LowerboundError:
        raise
    except Exception as error:  # it fails in as many ways as it has dependencies
        reason = printable(str(error) or type(error).__name__, 100)
        raise refuse(name, "data that the library datasets can open", reason) from error
    finally:
        if showed:
            datasets.enable_progress_bars()
