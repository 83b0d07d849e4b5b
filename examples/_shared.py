"""What every example shares: its two flags, its figure, its table.

A row of the table is (quantity, computed, exact, within). A row whose exact value is known is a
claim: |computed − exact| ≤ within, or low ≤ computed < high where ``exact`` is a pair (low, high);
else the script ends with exit code 1.
"""

import argparse
import io
import sys

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

INK, GREY, DATA, MODEL, MARK = "#1f2430", "#6b7280", "#8a93a3", "#2563a8", "#c2410c"
HUES = "#332288 #cc6677 #117733 #ddcc77 #88ccee #882255 #44aa99 #999933 #aa4499 #7f7f7f".split()


def arguments(doc: str) -> argparse.Namespace:
    """Read --out PICTURE.png and --quick; one thread and one seed: runs repeat."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--out", help="draw the picture into this PNG file")
    parser.add_argument("--quick", action="store_true", help="a run of a few seconds")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return parser.parse_args()


def panels(*titles: str, columns: int = 3, width: float = 3.3, height: float = 2.9):
    """A figure that belongs to no window, and its titled axes."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure((width * columns, height * rows), layout="constrained", facecolor="white")
    axes = []
    for i, title in enumerate(titles):
        ax = figure.add_subplot(rows, columns, i + 1)
        ax.set_title(title, loc="left", fontsize=9.5, color=INK)
        ax.tick_params(labelsize=8, colors=GREY)
        ax.spines[["top", "right"]].set_visible(False)
        axes.append(ax)
    return figure, axes


def tiles(images: torch.Tensor, columns: int) -> np.ndarray:
    """Images (N, h, w) side by side with a white line between them: one image."""
    padded = torch.nn.functional.pad(images.clamp(0, 1), (1, 1, 1, 1))
    by_row = padded.unflatten(0, (-1, columns)).transpose(1, 2)
    return by_row.flatten(0, 1).flatten(1).numpy()


def finish(rows: list[tuple], figure: Figure, out: str | None) -> None:
    """Print the table, draw the picture, and fail where a claim does not hold."""
    cells = [("quantity", "computed", "exact", "difference", "within"), ("---",) * 5]
    broken = []
    for name, computed, exact, within in rows:
        computed = float(computed)
        if exact is None:
            cells.append((name, f"{computed:.6g}", "", "", ""))
            continue
        if isinstance(exact, tuple):
            low, high = exact
            cells.append((name, f"{computed:.6g}", f"[{low:g}, {high:g})", "", ""))
            if not low <= computed < high:
                broken.append(name)
            continue
        difference = computed - float(exact)
        cells.append(
            (name, f"{computed:.6g}", f"{float(exact):.6g}", f"{difference:.1e}", f"{within:.1e}")
        )
        if not abs(difference) <= within:  # a NaN is broken too
            broken.append(name)
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    for row in cells:
        print("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |")
    if out:
        for ax in figure.axes:
            ax.xaxis.label.set(fontsize=9, color=INK)
            ax.yaxis.label.set(fontsize=9, color=INK)
            if ax.get_legend_handles_labels()[0]:
                ax.legend(fontsize=7.5, edgecolor="white", framealpha=0.85)
        whole = io.BytesIO()
        figure.savefig(whole, dpi=110)
        # A palette keeps the picture of a thousand points small.
        Image.open(whole).convert("RGB").quantize(128).save(out, optimize=True)
    if broken:
        sys.exit(f"outside its tolerance: {', '.join(broken)}")
