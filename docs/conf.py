"""Configuration of Sphinx."""

import sys
from pathlib import Path

import preshield

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "preshield"
author = "preshield developers"
copyright = f"the {author}"
release = version = preshield.__version__

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_nb",
    "generated_pages",
]
exclude_patterns = ["_build", "defences/generated/overview.md"]
nitpicky = True
smartquotes = False  # a dash in an address stays a dash
default_role = "code"  # the docstrings write `x` for code

# Signatures stay short; the docstring gives the types in words.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook holds its results; the tests execute it
nb_output_stderr = "remove"
nb_render_markdown_format = "myst"  # tables

html_theme = "pydata_sphinx_theme"
html_title = f"preshield {version}"
html_static_path = ["_static"]
html_css_files = ["preshield.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
}
html_sidebars = {"[!d]*": [], "[!d]*/**": [], "differences_from_art": []}  # only the defences have siblings
