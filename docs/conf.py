"""Sphinx: `sphinx-build -W -n docs docs/_build`, with what `pip install -e '.[docs]'` brings."""

import hpcdd

project = "hpcdd"
author = "the hpcdd developers"
project_copyright = "2026, the hpcdd developers"
release = hpcdd.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "examples"]
highlight_language = "text"
html_theme = "furo"
html_title = "hpcdd"
man_pages = [("reference/commands", "hpcdd", "train image classifiers by domain decomposition", author, 1)]
