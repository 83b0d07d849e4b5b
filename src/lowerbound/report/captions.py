"""What the report says of each picture of a run: its heading, what it shows, how to read it."""

from __future__ import annotations

__all__ = ["HALVES", "OF_DIFFUSION", "PICTURES"]

PICTURES = {
    "decomposition.png": (
        "What the bound leaves out",
        "The bound below the line log p(x), with the gap between them shaded",
        "log p(x) = bound + gap, where the gap is the distance from q(z|x) to the true posterior, "
        "KL(q(z|x) ‖ p(z|x)). Prior Monte Carlo, where it is shown, looks for latents without an "
        "encoder: what it misses is why there is one.",
    ),
    "samples.png": (
        "Samples",
        "Draws from the model, and their means",
        "What the model makes of nothing but its prior. Draws carry the noise of p(x|z), means "
        "do not. If they resemble the data, the model has understood something of them.",
    ),
    "reconstructions.png": (
        "Reconstructions",
        "Examples beside their reconstructions",
        "Examples after encoding and decoding. What is lost is what the latents did not carry.",
    ),
    "latents.png": (
        "Latents",
        "Scatter of the latents beside a scatter of the data",
        "Each point is an example, placed by its latents; beside it the same examples placed by "
        "the principal components of the data. Labels, where there are any, colour the points; "
        "the model has not seen them unless it is conditional.",
    ),
    "codes.png": (
        "Codes",
        "Bars of how often each code is used, and examples beside the map of their codes",
        "How often each code occurs in training, the most frequent first; the broken line is an "
        "even use. Where the codes are a grid, examples stand beside the codes of their places: "
        "one colour is one code of the first codebook.",
    ),
    "interpolations.png": (
        "Interpolations",
        "Decoded steps between pairs of examples",
        "Straight lines through the latent space from one example to another, decoded on the "
        "way. Plausible steps mean a latent space without holes.",
    ),
    "levels.png": (
        "Levels",
        "Rows of images, each with more levels of latents drawn anew, and the rate of each level",
        "In every row the first image is the same draw. The others keep its levels above the one "
        "named, and have the rest drawn anew: what a row has in common is what those levels hold.",
    ),
    "noise-levels.png": (
        "Where the bits go",
        "Bits per dimension at each noise level, and bars of the three terms of the bound",
        "Left, what denoising costs at each noise level; the area is the diffusion term. Right, "
        "the three terms of the bound: the clean end, all of denoising, and the noisy end.",
    ),
    "denoising.png": (
        "From noise to data",
        "Rows of images, from what the denoiser sees in pure noise to a finished draw",
        "Each row is one draw. From left to right is what the denoiser takes for x while noise is "
        "taken away: first little but the mean of the data, then its coarse shape, then details.",
    ),
    "plane.png": (
        "The latent plane",
        "Grid of decoded points of the latent plane",
        "What each point of the two-dimensional latent space decodes to, spaced so that every "
        "cell is equally likely under the prior.",
    ),
    "training.png": (
        "Training",
        "Curves of the bound, and of rate against distortion",
        "The bound over the steps.",
    ),
}
HALVES = (
    "At the right its two halves against each other: nats paid for the latents (rate) and nats "
    "still missing (distortion). Large dots are validations, small ones steps of training."
)
"""Said of training.png where it has that panel."""
OF_DIFFUSION = {
    "interpolations.png": (
        "Ways from the noise of one example to that of another. Each noise on the way becomes an "
        "example by solving an ordinary differential equation (ODE), and so did the examples "
        "become noise."
    ),
}
"""What is said of a picture of a diffusion in place of the usual caption."""
