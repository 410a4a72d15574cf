"""Sphinx's settings. `make site` runs them: see build.py, which lays out the pages first."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "ext"), str(ROOT / "tools"), str(ROOT)]

from set_repository import declared_repository, site_address  # noqa: E402

REPOSITORY = declared_repository(ROOT)

project = "Knowledge distillation"
author = "the kdutils authors"
project_copyright = f"{author}, MIT licence"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "docstring_text",
    "chapters",
    "figures",
    "frames",
    "terms",
    "found",
    "accessible",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
root_doc = "index"

nb_execution_mode = "off"  # the pages show what is stored
myst_enable_extensions = ["attrs_inline", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

default_role = "py:obj"  # `kd_loss` in a docstring is a link
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = "Knowledge distillation, watched as it happens"
html_baseurl = site_address(REPOSITORY)
html_static_path = ["_static"]
templates_path = ["_templates"]
html_sidebars = {"**": ["home.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
html_css_files = ["course.css"]
html_js_files = [("explore.js", {"defer": "defer"})]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_math_renderer = "mathml"
html_show_sphinx = False
html_use_index = html_domain_indices = False  # the search finds more
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "repository_url": f"https://github.com/{REPOSITORY}",
    "repository_branch": "main",
    "path_to_docs": "",
    "navbar_persistent": [],  # the search stands in the sidebar
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "launch_buttons": {
        "colab_url": "https://colab.research.google.com",
        "binderhub_url": "https://mybinder.org",
        "notebook_interface": "jupyterlab",
    },
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}
