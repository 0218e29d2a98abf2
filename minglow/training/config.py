"""How a flow is trained: one declaration for Python, the command line and files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minglow.data import Images, Table
from minglow.storage.settings import Config, option
from minglow.training.optimizers import Adam, Adamax, OfficialAdamax


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """Settings of `minglow.train`."""

    steps: int = option(2500, "optimizer steps", minimum=1)
    batch_size: int | None = option(None, "samples in a step: 64 images or 256 rows of a table if not "
                                          "given", minimum=1)
    learning_rate: float | None = option(None, "peak of the learning rate; if not given, the model's: "
                                               "nice 0.002, official 0.003, others 0.01", above=0)
    warmup_steps: int = option(200, "steps in which the learning rate rises; then it falls as a cosine")
    max_grad_norm: float | None = option(100.0, "largest norm of the gradient", above=0)
    ema_decay: float | None = option(None, "decay of the average of the parameters, which is evaluated "
                                           "and saved: over 1 / (1 - decay) steps, so take 0.99 for a "
                                           "short run; if not given, 0.999 for images and 0.99 for "
                                           "tables", below=1)
    shift: float | None = option(None, "largest random shift of half of the training images, in pixels; "
                                       "if not given, the data's own, 1 for the digits")
    integer_shift: bool = option(False, "shift by whole pixels only, without blur")
    flip: bool = option(False, "mirror half of the training images left to right")
    classification_weight: float = option(0.0, "weight of the cross entropy of a class-conditional "
                                               "prior's classifier, in nats")
    optimizer: str = option("adam", "optimizer; official-adamax is the official Glow code's",
                            choices={"adam": Adam, "adamax": Adamax, "official-adamax": OfficialAdamax})
    micro_batches: int = option(1, "parts that each batch is computed in: less memory, the same step",
                                minimum=1)
    evaluate_every: int | None = option(None, "steps between evaluations, which also save the run: 100, "
                                              "or ten epochs of a small table if not given", minimum=1)
    patience: int | None = option(None, "end training after this number of evaluations without an "
                                        "improvement, with the best parameters", minimum=1)
    seed: int = option(0, "seed of the initialization, the batches and the samples")

    def resolved(self, model: Any, data: Images | Table) -> TrainingConfig:
        """The same settings, with those that the model or the data decide.

        Raises ValueError for augmentation, which only images have, of a table.
        """
        table, decay = data.bins is None, self.ema_decay
        if table and (self.shift or self.flip):
            raise ValueError("expected images to shift or to flip, got a table")
        batch_size = self.batch_size or (256 if table else 64)
        often = int(np.clip(10 * len(data.train) // batch_size, 10, 100)) if table else 100
        learning_rate = self.learning_rate or getattr(model, "default_learning_rate", 0.01)
        return replace(self, learning_rate=learning_rate,
                       batch_size=batch_size, evaluate_every=self.evaluate_every or often,
                       ema_decay=(0.99 if table else 0.999) if decay is None else decay,
                       shift=data.shift if self.shift is None else self.shift)
