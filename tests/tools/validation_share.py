"""Count how much of the layers' code only validates: python tests/tools/validation_share.py

A statement only validates if it is the call of a check, a function whose name begins with `check` or
`_check`, or assigns the result of one, or if it is an `if` that can only raise. The counts are of lines
in the methods named in METHODS, without docstrings, comments and blank lines.
"""

import ast
import io
import sys
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "minglow"
METHODS = {"forward", "inverse", "backward", "initialize", "forward_only", "inverse_only"}
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
           tokenize.ENDMARKER}
LIMIT = 0.11


def count(source):
    """Return the number of lines of METHODS that only validate, and of all lines of METHODS."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for token in tokens if token.type not in NO_CODE
            for line in range(token.start[0], token.end[0] + 1)}
    validating, every = set(), set()
    for method in methods(source):
        every |= lines(method) & code - docstring(method)
        for statement in ast.walk(method):
            if only_validates(statement):
                validating |= lines(statement) & code
    return len(validating), len(every)


def methods(source):
    """Yield the methods named in METHODS of every class in the source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            functions = (part for part in node.body if isinstance(part, ast.FunctionDef))
            yield from (function for function in functions if function.name in METHODS)


def lines(node):
    return set(range(node.lineno, node.end_lineno + 1))


def docstring(method):
    return lines(method.body[0]) if ast.get_docstring(method) is not None else set()


def only_validates(statement):
    if isinstance(statement, ast.If):
        return not statement.orelse and all(isinstance(part, ast.Raise) for part in statement.body)
    return isinstance(statement, (ast.Expr, ast.Assign)) and is_check(statement.value)


def is_check(node):
    """Whether a node calls a function or method whose name begins with `check` or `_check`."""
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    return name.startswith(("check", "_check"))


def files(package=PACKAGE):
    """Return the files of layers, nets and chains."""
    return [*package.glob("layers/*.py"), *package.glob("nets/*.py"), package / "chain.py"]


def total(package=PACKAGE):
    """Return count's two numbers, summed over all files."""
    counts = [count(file.read_text(encoding="utf-8")) for file in files(package)]
    return tuple(map(sum, zip(*counts)))


def main():
    validating, every = total()
    print(f"{validating} of {every} lines only validate: {validating / every:.1%} (at most {LIMIT:.0%})")
    return int(validating > LIMIT * every)


if __name__ == "__main__":
    sys.exit(main())
