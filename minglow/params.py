"""All parameters as one vector and all gradients as another, for optimizers, averages and files."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minglow.bijection import Module, check_initialized, check_parameter


def parameters(module: Module) -> list[tuple[str, Module, str]]:
    """(path, owner, name) of every parameter, in the order of Module.walk."""
    return [(f"{path}.{name}" if path else name, owner, name)
            for path, owner in module.walk() for name in owner.params]


def check_module(module: Module) -> None:
    """Raise ValueError for what would never be trained or saved, in a module and all below it.

    That is a parameter without a gradient, or of another dtype than float32 and float64; and a module
    with parameters or constants that an attribute holds, alone or in a list, tuple or dictionary, but
    no module has among its children.
    """
    check_initialized(module)
    registered = {id(part) for _, part in module.walk()}
    for _, part in module.walk():
        check_initialized(part)
        for name, value in part.params.items():
            check_parameter(part, name, value)
            if name not in part.grads or part.grads[name].shape != value.shape:
                raise ValueError(f"{part}: params[{name!r}] has no gradient: "
                                 f"use self.add_param({name!r}, array)")
        for name, held in vars(part).items():
            for found in _modules_in(held):
                if id(found) not in registered and (found.params or found.constants):
                    raise ValueError(
                        f"{part} has a {type(found).__name__} in its attribute {name}, but not in its "
                        f"children, so that it would be neither trained nor saved: "
                        f"add self.children[{name!r}] = ... to __init__")


def _modules_in(value: Any) -> Iterator[Module]:
    """The modules in a value: a module and all below it, or a list, tuple or dictionary of modules."""
    if isinstance(value, Module):
        yield from (part for _, part in value.walk())
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _modules_in(part)


class FlatParams:
    """Move every parameter below `module` into one vector; the modules keep views of it.

    value  (P,) every parameter, in the order of Module.walk, on the host or on a device as they were
    grad   (P,) every gradient, in the same order
    where  path of a parameter -> (slice of the vector, shape of the array)

    Build it once for each module: a second one would move the parameters out of the first. Raises
    ValueError if parameters have different dtypes, if a module occurs twice, or where check_module does.
    """

    def __init__(self, module: Module) -> None:
        check_module(module)
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
