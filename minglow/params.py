"""All parameters as one vector, all gradients as another.

Floor 1. Optimisers, checkpoints and averages are then arithmetic on whole vectors.
"""

from __future__ import annotations

import numpy as np

from minglow.bijection import Module


class FlatParams:
    """Move every parameter below `module` into one vector and leave views behind.

    value  (P,) every parameter, in the order of Module.walk
    grad   (P,) every gradient, in the same order
    where  path of a parameter -> (slice of the vector, shape of the array)

    The vectors are where the parameters are: on the host, or on a device.
    Build it once for a module: a second one would move the parameters out of the first.
    Raises ValueError where parameters have different dtypes, or where a module occurs twice.
    """

    def __init__(self, module: Module) -> None:
        owners = [
            (f"{path}.{name}" if path else name, owner, name)
            for path, owner in module.walk()
            for name in owner.params
        ]
        if len({id(owner.params[name]) for _, owner, name in owners}) < len(owners):
            raise ValueError("expected every module once, got one that occurs in two places")
        dtypes = {owner.params[name].dtype for _, owner, name in owners}
        if len(dtypes) > 1:
            raise ValueError(f"expected parameters of one dtype, got {sorted(map(str, dtypes))}")
        self.where: dict[str, tuple[slice, tuple[int, ...]]] = {}
        start = 0
        for path, owner, name in owners:
            array = owner.params[name]
            self.where[path] = slice(start, start + array.size), array.shape
            start += array.size
        some = next((owner.params[name] for _, owner, name in owners), np.empty(0, np.float32))
        self.value, self.grad = np.empty_like(some, shape=start), np.zeros_like(some, shape=start)
        for path, owner, name in owners:
            self.view(self.value, path)[...] = owner.params[name]
            self.view(self.grad, path)[...] = owner.grads[name]
            owner.params[name] = self.view(self.value, path)
            owner.grads[name] = self.view(self.grad, path)

    def view(self, vector: np.ndarray, path: str) -> np.ndarray:
        """The part of a (P,) vector that belongs to the parameter at `path`, in its shape."""
        part, shape = self.where[path]
        return vector[part].reshape(shape)
