"""The explorables' flows and digits, as a script that a browser loads: explore/data.js.

    python docs/explore/export.py

trains two flows in the plane, in about ten seconds, and reads notebooks/models/digits.npz. One
machine always writes the same file. On another, sums may round differently, and the flows differ a
little.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minglow
from minglow.bijection import Module
from minglow.data import digits, pinwheel, two_moons
from minglow.training.optimizers import Adam, warm_up_cosine

HERE = Path(__file__).parent
DIGITS = HERE.parents[1] / "notebooks" / "models" / "digits.npz"
TARGET = HERE / "explore" / "data.js"
TOYS = {"two_moons": two_moons, "pinwheel": pinwheel}
TRAINING_STEPS, BATCH_SIZE, LEARNING_RATE, WARMUP_STEPS = 1500, 512, 0.01, 50
POINTS = 800  # of each toy density, drawn beside a flow's samples
HEAD = """\
// Written by `python docs/explore/export.py`; do not edit. A flow is a tree of layers that says where in
// its weights (float32, little endian, base64) each parameter begins and what shape it has.
// The digits: UCI's optical recognition of handwritten digits (Alpaydin & Kaynak 1998), CC BY 4.0.
"""


def plane_flow(dtype: type = np.float32) -> minglow.Flow:
    """A flow of the plane: 8 steps of actnorm, 1x1 convolution and affine coupling."""
    flow = minglow.glow((2,), flow_steps=8, hidden=24, scale="sigmoid", dtype=dtype, rng=0)
    steps = flow.bijection.layers[2:]  # without the fixed layers, which glow.js does not know
    return minglow.Flow(minglow.Chain(*steps), minglow.StandardNormal((2,)))


def trained(draw: Callable[..., np.ndarray], steps: int = TRAINING_STEPS) -> minglow.Flow:
    """A flow of the plane after `steps` of Adam, each on new points."""
    flow, rng = plane_flow(), np.random.default_rng(0)
    flow.initialize(draw(1000, rng))
    optimizer = Adam(flow.flat)
    for step in range(1, steps + 1):
        flow.flat.grad[...] = 0
        flow.nll_backward(draw(BATCH_SIZE, rng))
        optimizer.step(LEARNING_RATE * warm_up_cosine(step, steps, WARMUP_STEPS))
    return flow


def tree(flow: minglow.Flow, module: Module) -> dict[str, Any]:
    """A module as glow.js builds it again: its kind, where its parameters are, what it is made of."""
    node: dict[str, Any] = {"kind": type(module).__name__}
    for name in module.params:
        part, shape = flow.flat.where[f"{module.path}.{name}"]
        node.setdefault("params", {})[name] = [part.start, *shape]
    if isinstance(module, minglow.ActNorm) and module.factor != 1:
        raise ValueError(f"{module} has a factor {module.factor:g}, which glow.js does not know")
    if isinstance(module, minglow.AffineCoupling):
        node["scale"] = module.scale.__name__
    if isinstance(module, minglow.Level):
        node["half"] = module.half
    if isinstance(module, minglow.Flatten):
        node["shape"] = module.shape
    if module.children:
        node["children"] = {name: tree(flow, child) for name, child in module.children.items()}
    return node


def exported(flow: minglow.Flow) -> dict[str, Any]:
    """A flow on N(0, I) as glow.js reads it."""
    if not isinstance(flow.base, minglow.StandardNormal):
        raise ValueError(f"expected a flow on N(0, I), got one on {flow.base}")
    return {"tree": tree(flow, flow.bijection), "weights": base64_of(flow.flat.value)}


def base64_of(array: np.ndarray) -> str:
    """An array's numbers as float32, little endian, in base64; 0 for -0."""
    return base64.b64encode((array.astype("<f4") + 0).tobytes()).decode()


def exported_plane(name: str, flow: minglow.Flow) -> dict[str, Any]:
    """A flow of the plane, with points of the toy density that it was trained on."""
    return {**exported(flow), "points": base64_of(TOYS[name](POINTS, rng=1))}


def exported_digits() -> dict[str, Any]:
    """The notebooks' flow, with the first two held-out images of each digit."""
    images = digits()
    labels = images.held_out_labels
    chosen = [index for digit in range(10) for index in np.flatnonzero(labels == digit)[:2]]
    return {**exported(minglow.load(DIGITS)), "bins": images.bins,
            "images": images.held_out[chosen].reshape(len(chosen), -1).tolist(),
            "labels": labels[chosen].tolist()}


def script(data: dict[str, Any]) -> str:
    """data.js, one flow to a line."""
    lines = [f'"{name}":{json.dumps(value, separators=(",", ":"))}' for name, value in data.items()]
    return HEAD + "window.minglowData = {\n" + ",\n".join(lines) + "\n};\n"


def main() -> None:
    """Train, read, and write data.js."""
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data = {}
    for name, draw in TOYS.items():
        flow = trained(draw)
        data[name] = exported_plane(name, flow)
        print(f"{name}: {-flow.log_prob(draw(20000, rng=2)).mean():.3f} nats for new points")
    text = script({**data, "digits": exported_digits()})
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET.name}: {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
