"""Sphinx settings of the site; ``build.py`` lays out the sources, and nothing is fetched or executed."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]  # the package of this tree, whatever is installed

import content  # noqa: E402
import docstrings  # noqa: E402

project = "mooc-da"
author = "mooc-da contributors"
copyright = "mooc-da contributors; code Apache-2.0, text CC BY 4.0"
html_title = "mooc-da"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the set-up"
nb_code_prompt_hide = "Hide the set-up"
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline", "html_image"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
suppress_warnings = ["config.cache"]

# Formulas as vectors from a script of the site itself. A macro that MathJax does not know is an error, not a red word.
mathjax_path = "tex-svg-full.js"
mathjax3_config = {
    "tex": {"packages": {"[-]": ["noundefined", "noerrors"]}},
    "svg": {"fontCache": "global"},
    "options": {"enableMenu": False},  # it would ask for files that are not here
}

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
smartquotes = False  # three dots in a shape are three dots
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_theme_options = {
    "source_repository": content.REPOSITORY,
    "source_branch": "main",
    "top_of_page_buttons": [],
    "footer_icons": [],
}
html_favicon = "favicon.svg"
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_domain_indices = False  # the reference begins with one
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def rewrite(app, what, name, obj, options, lines):
    lines[:] = docstrings.to_rst(lines, content.public_names())


def skip(app, what, name, obj, skip, options):
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def sign(app, what, name, obj, options, signature, returns):
    """Names of types without their modules, a function as a default by its name, no signature of a protocol."""
    if signature is None:
        return None
    if what == "class" and signature == "(*args, **kwargs)":
        return "", returns
    short = re.sub(r"~(?:\w+\.)+(\w+)", r"\1", signature)
    return re.sub(r"<function (\w+)[^>]*>", r"\1", short), returns


def finish(app, page, template, context, doctree):
    if "body" in context:
        context["body"] = content.finished(context["body"])


def setup(app):
    app.connect("html-page-context", finish)
    app.connect("autodoc-process-signature", sign)
    app.connect("autodoc-process-docstring", rewrite)
    app.connect("autodoc-skip-member", skip)
