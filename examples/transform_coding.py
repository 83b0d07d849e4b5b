"""Transform coding: the cosine transform is an encoder and decoder that nobody had to train.

z = ⟨φ_k, x⟩ and x = Σ z_k φ_k is exact; keeping the n coefficients of the largest variance is a
lossy code. PCA, whose basis is fitted to the data, is never worse at equal n and equal at n = D;
a code that forgets to take the mean off first pays for it at small n.
"""

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels, tiles
from scipy.fft import dctn, idctn
from sklearn.datasets import load_digits

import lowerbound
from lowerbound.data import InMemorySplit, Source


def basis(size: int = 8) -> torch.Tensor:
    """The orthonormal two-dimensional cosine transform as a matrix (D, D), one row per φ_k."""
    units = torch.eye(size**2).double().reshape(-1, size, size).numpy()
    return torch.from_numpy(dctn(units, axes=(1, 2), norm="ortho")).flatten(1).T


def error(x: torch.Tensor, rows: torch.Tensor) -> float:
    """Squared error per pixel of x (N, D) kept by its coefficients on orthonormal rows (n, D)."""
    return float((x - (x @ rows.T) @ rows).square().mean())


def ordered(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The rows of a basis, those with the largest variance of the coefficient first."""
    return rows[(x @ rows.T).var(0, correction=0).argsort(descending=True, stable=True)]


def main() -> None:
    args = arguments(__doc__)
    x = torch.from_numpy(load_digits().data / 16)  # (1797, 64)
    D, mean = x.shape[1], x.mean(0)
    centred = x - mean
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    eigenvalues, pca = eigenvalues.flip(0), vectors.T.flip(0)
    cosines = ordered(centred, basis())
    ns = range(0, D + 1, 4 if args.quick else 1)
    errors = {
        "DCT, the mean left in": [error(x, cosines[:n]) for n in ns],
        "DCT, centred": [error(centred, cosines[:n]) for n in ns],
        "PCA": [error(centred, pca[:n]) for n in ns],
    }
    worse = sum(p > c + 1e-12 for c, p in zip(errors["DCT, centred"], errors["PCA"], strict=True))
    part = InMemorySplit(x.reshape(-1, 1, 8, 8))
    source = Source(part, part, part, (1, 8, 8), lowerbound.Real())
    model = lowerbound.create_model("dct", source, latent_dim=10)
    lowerbound.fit(model, source, quiet=True)
    ours = (model.decode(model.encode(part.x).mean).mean - part.x).square().mean()
    image = x[0].reshape(8, 8).numpy()
    there_and_back = idctn(dctn(image, norm="ortho"), norm="ortho")
    rows = [
        (
            "a digit through the DCT and back: largest error",
            abs(there_and_back - image).max(),
            0,
            1e-12,
        ),
        (
            "φ orthonormal: largest error of ΦΦᵀ",
            (cosines @ cosines.T - torch.eye(D)).abs().max(),
            0,
            1e-12,
        ),
        (
            "energy kept by the transform",
            (x @ cosines.T).square().mean(),
            x.square().mean(),
            1e-12,
        ),
        ("n = 10, DCT, the mean left in", error(x, cosines[:10]), 0.142, 5e-4),
        ("n = 10, DCT, centred", error(centred, cosines[:10]), 0.044, 5e-4),
        ("n = 10, the library's dct", ours, error(centred, cosines[:10]), 1e-9),
        ("n = 10, PCA", error(centred, pca[:10]), eigenvalues[10:].sum() / D, 1e-12),
        ("n = 10, PCA, against the table", error(centred, pca[:10]), 0.01920, 5e-6),
        ("numbers n at which PCA is worse than the DCT", worse, 0, 0),
        ("n = 64, DCT, centred", errors["DCT, centred"][-1], 0, 1e-12),
        ("n = 64, PCA", errors["PCA"][-1], 0, 1e-12),
    ]
    figure, axes = panels(
        "Squared error per pixel", "A digit from n DCT numbers", "… from n of PCA"
    )
    for (label, values), colour in zip(errors.items(), (MARK, DATA, MODEL), strict=True):
        axes[0].plot(ns, values, color=colour, label=label)
    axes[0].set(xlabel="coefficients kept, n")
    for ax, rows_of in zip(axes[1:], (cosines, pca), strict=True):
        kept = [mean + (centred[0] @ rows_of[:n].T) @ rows_of[:n] for n in (1, 3, 6, 10, 20, 64)]
        ax.imshow(tiles(torch.stack(kept).reshape(6, 8, 8), columns=3), cmap="gray_r")
        ax.set(xticks=[], yticks=[], xlabel="n = 1, 3, 6 above; 10, 20, 64 below")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
