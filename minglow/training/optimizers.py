"""Adam, Adamax, gradient clipping, the learning rate's schedule, and the average of parameters."""

import numpy as np

from minglow import kernels
from minglow.arrays.device import on_host
from minglow.params import FlatParams

TINY = 1e-200  # a norm of 0 divides nothing


class Adam:
    """Adam with bias correction (Kingma & Ba 2015, algorithm 1).

        mean   <- beta1 mean + (1 - beta1) grad
        square <- beta2 square + (1 - beta2) grad^2
        value  <- value - rate * mean / (1 - beta1^t) / (sqrt(square / (1 - beta2^t)) + epsilon)
    """

    def __init__(self, flat: FlatParams, beta1: float = 0.9, beta2: float = 0.999,
                 epsilon: float = 1e-8) -> None:
        self.flat, self.beta1, self.beta2, self.epsilon = flat, beta1, beta2, epsilon
        self.mean, self.second = np.zeros_like(flat.value), np.zeros_like(flat.value)
        self.steps = 0

    def step(self, learning_rate: float) -> None:
        """Move the parameters once against their gradient."""
        self.steps += 1
        # sqrt(square / c) + epsilon = (sqrt(square) + epsilon sqrt(c)) / sqrt(c)
        root = (1 - self.beta2**self.steps) ** 0.5
        kernels.adam(self.flat.value, self.flat.grad, self.mean, self.second,
                     learning_rate * root / (1 - self.beta1**self.steps), self.beta1, self.beta2,
                     self.epsilon * root)


class Adamax(Adam):
    """Adamax (Kingma & Ba 2015, algorithm 2): the largest recent |gradient| for the root of squares.

        mean    <- beta1 mean + (1 - beta1) grad
        largest <- max(beta2 largest, |grad|)
        value   <- value - rate / (1 - beta1^t) * mean / (largest + epsilon)

    The paper has no epsilon; without one a parameter whose gradient is always 0 divides 0 by 0.
    """

    def step(self, learning_rate: float) -> None:
        """Move the parameters once against their gradient."""
        self.steps += 1
        learning_rate /= 1 - self.beta1**self.steps
        kernels.adamax(self.flat.value, self.flat.grad, self.mean, self.second, learning_rate,
                       self.beta1, self.beta2, self.epsilon)


class OfficialAdamax(Adamax):
    """Adamax as Glow's published code steps (openai/glow, optim.py): with Adam's bias correction.

        value <- value - rate * sqrt(1 - beta2^t) / (1 - beta1^t) * mean / (largest + epsilon)

    `largest` is not too small at first, as Adam's mean of squares is: the root shortens about the first
    1 / (1 - beta2) steps, a warm-up of its own. Its beta2 there is 1 - 1 / (steps in an epoch).
    """

    def step(self, learning_rate: float) -> None:
        """Move the parameters once against their gradient."""
        super().step(learning_rate * (1 - self.beta2 ** (self.steps + 1)) ** 0.5)


def clip_norm(grad: np.ndarray, largest: float) -> np.floating | np.ndarray:
    """Shrink the gradient (P,) in place to norm `largest` if it is longer; return its norm before.

    Raises FloatingPointError for a gradient that is not finite; on a device the norm, an array of no
    dimensions, says so to whoever waits for it.
    """
    norm = np.sqrt(np.einsum("i,i", grad, grad, dtype=np.float64))
    if on_host(norm) and not np.isfinite(norm):
        raise FloatingPointError("the gradient is NaN or inf: training has diverged")
    grad *= np.minimum(largest / np.maximum(norm, TINY), 1).astype(grad.dtype)
    return norm


def warm_up_cosine(step: int, steps: int, warm_up: int) -> float:
    """A factor of the learning rate at step 1 .. steps: up to 1 over `warm_up` steps, then down
    along half a cosine that would reach 0 one step after the last."""
    if step < warm_up:
        return step / warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (step - warm_up) / (steps + 1 - warm_up))))


class PolyakAverage:
    """An exponential average of the parameters (Kingma & Ba 2015, section 7.2), for evaluation.

        average <- average + max(1 - ema_decay, 1 / (t + 1)) * (value - average)

    The second term makes it Polyak's plain mean at first: the initialization does not linger.
    """

    def __init__(self, flat: FlatParams, ema_decay: float = 0.999) -> None:
        self.flat, self.ema_decay = flat, ema_decay
        self.average, self.steps = flat.value.copy(), 0

    def update(self) -> None:
        """Include the parameters as they are now."""
        self.steps += 1
        weight = max(1 - self.ema_decay, 1 / (self.steps + 1))
        kernels.move_towards(self.average, self.flat.value, weight)
