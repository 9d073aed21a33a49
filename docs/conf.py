"""Sphinx configuration: `make docs`. Builds offline."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

project = "qblock"
author = "the qblock authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "qblock"
html_static_path = ["figures"]
exclude_patterns = ["_build"]
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "literal"  # docstrings use single backticks, as Markdown does
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}

# The reference of the command line is what `--help` says, in one page.
_cli = HERE / "reference" / "cli.md"
_made = subprocess.run(
    [sys.executable, "-m", "typer", "qblock.cli", "utils", "docs", "--name", "qblock"],
    check=True, capture_output=True, text=True,
)  # fmt: skip
_cli.write_text("# Command line\n\n" + _made.stdout.split("\n", 1)[1])
