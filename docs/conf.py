"""How Sphinx builds the site of this folder: `make site`, without a network, every warning an error."""

from __future__ import annotations

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "extensions"))
# Pages that measure memory or time mean one BLAS thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from aidotnet_py import __version__  # noqa: E402

project = "aidotnet_py"
author = project_copyright = "The aidotnet_py authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "formulas",
    "rooms",
]

# Markdown, read as GitHub reads it: the pages are written for both.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# Single backticks in docstrings are links where they name something, and code elsewhere.
default_role = "py:obj"
highlight_language = "text"
autodoc_typehints = "none"  # numpydoc's sections say them in words
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": ["../examples/gallery"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": ".",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_signature": False,
    "show_memory": False,
    "download_all_examples": False,
    "min_reported_time": 1,
    "image_scrapers": ("gallery_figures.scrape",),
    "reset_modules": (),
}

exclude_patterns = [
    "_build",
    "gallery/*.py",
    "gallery/*.ipynb",
    "gallery/*.json",
    "**/sg_execution_times.rst",
    "sg_execution_times.rst",
]
suppress_warnings = ["config.cache"]

pygments_style, pygments_dark_style = "friendly", "github-dark"

html_theme = "furo"
html_title = f"aidotnet_py {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
