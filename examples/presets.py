"""The literature's names side by side: each preset on digits, its bound, L_50 and a few draws.

All of them are one VAE or one quantised autoencoder with another part, objective or penalty. What
is reported is the same for all: a bound on log p(x), of which neither beta nor a penalty is a
part, and where there are importance weights the tighter L_50. At this size and length the order
says little; recipes/ has longer runs.
"""

import torch
from _shared import DATA, GREY, INK, MODEL, arguments, finish, panels, tiles

import lowerbound
from lowerbound.presets import PRESETS

SIZES = {
    "vae": {"latent_dim": 8, "width": 64},
    "vqvae": {"places": 4, "width": 64, "prior_width": 32, "prior_depth": 1},
}
OF_PRIOR = {
    "vamp": {"prior_components": 50},
    "flow": {"prior_layers": 4, "flow_width": 32},
    "autoregressive": {"prior_layers": 4, "flow_width": 32},
}
K = 50


def trained(name: str, source, steps: int):
    """The model that a preset is, trained as the preset says."""
    preset = PRESETS[name]
    prior = OF_PRIOR.get(preset.options.get("prior"), {})
    options = {**SIZES[preset.model], **prior, **preset.options}
    model = lowerbound.create_model(preset.model, source, **options)
    with torch.enable_grad():
        lowerbound.fit(model, source, steps=steps, quiet=True, **preset.training)
    return model


@torch.no_grad()
def main() -> None:
    args = arguments(__doc__)
    source = lowerbound.load_data("digits")
    x = source.test[slice(0, 60 if args.quick else None)][0].float()
    rows, bounds, many, draws, apart = [], [], [], [], 0.0
    noise = torch.Generator().manual_seed(1)
    for name in PRESETS:
        model = trained(name, source, 40 if args.quick else 1_500)
        bound = model.bound(x, num_samples=K)
        weighted = lowerbound.log_likelihood(model, x, num_samples=K).value
        gap = float((weighted - bound.value).mean())
        point = PRESETS[name].model == "vqvae"  # one code for each x: every weight is the bound
        if not point:  # other draws than those of the bound: the mean log-weight is it once more
            own = model.noise(len(x), K, noise)
            again = model.draw(x, K, noise=own).log_weight.mean(0) - bound.value
            apart = max(apart, float(again.mean().abs() / (again.std() / len(x) ** 0.5)))
        rows.append((f"{name}: L_50 above its bound, nats", gap, 0 if point else (-0.2, 40), 1e-3))
        rows.append((f"{name}: bound, nats per digit", bound.value.mean(), None, None))
        bounds.append(float(bound.value.mean()))
        many.append(float(weighted.mean()))
        draws.append(model.sample(10, generator=torch.Generator().manual_seed(0), mean=True))
    rows.append(("bound less a mean log-weight, standard errors", apart, (0, 5), None))

    figure, (left, right) = panels("Nats per digit", "Means of ten draws of each", height=4.2)
    places = list(range(len(PRESETS)))[::-1]
    left.hlines(places, bounds, many, color=GREY, linewidth=1)
    left.plot(bounds, places, "o", color=DATA, markersize=5, label="bound")
    left.plot(many, places, "o", color=MODEL, markersize=5, label="L_50")
    left.set(yticks=places, yticklabels=list(PRESETS), xlabel="nats; more is better")
    left.tick_params(axis="y", labelsize=7, colors=INK)
    right.imshow(tiles(torch.cat(draws).squeeze(1) / 16, columns=10), cmap="gray_r", aspect="auto")
    right.set_axis_off()
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
