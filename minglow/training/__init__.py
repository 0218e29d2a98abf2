"""Training: the loop, optimizers, state, evaluation, diagnosis, several processes."""

from minglow.training.config import TrainingConfig
from minglow.training.evaluation import evaluate
from minglow.training.loop import Diverged, Interrupted, Progress, train
from minglow.training.optimizers import Adam, Adamax, OfficialAdamax, PolyakAverage

__all__ = [
    "Adam", "Adamax", "Diverged", "Interrupted", "OfficialAdamax", "PolyakAverage", "Progress",
    "TrainingConfig", "evaluate", "train",
]
