"""One training step of the smallest Glow: python -m pdb notebooks/step_through.py [loops | numpy]"""

import sys

import numpy as np

import minglow
from minglow.testing import perturbed


def small_flow():
    """A perturbed flow of one step for images of 4 x 4 pixels, and three images."""
    images = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 4, 4, 1))
    flow = minglow.glow((4, 4, 1), levels=1, flow_steps=1, hidden=4, rng=0, dtype=np.float64)
    flow.initialize(images)
    return perturbed(flow), images


def training_step(flow, images):
    """The loss; its derivatives with respect to all parameters are then in flow.flat.grad."""
    flow.flat.grad[...] = 0
    return flow.nll_backward(images).nll


if __name__ == "__main__":
    minglow.use(sys.argv[1] if len(sys.argv) > 1 else "loops")
    print(f"{training_step(*small_flow()):.4f} nats")
