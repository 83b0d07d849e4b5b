"""Solvers: from noise to data with a denoiser, whatever model it belongs to.

leaps     the numbers of a step: ancestral, DDIM, DPM-Solver++(2M), Heun, Euler
grids     where the levels lie
solve     the walk from noise to data, and back
editing   from something given: image to image, inpainting
wrappers  guidance, and x̂ kept within the data's range
"""

from lowerbound.solvers.editing import inpaint, noised, part_way, renoise
from lowerbound.solvers.grids import GRIDS, grid
from lowerbound.solvers.leaps import METHODS, Leap, Method, plan
from lowerbound.solvers.solve import Denoise, Seen, finish, invert, solve
from lowerbound.solvers.wrappers import clipped, guided, guided_pair, thresholded

__all__ = [
    "GRIDS",
    "METHODS",
    "Denoise",
    "Leap",
    "Method",
    "Seen",
    "clipped",
    "finish",
    "grid",
    "guided",
    "guided_pair",
    "inpaint",
    "invert",
    "noised",
    "part_way",
    "plan",
    "renoise",
    "solve",
    "thresholded",
]
