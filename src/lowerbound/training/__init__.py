"""Training: one straight loop, one state that holds everything, checkpoints that are whole."""

from lowerbound.training.loop import History, fit_model

__all__ = ["History", "fit_model"]
