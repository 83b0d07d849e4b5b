"""Features of a network in an ONNX file: Inception's, or any other's that the user has.

An ONNX file holds a graph of known operations and its numbers, and no code: what is read here
cannot do anything but compute. Files of weights that are pickles, or that come with programs, are
not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lowerbound._shapes import shown_shape
from lowerbound.errors import printable, refuse
from lowerbound.evaluation.base import blocks

__all__ = ["ExportedFeatures"]

ROWS_AT_ONCE = 64


class ExportedFeatures:
    """Features of examples by a network in an ONNX file.

    Args:
        path: the file; one input (N, *event) of float32, in the units of the data, any N. Of its
            outputs the first is taken, flattened to (N, d).
        event_shape: shape of an example, which the network is tried with.

    Raises:
        InputError: no such file, onnxruntime is not installed, a file that cannot be read, or a
            network that does not take these examples.
    """

    def __init__(self, path: Path | str, event_shape: Sequence[int]) -> None:
        if not Path(path).is_file():
            raise refuse("features", "an ONNX file", path)
        try:
            import onnxruntime
        except ImportError as error:
            remedy = "run `pip install onnxruntime`"
            raise refuse(
                "features", "left out where onnxruntime is not installed", path, remedy
            ) from error
        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # what is wrong is said below, once
            providers = ["CPUExecutionProvider"]
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
            self.name = Path(path).stem
            tried = self(torch.zeros(2, *event_shape))
        except Exception as error:  # of the library, which has no common one
            required = (
                f"an ONNX network of {shown_shape(event_shape)} examples, any number of them"
            )
            raise refuse("features", required, printable(error, 160)) from error
        if tried.shape[0] != 2 or not tried.isfinite().all():
            raise refuse("features", "finite numbers for each example", shown_shape(tried.shape))

    def __call__(self, x: Tensor) -> Tensor:
        """Features (N, d) of examples (N, *event) in data units, on the CPU."""
        (given,) = self.session.get_inputs()
        parts = [
            self.session.run(None, {given.name: x[rows].cpu().float().contiguous().numpy()})[0]
            for rows in blocks(len(x), ROWS_AT_ONCE)
        ]
        return torch.cat([torch.from_numpy(part).float().flatten(1) for part in parts])
