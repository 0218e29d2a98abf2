"""Parameters that training changes in place count in every method from then on."""

import copy

import numpy as np

from minglow.bijection import Bijection
from minglow.params import parameters
from minglow.testing.examples import Seed, examples, finite_forward, has_method, nearby, perturbed
from minglow.testing.explain import PropertyFailed, agree, describe
from minglow.testing.gradients import cotangents, gradients

__tracebackhide__ = True  # pytest shows the line that called a check, not the check's own lines


def check_updates(layer: Bijection, x: np.ndarray | None = None, rng: Seed = 0) -> None:
    """Parameters that are changed in place, as training does, count in every method from then on.

    A layer that was called and then changed gives the results of a copy that was never called. Besides,
    inverse's x depends on a parameter exactly if forward's y does, and log_det only if y does, but near
    x = 0. The gradients are left out for a layer without backward.
    """
    for candidate, example in examples(layer, x, rng):
        batch = nearby(example)  # where y depends on every parameter, as x**p at x = 1 does not
        fresh = copy.deepcopy(candidate)
        y, log_det, cache = finite_forward(candidate, batch)
        parts = cotangents(y, log_det, rng)
        if has_method(candidate, "backward"):
            candidate.backward(*parts, cache)
        results = _results(candidate, batch, y)
        updated = perturbed(fresh, rng, 1e-3)
        for (path, owner, name), (_, other, _) in zip(parameters(candidate), parameters(updated)):
            y = results["forward's y"]  # with the parameters that were changed before this one
            results["inverse's x"] = candidate.inverse(y)[0]
            owner.params[name][...] = other.params[name]
            after = _results(candidate, batch, y)
            # Between the two limits lies what may be rounding, or a parameter that hardly matters here.
            changed = [key for key in results if not agree(after[key], results[key], 1e-8)]
            same = [key for key in results if agree(after[key], results[key], 1e-12)]
            missing = [key for key in ("forward's y", "inverse's x") if key in same]
            if missing and changed and (
                    changed != ["forward's log_det"] or np.min(np.abs(batch)) > 1e-3):
                raise PropertyFailed("an update of the parameters", f"{path}, {describe(batch)}",
                                     f"a change of {' and '.join(changed)} only",
                                     f"one of {' and '.join(missing)}, too")
            results = after
        found, expected = _results(candidate, batch, y), _results(updated, batch, y)
        for called, values in (candidate, found), (updated, expected):
            if has_method(called, "backward"):
                values |= {f"backward's {name}": gradient for name, gradient in gradients(
                    called, called.forward(batch)[2], *parts).items()}
        for name, value in found.items():
            if not agree(value, expected[name], 1e-9):
                raise PropertyFailed("an update of the parameters", f"{name}, {describe(batch)}", value,
                                     expected[name], "A copy that has the same parameters and was never "
                                     "called gives the expected value: the layer remembers an old one.")


def _results(layer: Bijection, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """inverse's x, and forward's y and log_det; forward comes last, since it may refresh a memo."""
    back = layer.inverse(y)[0]
    new_y, log_det, _ = layer.forward(x)
    return {"forward's y": new_y, "inverse's x": back, "forward's log_det": log_det}
