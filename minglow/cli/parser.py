"""Options of the command line, made from the fields of configurations."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, get_args

from minglow import validation
from minglow.models.base import MODELS
from minglow.storage.settings import Config, Option, options

Container = argparse.ArgumentParser | argparse._ArgumentGroup  # which options can be added to


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are a single line, and which takes no abbreviations."""

    def __init__(self, **details: Any) -> None:
        super().__init__(**details, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where help is; exit with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_config(parser: Container, *configs: type[Config], defaults: bool = True) -> None:
    """Add the options of configurations; one that several share appears once.

    An option that is not given is absent from the result. defaults: whether the help shows them.
    """
    owners: dict[str, list[type[Config]]] = {}
    for config in configs:
        for name, (detail, _) in options(config).items():
            if detail.cli:
                owners.setdefault(name, []).append(config)
    for name, having in owners.items():
        detail, hint = options(having[0])[name]
        notes = [f"of {', '.join(map(label, having))}"] if len(having) < len(configs) else []
        if defaults and (shown := _defaults(name, having)):
            notes.append(shown)
        text = f"{detail.help} ({'; '.join(notes)})" if notes else detail.help
        flags = filter(None, [detail.flag, flag_of(name)])
        details: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if hint is not bool:
            choices = list(dict.fromkeys(key for c in having for key in options(c)[name][0].choices))
            details = {"choices": choices or None,
                       "type": parse(name, replace(detail, choices=choices), hint),
                       "metavar": None if choices else name.upper()}
        parser.add_argument(*flags, dest=name, default=argparse.SUPPRESS, help=text.replace("%", "%%"),
                            **details)


def add_model(parser: Container) -> None:
    """Add `--model` and the options of every model."""
    parser.add_argument("--model", choices=list(MODELS), default=argparse.SUPPRESS,
                        help="model; official is Glow as the official code computes it (default: glow)")
    add_config(parser, *MODELS.values())


def check_model_options(given: dict[str, Any], model: str) -> None:
    """Raise ValueError for an option that only other models have; it names those."""
    for name in sorted(given):
        owners = [key for key, config in MODELS.items() if name in options(config)]
        if owners and model not in owners:
            raise ValueError(f"{flag_of(name)} is an option of --model {' or '.join(owners)}, "
                             f"not of {model}")
        if owners:
            detail, hint = options(MODELS[model])[name]
            detail.check(flag_of(name), hint, given[name])  # a choice that only another model has


def flag_of(name: str) -> str:
    """The option's long flag."""
    return f"--{name.replace('_', '-')}"


def parse(name: str, detail: Option, hint: Any) -> Callable[[str], Any]:
    """A function from an argument's text to the option's value."""
    kinds = get_args(hint) or (hint,)

    def value_of(text: str) -> Any:
        try:
            return detail.check(name, hint, number(text) if {int, float} & {*kinds} else text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return value_of


def number(text: str) -> Any:
    """The number that a text stands for, or the text; Python's 1_000 is no number elsewhere."""
    if text.removeprefix("-").isdecimal() and len(text) <= len(str(validation.MAX_COUNT)):
        return int(text)
    try:
        return text if "_" in text or text.isdecimal() else float(text)
    except ValueError:
        return text


def count(name: str, minimum: int = 1) -> Callable[[str], int]:
    """A parser of whole numbers of at least the minimum, for options that are no configuration's."""
    return parse(name, Option("", minimum=minimum), int)


def path(text: str) -> Path:
    """A path; an empty one, from a variable that is not set, is refused."""
    try:
        return Path(validation.check_path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _defaults(name: str, having: list[type[Config]]) -> str:
    """The default values, as help shows them."""
    shown = {label(config): _shown(getattr(config, name)) for config in having}
    values = set(shown.values())
    if values <= {"", "off"}:
        return ""
    if len(values) == 1:
        return f"default: {values.pop()}"
    return ", ".join(f"default of {key}: {text}" for key, text in shown.items() if text)


def label(config: type[Config]) -> str:
    """A configuration's name in help texts."""
    return getattr(config, "model", config.__name__)


def _shown(value: Any) -> str:
    return "" if value is None else ("off", "on")[value] if isinstance(value, bool) else str(value)
