"""What the course says to its reader, and what it remembers of them: solved exercises, quiz scores, challenge entries.

Progress is kept on this machine only, in one small JSON file: ``$MOOC_DA_PROGRESS``, else
``~/.local/share/mooc_da/progress.json``; ``MOOC_DA_PROGRESS=none`` keeps no file. Where it cannot be
written, progress lasts as long as the session. :func:`forget` deletes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

WIDGET = "application/vnd.jupyter.widget-view+json"
_session: dict[str, dict] = {}  # what could not be written


def say(text: str) -> None:
    """Show Markdown (formulas in ``$…$``): rendered in a notebook, as plain text elsewhere."""
    if shell() is None:
        print(plain(text))
    else:
        sys.modules["IPython"].display.display({"text/markdown": text, "text/plain": plain(text)}, raw=True)


def shell():
    """The running IPython, of a notebook or a terminal; None in plain Python."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    return ipython and ipython.get_ipython()


def live(box) -> dict:
    """A widget as a front end wants it, to stand beside what is shown where widgets cannot run."""
    return {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": box.model_id}}


def plain(text: str) -> str:
    """Markdown without its marks of emphasis and its code fences; formulas and names with underscores stay."""
    parts = re.split(r"```\w*\n(.*?)```|`([^`]+)`|(\$[^$]*\$)", text, flags=re.DOTALL)
    for i in range(0, len(parts), 4):  # between code and formulas, which are at the other places
        parts[i] = re.sub(r"\*\*|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)", "", parts[i])
    return "".join(part for part in parts if part)


def progress_file() -> Path | None:
    """Where progress is kept; None for "none"."""
    path = os.environ.get("MOOC_DA_PROGRESS", "")
    return None if path == "none" else Path(path or Path.home() / ".local" / "share" / "mooc_da" / "progress.json")


def recall(kind: str) -> dict:
    """What is remembered of one kind (``"exercises"``, ``"quiz"``, ``"challenge"``): name -> value."""
    return _read().get(kind, {}) | _session.get(kind, {})


def record(kind: str, name: str, value) -> bool:
    """Remember a value (anything JSON can hold). Returns whether it is kept beyond this session."""
    _session.setdefault(kind, {})[name] = value
    everything = _read()
    return _write(everything | {kind: everything.get(kind, {}) | {name: value}})


def forget(kind: str | None = None) -> None:
    """Forget one kind of progress, or all of it."""
    everything = {} if kind is None else {k: v for k, v in _read().items() if k != kind}
    for name in [*_session] if kind is None else [kind]:
        _session.pop(name, None)
    _write(everything)


def _read() -> dict:
    """All progress in the file; a damaged file is set aside, not deleted."""
    path = progress_file()
    try:
        saved = json.loads(path.read_text(encoding="utf-8")) if path else {}
        if not isinstance(saved, dict) or not all(isinstance(v, dict) for v in saved.values()):
            raise ValueError("not a table of tables")
        return saved
    except OSError:
        return {}
    except ValueError:
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(".damaged.json"))
        return {}


def _write(everything: dict) -> bool:
    """Replace the file as a whole, so that no notebook reads half of it."""
    path = progress_file()
    if path is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as part:
            json.dump(everything, part, indent=1)
        os.replace(part.name, path)
    except OSError:
        return False
    return True
