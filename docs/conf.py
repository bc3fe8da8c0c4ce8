"""Sphinx settings; ``sphinx-build -W -b html docs docs/_build/html`` from the top of the repository."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import cycloneish  # noqa: E402 (found through the line above, without an installation)

project = "cycloneish"
author = "the cycloneish developers"
project_copyright = "the cycloneish developers, MIT licence"
version = release = cycloneish.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Names in annotations that are not our own have their documentation elsewhere.
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"cycloneish {release}"
html_show_copyright = False
