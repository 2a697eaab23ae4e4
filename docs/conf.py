"""The documentation as a site: ``make docs``. Pages are the Markdown files that are also read on their own, notebooks
are executed on the records that ship, and the reference comes from docstrings."""

import re

from sciml_fm_core import __version__

project = "sciml-fm"
author = "The sciml-fm developers"
copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx.ext.mathjax"]
root_doc = "docs/index"
include_patterns = ["README.md", "docs/*.md", "benchmarks/README.md", "notebooks/*.ipynb"]
html_theme = "furo"
html_title = "sciml-fm"
html_static_path: list[str] = []

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# A notebook is executed once and then kept until it changes; it stands in its own folder, as a reader's does.
nb_execution_mode = "cache"
nb_execution_cache_path = "build/docs-notebooks"
nb_execution_in_temp = True
nb_execution_timeout = 3600  # of a cell: a training of minutes, beside other work
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "groupwise"
autodoc_typehints = "description"
napoleon_google_docstring = True
napoleon_use_ivar = True


def setup(app):
    """Let ``|u|`` in a docstring be the size of u, as it reads in the code, and no substitution."""

    def escape(_app, _what, _name, _object, _options, lines):
        lines[:] = [re.sub(r"(``.*?``)|\|", lambda found: found[1] or r"\|", line) for line in lines]

    app.connect("autodoc-process-docstring", escape)
