"""Seconds from a moved slider to a new picture, on one thread: ``python tests/benchmarks/redraw.py``.

For each explorer of :mod:`mooc_da.widgets`: every control is moved from its default to every other value, one at
a time (at most eight of them), in a fixed random world that is already there. Each redraw is timed three times and
the quickest counts, for a busy machine only adds. Not a test: nothing here fails.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from mooc_da import hybrid_explorers, widgets
from mooc_da.widgets import Choice, Explorer, Scale, Slider

TARGETS = {widgets.training_explorer: (1.0, 2.0), widgets.hybrid_explorer: (0.4, 1.2)}  # median, slowest; others:
TARGET = (0.3, 1.0)
SOURCES = {"start_error": hybrid_explorers.leads, "variance": hybrid_explorers.in_filter}  # what a control asks anew


def values(control: Slider | Scale | Choice) -> list:
    """Up to eight values of a control, its ends among them."""
    if isinstance(control, Slider):
        n = round((control.high - control.low) / control.step)
        every = [control.low + k * control.step for k in range(n + 1)]
    else:
        every = [*control.values.values()] if isinstance(control.values, dict) else [*control.values]
    return [every[round(k * (len(every) - 1) / 7)] for k in range(8)] if len(every) > 8 else every


def redraws(explorer: Explorer) -> Iterator[tuple[float, str]]:
    """Seconds of every redraw and what was moved."""
    for name, control in explorer.controls.items():
        for value in values(control):
            times = []
            for _ in range(3):
                widgets.picture.cache_clear()
                if name in SOURCES:
                    SOURCES[name].cache_clear()
                start = time.perf_counter()
                widgets.picture(explorer.view, **explorer.default | {name: value})
                times.append(time.perf_counter() - start)
            yield min(times), f"{name} = {value if isinstance(value, str) else f'{value:g}'}"


def report(make: Callable[[], Explorer]) -> None:
    """One line for an explorer."""
    with contextlib.redirect_stdout(io.StringIO()):
        explorer = make()
    times = sorted(redraws(explorer))
    median, (slowest, where) = statistics.median(t for t, _ in times), times[-1]
    targets = TARGETS.get(make, TARGET)
    verdict = "ok" if median <= targets[0] and slowest <= targets[1] else "NOT MET"
    print(f"{make.__name__:24} median {median:5.2f} ≤ {targets[0]:g} s, slowest {slowest:5.2f} ≤ {targets[1]:g} s "
          f"{verdict:8} at {where}; {len(explorer.shown.png) * 3 // 4000} kB", flush=True)  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    for make in (
        widgets.filter_cockpit,
        widgets.model_explorer,
        widgets.error_growth_explorer,
        widgets.training_explorer,
        widgets.hybrid_explorer,
    ):
        report(make)


if __name__ == "__main__":
    main()
