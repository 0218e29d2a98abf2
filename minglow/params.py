"""All parameters as one vector and all gradients as another, for optimizers, averages and files."""

import numpy as np

from minglow.bijection import Module


def parameters(module: Module) -> list[tuple[str, Module, str]]:
    """(path, owner, name) of every parameter, in the order of Module.walk."""
    return [(f"{path}.{name}" if path else name, owner, name)
            for path, owner in module.walk() for name in owner.params]


class FlatParams:
    """Move every parameter below `module` into one vector; the modules keep views of it.

    value  (P,) every parameter, in the order of Module.walk, on the host or on a device as they were
    grad   (P,) every gradient, in the same order
    where  path of a parameter -> (slice of the vector, shape of the array)

    Build it once for each module: a second one would move the parameters out of the first. Raises
    ValueError if parameters have different dtypes, or if a module occurs twice.
    """

    def __init__(self, module: Module) -> None:
        owners = parameters(module)
        arrays = {path: owner.params[name] for path, owner, name in owners}
        if len(set(map(id, arrays.values()))) < len(owners):
            raise ValueError("expected every module once, got one that occurs twice")
        dtypes = {array.dtype for array in arrays.values()}
        if len(dtypes) > 1:
            raise ValueError(f"expected parameters of one dtype, got {sorted(map(str, dtypes))}")
        self.where: dict[str, tuple[slice, tuple[int, ...]]] = {}
        size = 0
        for path, array in arrays.items():
            self.where[path] = slice(size, size + array.size), array.shape
            size += array.size
        like = next(iter(arrays.values()), np.empty(0, np.float32))
        self.value, self.grad = np.empty_like(like, shape=size), np.zeros_like(like, shape=size)
        del arrays  # so that each array is freed once a view replaces it
        for path, owner, name in owners:
            self.view(self.value, path)[...] = owner.params[name]
            self.view(self.grad, path)[...] = owner.grads[name]
            owner.params[name] = self.view(self.value, path)
            owner.grads[name] = self.view(self.grad, path)

    def view(self, vector: np.ndarray, path: str) -> np.ndarray:
        """The entries of a (P,) vector for the parameter at `path`, as a view in its shape."""
        part, shape = self.where[path]
        return vector[part].reshape(shape)
