"""Sphinx's settings for the site; one command builds it, without a network:

    sphinx-build -W -b html docs docs/_build/html
"""

import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import generate  # noqa: E402

import minglow  # noqa: E402

project, author, release = "minglow", "the minglow developers", minglow.__version__
project_copyright = "the minglow developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinxcontrib.katex", "sphinx_copybutton"]
exclude_patterns = ["_build", "_static", "explore/export.py", "**/__pycache__"]
templates_path: list[str] = []

# Pages are Markdown, formulas $...$ and $$...$$; notebooks are shown with the outputs that they hold.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"

# KaTeX's style and fonts are in _static, its script is in the extension's wheel. With node,
# formulas are rendered when the site is built; otherwise the reader's browser renders them.
katex_prerender = shutil.which("node") is not None
katex_css_path = "katex/katex.min.css"

# Docstrings are laid out for a terminal; the site shows them in that layout.
autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"minglow {release}"
html_static_path = ["_static"]
html_css_files = ["minglow.css"]
html_favicon = "_static/favicon.svg"
html_extra_path = ["explore"]
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00588a", "color-brand-content": "#00588a"},
    "dark_css_variables": {"color-brand-primary": "#6cc0f0", "color-brand-content": "#6cc0f0"},
}


def literal_docstring(app: Sphinx, what: str, name: str, thing: object, options: object,
                      lines: list[str]) -> None:
    """Keep a docstring's first paragraph as text, and show the rest in its own layout."""
    end = lines.index("") if "" in lines else len(lines)
    rest = lines[end:]
    while rest and not rest[-1]:
        rest.pop()
    first = " ".join(line.strip() for line in lines[:end])
    for mark in "\\*`|_":
        first = first.replace(mark, f"\\{mark}")
    lines[:] = [first, ""]
    if rest:
        lines += [".. code-block:: text", "", *(f"   {line}" for line in rest), ""]


def accessible(app: Sphinx, page: str, template: str, context: dict, tree: object) -> None:
    """Add what screen readers and keyboards need and Sphinx leaves out: heading levels, code focus."""
    for name in "furo_navigation_tree", "body":
        if context.get(name):
            text = context[name].replace('role="heading">', 'role="heading" aria-level="2">')
            context[name] = text.replace("<pre>", '<pre tabindex="0">')


def setup(app: Sphinx) -> None:
    """Write the generated pages, and connect the handlers of docstrings and links."""
    generate.write_pages(HERE)
    app.connect("autodoc-process-docstring", literal_docstring)
    app.connect("html-page-context", accessible, priority=900)  # after furo's own
    app.connect("source-read", generate.links_into_the_site)
