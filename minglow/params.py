"""All parameters as one vector and all gradients as another, for optimizers, averages and files."""

import re
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from minglow.bijection import Module, check_initialized, check_parameter

REGISTERS = "params", "grads", "constants", "children"  # attributes of every module


def parameters(module: Module) -> list[tuple[str, Module, str]]:
    """(path, owner, name) of every parameter, in the order of Module.walk."""
    return [(f"{path}.{name}" if path else name, owner, name)
            for path, owner in module.walk() for name in owner.params]


def check_module(module: Module) -> None:
    """Raise ValueError for what would never be trained or saved, in a module and all below it.

    That is a parameter without a gradient, or of another dtype than float32 and float64; a module with
    parameters or constants that an attribute holds, but no module has among its children; and an array
    that an attribute holds, unless its name begins with _. An attribute holds what it is, and what is
    in a list, tuple or dictionary, in a bound method, or in the closure of a function.
    """
    registered = set()
    for _, part in module.walk():  # parents first
        check_initialized(part)
        registered.add(id(part))
        for name, child in part.children.items():
            if not isinstance(child, Module):
                raise ValueError(f"{part} expected children[{name!r}] to be a module, "
                                 f"got a {type(child).__name__}")
    for _, part in module.walk():
        for name, value in part.params.items():
            check_parameter(part, name, value)
            if name not in part.grads or part.grads[name].shape != value.shape:
                raise ValueError(f"{part}: params[{name!r}] has no gradient: "
                                 f"use self.add_param({name!r}, array)")
        for name, value in vars(part).items():
            for place, held in _held(name, value) if name not in REGISTERS else ():
                key = re.sub(r"\.__.*|\W", "", place)
                if isinstance(held, Module) and any(
                        id(inner) not in registered and (inner.params or inner.constants)
                        for _, inner in held.walk()):
                    raise ValueError(
                        f"{part} has a {type(held).__name__} in its attribute {place}, but not in its "
                        f"children, so that it would be neither trained nor saved: "
                        f"add self.children[{key!r}] = self.{place} to __init__")
                if not isinstance(held, Module) and not name.startswith("_"):
                    raise ValueError(
                        f"{part} has an array in its attribute {place}, which is neither trained nor "
                        f"saved: use self.add_param({key!r}, array) for a parameter, or "
                        f"self.constants[{key!r}] = array; a name that begins with _ is for results "
                        "that are only remembered")


def _held(place: str, value: Any, seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, Any]]:
    """(expression, value) of each module and each array that a value is, or holds."""
    array = isinstance(getattr(value, "nbytes", None), int) and not isinstance(value, np.generic)
    if isinstance(value, Module) or array:
        yield place, value
        return
    parts: dict[str, Any] = {}
    if isinstance(value, dict):
        parts = {f"[{key!r}]": part for key, part in value.items()}
    elif isinstance(value, (list, tuple)):
        parts = {f"[{index}]": part for index, part in enumerate(value)}
    elif isinstance(value, partial):
        parts = {".func": value.func, ".args": value.args, ".keywords": value.keywords}
    elif isinstance(value, MethodType):
        parts = {".__self__": value.__self__}
    elif isinstance(value, FunctionType):
        parts = {f".__closure__[{index}].cell_contents": cell.cell_contents
                 for index, cell in enumerate(value.__closure__ or ())}
    for step, part in parts.items() if id(value) not in seen else ():
        yield from _held(place + step, part, seen | {id(value)})


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
