"""Typed settings: one field is an argument, an option of the command line, and an entry in a file."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from reprlib import repr as shortened
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np

from minglow.validation import MAX_COUNT, check_all, check_count, check_number, check_shape

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound="Config")


@dataclass(frozen=True)
class Option:
    """What a field of a Config says besides its type and default.

    help                     one line, for `--help` and for docstrings
    minimum, maximum, above, below   bounds of a number
    choices                  names, or a mapping from names to what they stand for
    closed                   whether only its choices are taken, no function or class of one's own
    flag                     a short flag of the command line, such as -K
    cli                      whether the command line has the option
    """

    help: str
    minimum: int = 0
    maximum: int = MAX_COUNT
    above: float = -inf
    below: float = inf
    choices: Sequence[str] | Mapping[str, Any] = ()
    closed: bool = False
    flag: str = ""
    cli: bool = True

    def check(self, name: str, hint: Any, value: Any) -> Any:
        """The value in the field's type. Raises ValueError for one that does not fit."""
        kinds = get_args(hint) if type(None) in get_args(hint) else (hint,)
        if value is None and type(None) in kinds:
            return None
        if self.choices:
            return self._check_choice(name, value)
        if bool in kinds or str in kinds:
            if not isinstance(value, kinds):
                expected = "true or false" if bool in kinds else "text"
                raise ValueError(f"expected {name} to be {expected}, got {shortened(value)}")
            return value
        if int in kinds:
            return check_count(name, value, self.minimum, self.maximum)
        if float in kinds:
            return check_number(name, value, self.minimum, self.below, self.above)
        part = get_args(hint)[0]
        return check_shape(value, name) if part is int else check_all(name, value, part)

    def _check_choice(self, name: str, value: Any) -> Any:
        if isinstance(value, str) and value in self.choices:
            return value
        if isinstance(self.choices, Mapping) and (callable(value) or isinstance(value, np.dtype)):
            names = [key for key, choice in self.choices.items() if value == choice]
            if names or not self.closed:
                return names[0] if names else value
        raise ValueError(f"expected {name} to be one of {', '.join(self.choices)}, "
                         f"got {shortened(value)}")


def option(default: Any = MISSING, help: str = "", kw_only: bool | Any = MISSING, **details: Any) -> Any:
    """A field of a Config; the details are those of Option."""
    return field(default=default, kw_only=kw_only, metadata={"option": Option(help, **details)})


@dataclass(frozen=True)
class Config:
    """Settings, one field each, validated when they are set.

    From a field follow the argument in Python, the option of the command line, its help and its
    validation, the entry in a checkpoint, and what `minglow info` prints.
    """

    def __post_init__(self) -> None:
        for name, (detail, hint) in options(type(self)).items():
            object.__setattr__(self, name, detail.check(name, hint, getattr(self, name)))

    def chosen(self, name: str) -> Any:
        """What the name in a field stands for: the class or function itself."""
        value, (detail, _) = getattr(self, name), options(type(self))[name]
        return detail.choices[value] if isinstance(value, str) else value  # type: ignore[call-overload]

    def to_json(self) -> dict[str, Any]:
        """Every setting by name. Raises ValueError for a class or function without a name."""
        values = {key: getattr(self, key) for key in options(type(self))}
        for key, value in values.items():
            if callable(value):
                raise ValueError(f"expected {key} by name, got {shortened(value)}: no file can hold it")
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_json(cls: type[C], values: Any, what: str) -> C:
        """The settings that `to_json` gave. Raises ValueError unless it could have given these."""
        expected = options(cls)
        if not isinstance(values, dict):
            raise ValueError(f"expected {what} by name, got {shortened(values)}")
        for key in [*expected, *values]:
            if key not in values or key not in expected:
                an, got = ("an", "none") if key in expected else ("no", "one")
                raise ValueError(f"expected {an} entry {shortened(key)} in {what}, got {got}")
        return cls(**values)


def options(config: type) -> dict[str, tuple[Option, Any]]:
    """The Option and the type of every field of a Config, by name."""
    if "_options" not in vars(config):
        hints = get_type_hints(config)
        found = {f.name: (f.metadata["option"], hints[f.name]) for f in fields(config)}
        config._options = found  # type: ignore[attr-defined]
    return vars(config)["_options"]


def pick(given: Mapping[str, Any], config: type[Config]) -> dict[str, Any]:
    """Those of the given values that are settings of a Config."""
    return {name: given[name] for name in options(config) if name in given}


def accepts(config: type[Config]) -> Callable[[F], F]:
    """A decorator for a function that hands its `*args` and `**options` to a Config.

    The signature and the docstring that editors, Jupyter and `help` show then list the fields.
    """
    def decorate(function: F) -> F:
        own = [parameter for parameter in inspect.signature(function).parameters.values()
               if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)]
        known = inspect.signature(config).parameters.values()
        parameters = sorted([*own, *known], key=lambda parameter: parameter.kind)
        vars(function)["__signature__"] = inspect.Signature(parameters)
        width = max(map(len, options(config)))
        lines = []
        for name, (detail, _) in options(config).items():
            choices = f": {', '.join(detail.choices)}" if detail.choices else ""
            lines.append(f"    {name:{width}}  {detail.help}{choices}")
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", *lines])
        return function
    return decorate
