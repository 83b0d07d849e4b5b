"""Independent pixels: log p(x) = Σ_i log p(x_i), by the likelihood of the data's support."""

import torch
from torch import nn

from lowerbound._shapes import num_elements
from lowerbound.data import measured
from lowerbound.models import Model
from lowerbound.models.heads import HeadOptions, make_head
from lowerbound.objectives import Bound


class Independent(Model):
    """Every element by itself: there is no latent, and the bound is log p(x)."""

    name, closed_form, has_encoder = "independent", True, False

    def __init__(self, likelihood):
        super().__init__(likelihood.event_shape, likelihood.support)
        size = likelihood.num_outputs * num_elements(likelihood.event_shape)
        self.likelihood, self.raw = likelihood, nn.Parameter(0.01 * torch.randn(1, size))

    @classmethod
    def build(cls, event_shape, support, options: HeadOptions):
        model = cls(make_head(event_shape, support, options))
        model.options = options
        return model

    def noise(self, batch_size, num_samples=1, generator=None):
        return {}  # nothing is drawn

    def bound(self, x, context=None, *, num_samples=1, noise=None, generator=None):
        self.check_shape(x)
        x = self.likelihood.floating(x)
        return Bound(self.likelihood(self.raw.expand(len(x), -1), x).log_prob(x), {})

    @torch.no_grad()
    def sample(self, num, context=None, *, generator=None, mean=False):
        p = self.likelihood(self.raw.expand(num, -1))
        return p.mean if mean else p.sample(generator)

    def _calibrate(self, source):
        self.likelihood.calibrate(measured(source.train))
