"""At most 11% of the lines in layer methods only validate, and each method has at most one check."""

import ast

import pytest
from validation_share import LIMIT, count, files, is_check, methods, only_validates, total


def test_validation_is_a_small_fraction_of_the_layers():
    validating, every = total()
    assert every >= 300  # fewer would mean that files are missing
    assert 0 < validating <= LIMIT * every


@pytest.mark.parametrize("file", files(), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_method_has_at_most_one_line_of_validation(file):
    for method in methods(file.read_text(encoding="utf-8")):
        nodes = list(ast.walk(method))
        conditions = [node for node in nodes if isinstance(node, ast.If) and only_validates(node)]
        assert sum(map(is_check, nodes)) + len(conditions) <= 1, f"{file.name}:{method.lineno}"


SOURCE = '''
class Layer:
    def forward(self, x):
        """Docstrings, comments and blank lines

        are not counted."""
        check_input(self, x)  # 1

        if x.ndim != 4:       # 2
            raise ValueError(
                "images")     # 4
        a, b = self._checked_parts(x)  # 5
        # This one computes as well:
        y = self.inner(self._checked_parts(x))
        return y

    def other(self, x):
        check_input(self, x)
'''


def test_the_count():
    assert count(SOURCE) == (5, 8)
