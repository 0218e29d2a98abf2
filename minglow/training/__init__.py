"""Training: the loop, optimizers, state, evaluation, diagnosis, several processes."""

from minglow.training.config import TrainingConfig
from minglow.training.diagnosis import Diverged
from minglow.training.evaluation import evaluate
from minglow.training.loop import Progress, train
from minglow.training.monitor import TrainingWarning
from minglow.training.optimizers import Adam, Adamax, OfficialAdamax, PolyakAverage
from minglow.training.state import Interrupted

__all__ = [
    "Adam", "Adamax", "Diverged", "Interrupted", "OfficialAdamax", "PolyakAverage", "Progress",
    "TrainingConfig", "TrainingWarning", "evaluate", "train",
]
