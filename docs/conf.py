"""Sphinx: `sphinx-build -W -n docs docs/_build`, with what `pip install -e '.[docs]'` brings."""

import hpcdd

project = "hpcdd"
author = "the hpcdd developers"
project_copyright = "2026, the hpcdd developers"
release = hpcdd.__version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "examples"]
highlight_language = "text"
html_theme = "furo"
html_title = "hpcdd"
man_pages = [("man", "hpcdd", "train image classifiers by domain decomposition", author, 1)]


def leave_out_man(app):
    """man.md repeats the page of the commands; only the man page is made from it."""
    if app.builder.name != "man":
        app.config.exclude_patterns.append("man.md")


def setup(app):
    """Called by Sphinx."""
    app.connect("builder-inited", leave_out_man)
