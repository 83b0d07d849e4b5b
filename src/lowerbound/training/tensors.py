"""Groups of tensors as the bytes of a safetensors file, piece by piece and without a copy.

    8 bytes: length n of the header, little-endian
    n bytes: JSON, {name: {"dtype", "shape", "data_offsets": [begin, end]}}, padded with spaces
    then the tensors' own bytes, one after the other

The library's writer takes the whole file in memory, twice; a checkpoint holds five times the
weights, and is written while a run waits.

References:
    Hugging Face, safetensors: format, https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["pieces_of"]

ALIGNMENT = 8
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def pieces_of(group: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """The bytes of a group: the header, then each tensor; what shares memory comes twice.

    Raises:
        KeyError: a dtype that the format does not have.
    """
    names = sorted(group, key=lambda name: (-group[name].element_size(), name))  # aligned so
    header: dict[str, Any] = {}
    begin = 0
    for name in names:
        tensor = group[name]
        end = begin + tensor.numel() * tensor.element_size()
        shape, offsets = list(tensor.shape), [begin, end]
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": offsets}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for name in names:
        plain = group[name].detach().cpu().contiguous()
        yield plain.reshape(-1).view(torch.uint8).numpy().data
