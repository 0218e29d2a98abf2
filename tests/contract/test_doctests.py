"""The examples in docstrings give what they say, and every layer and conditioner has one."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import minglow
from minglow import layers, nets

MODULES = [module.name for module in pkgutil.walk_packages(minglow.__path__, "minglow.")
           if module.name != "minglow.__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    names = {"minglow": minglow, "np": np}
    assert doctest.testmod(importlib.import_module(name), extraglobs=names).failed == 0


@pytest.mark.parametrize("package", [layers, nets], ids=["layers", "nets"])
def test_every_layer_and_conditioner_has_an_example(package):
    finder = doctest.DocTestFinder(recurse=False)
    classes = [value for name in package.__all__ if inspect.isclass(value := getattr(package, name))]
    assert len(classes) > 10
    assert [kind.__name__ for kind in classes
            if not any(test.examples for test in finder.find(kind))] == []
