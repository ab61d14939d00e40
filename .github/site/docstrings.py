"""The docstrings of the package as Sphinx wants them: shapes, names, tables and lists of parameters stay legible.

A docstring here is reStructuredText with four habits of its own: ``name : meaning`` under *Parameters*, Markdown
tables, indented blocks that keep their lines, and shapes such as (..., Ne, Nx) in the text.
"""

from __future__ import annotations

import ast
import re
import textwrap
from urllib.parse import quote

SECTIONS = "Parameters|Returns|Raises|Warns|Attributes"
SIZE = r"(?:\.\.\.|\*\w+|[A-Z]\w*|n_\w+|\d+|[a-z])"
SIZES = rf"{SIZE}(?: ?[-+*] ?{SIZE}| {SIZE})*"
SHAPE = rf"(?<!\w)\((?=[^()]*(?:,|\.\.\.))(?:{SIZES})?(?:, ?{SIZES})*,?\)"
DOI = r"\bdoi(?::\s*|\s+)(?P<doi>10\.\d{4,9}/(?:\([^()\s]*\)|[^\s()`])+(?<![.,;:]))"
MARKUP = re.compile(
    rf"(?P<keep>``.+?``|:[a-z:]+:`[^`]+`|https?://[^\s<>]+)|{DOI}|`(?P<name>[\w.]+)`|(?P<shape>{SHAPE})|(?P<plain>[*|]|\w_\b)"
)
ROLE = re.compile(r":(?:func|class|meth|data|mod):`(~?)([\w.]+)`")


def to_rst(lines: list[str], public: dict[str, str]) -> list[str]:
    """Lines of a docstring, rewritten.

    Parameters
    ----------
    public : name that the package gives directly -> the module it comes from
    """
    out: list[str] = []
    section = ""
    blocks = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    for block in blocks:
        previous = out[-1] if out else ""
        if match := re.match(rf"({SECTIONS})\n-+\n", block):
            section, block = match[1], block[match.end() :]
            out += ["", f":{section}:", *fields(block, public)]
        elif block.startswith("|"):
            out += ["", *table(block, public)]
        elif re.match(r"\s*\.\. ", block) or (is_indented(block) and is_literal_before(out)):
            out += ["", *block.splitlines()]
        elif is_indented(block):
            out += [
                "",
                *([] if section and previous.startswith("    ") else [f".. code-block:: {language(block)}", ""]),
                *block.splitlines(),
            ]
        elif ".. math::" in block:
            head, rest = re.split(r"(?m)^(?=\s*\.\. math::)", block, maxsplit=1)
            out += ["", *inline(head, public).splitlines(), "", *rest.splitlines()]
        else:
            out += ["", *inline(block, public).splitlines()]
    return [*out[1:], ""]


def is_indented(block: str) -> bool:
    return all(line.startswith("   ") for line in block.splitlines() if line.strip())


def is_literal_before(out: list[str]) -> bool:
    """Whether the last unindented line began a block that goes on: ``::`` or a directive."""
    last = next((line for line in reversed(out) if line and not line.startswith(" ")), "")
    return last.endswith("::") or last.startswith("..")


def language(block: str) -> str:
    """Python, if it can be parsed."""
    try:
        ast.parse(textwrap.dedent(block))
    except SyntaxError:
        return "text"
    return "python"


def inline(text: str, public: dict[str, str]) -> str:
    """Names and DOIs link to what they name, shapes are code, and no other sign is markup."""

    def replaced(match: re.Match) -> str:
        if keep := match["keep"]:
            role = ROLE.fullmatch(keep)
            return reference(role[2], public) if role else keep
        if match["doi"]:
            return f"`doi:{match['doi']} <https://doi.org/{quote(match['doi'], safe='/()')}>`__"
        if match["name"]:
            return reference(match["name"], public)
        if match["shape"]:
            return f"``{match[0]}``"
        return re.sub(r"([*|_])", r"\\\1", match[0])

    emphasis = re.compile(r"\*\*?(?=[^\s*])[^*\n]+(?<=[^\s*])\*\*?(?!\w)")  # *so*, as far as it stays on a line
    parts, at = [], 0
    for match in emphasis.finditer(text):
        if re.match(r"\*(batch|shape)\b", match[0]) or text[: match.start()].count("``") % 2:
            continue
        parts += [MARKUP.sub(replaced, text[at : match.start()]), match[0]]
        at = match.end()
    return "".join([*parts, MARKUP.sub(replaced, text[at:])])


def reference(name: str, public: dict[str, str]) -> str:
    """A link to a name, wherever in the package it is; code where there is none."""
    short = name.removeprefix("mooc_da.")
    if short in public:
        return f":py:obj:`{short} <mooc_da.{public[short]}.{short}>`"
    return f":py:obj:`{short} <.{short}>`"


def fields(block: str, public: dict[str, str]) -> list[str]:
    """``name : meaning`` and its further lines as a list of definitions; free text as it is."""
    out: list[str] = []
    for entry in re.split(r"\n(?=\S)", block.strip("\n")):
        first, *more = entry.splitlines()
        name, colon, meaning = first.partition(" : ")
        meaning = " ".join([meaning, *(line.strip() for line in more)]).strip()
        if colon:
            names = ", ".join(f"``{n.strip()}``" for n in name.split(","))
            out += [f"    {names}", f"        {inline(meaning, public)}"]
        elif more and re.fullmatch(r"[\w., ]+", first):  # an exception and when it is raised
            out += [f"    ``{first}``", f"        {inline(meaning, public)}"]
        else:
            out.append(f"    {inline(' '.join([first, meaning]).strip(), public)}")
    return [*out, ""]


def table(block: str, public: dict[str, str]) -> list[str]:
    """A Markdown table as a list-table."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
    out = [".. list-table::", "   :header-rows: 1", ""]
    for row in (rows[0], *rows[2:]):
        out += [f"   {'*' if i == 0 else ' '} - {inline(cell, public)}" for i, cell in enumerate(row)]
    return [*out, ""]
