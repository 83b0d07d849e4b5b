"""Two Gaussian classes: the discriminant, its distance between them, and how often it is right.

With one covariance S for both classes the best direction is S⁻¹(m_1 − m_0). Along it the classes
are N(±δ/2, 1), δ² = (m_1 − m_0)ᵀ S⁻¹ (m_1 − m_0), and the nearer mean is right with chance Φ(δ/2).
Principal components do not see classes: here they choose the direction that tells nothing.
"""

import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels

import lowerbound
from lowerbound.data import Rows, make_source


def angle(a, b):
    """Degrees between two lines."""
    return float(torch.rad2deg(torch.arccos((a @ b / (a.norm() * b.norm())).abs().clamp(max=1))))


def main() -> None:
    args = arguments(__doc__)
    n = 20_000 if args.quick else 200_000
    root = torch.tensor([[3.0, 0.0], [1.2, 0.6]]).double()  # S = root rootᵀ: long, and tilted
    S, gap = root @ root.T, torch.tensor([0.4, 1.2]).double()
    y = torch.arange(n) % 2
    x = (y[:, None] - 0.5) * gap + torch.randn(n, 2).double() @ root.T
    source = make_source(Rows(x=x, support=lowerbound.Real(), name="two classes", labels=y))
    found = {}
    for name in ("lda", "ppca"):
        found[name] = lowerbound.create_model(name, source, latent_dim=1).double()
        lowerbound.fit(found[name], source, quiet=True)

    test, labels = source.test[slice(None)]
    with torch.no_grad():
        z = {name: model.encode(test).mean[:, 0] for name, model in found.items()}
        # The map is linear: its direction is what it does to the axes.
        step = found["lda"].encode(torch.eye(2).double()).mean
        way = (step - found["lda"].encode(torch.zeros(2, 2).double()).mean)[:, 0]
    delta = float(gap @ torch.linalg.solve(S, gap)) ** 0.5
    means = {name: [float(z[name][labels == c].mean()) for c in (0, 1)] for name in z}
    right = {}
    for name, (low, high) in means.items():
        nearer = (z[name] - low).abs() > (z[name] - high).abs()
        right[name] = float((nearer == labels.bool()).double().mean())
    chance, error = 0.5 * (1 + math.erf(delta / 8**0.5)), 3 / len(test) ** 0.5
    rows = [
        ("angle to S⁻¹(m_1 − m_0), degrees", angle(way, torch.linalg.solve(S, gap)), 0, 1.0),
        ("distance of the classes", abs(means["lda"][1] - means["lda"][0]), delta, 3 * error),
        ("the nearer mean is right, lda", right["lda"], chance, error),
        ("the nearer mean is right, first component", right["ppca"], (0.5, chance), None),
    ]

    figure, axes = panels("Two classes", "Along the discriminant", "Along the first component")
    for c, hue in ((0, MODEL), (1, MARK)):
        some = test[labels == c][:400]
        axes[0].plot(some[:, 0], some[:, 1], ".", ms=2, color=hue)
        for ax, name in ((axes[1], "lda"), (axes[2], "ppca")):
            ax.hist(z[name][labels == c].numpy(), 60, histtype="step", color=hue)
    line = torch.tensor([[-8.0], [8.0]]) * way / way.norm() / 3
    axes[0].plot(line[:, 0], line[:, 1], color=DATA, label="discriminant")
    axes[0].set_aspect("equal")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
