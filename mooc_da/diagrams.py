"""The diagrams of the story: the loop, the twin experiment, the training pair, the hybrid.

Like the functions of :mod:`mooc_da.plots` they take ``ax=None`` and return the Axes.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .plots import STYLE, axes_or_new


def box(ax: Axes, xy: tuple[float, float], text: str, *, here: bool = False, width: float = 2.3) -> None:
    """A labelled box of a diagram, centred at ``xy``; filled and bold if the reader is ``here``."""
    x, y = xy
    face, edge = ("#E6F2FA", STYLE["analysis"]["color"]) if here else ("white", "0.3")
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.36),
            width,
            0.72,
            boxstyle="round,pad=0.04",
            facecolor=face,
            edgecolor=edge,
            linewidth=3 if here else 1.3,
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=12.5, fontweight="bold" if here else "normal")


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    *,
    bend: float = 0.0,
    dashed: bool = False,
    shift: tuple[float, float] = (0.0, 0.22),
) -> None:
    """An arrow of a diagram with a caption at its middle."""
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=18, color="0.25", linewidth=1.6,
                        linestyle="--" if dashed else "-", connectionstyle=f"arc3,rad={bend}")
    )  # fmt: skip
    ax.text(
        (start[0] + end[0]) / 2 + shift[0],
        (start[1] + end[1]) / 2 + shift[1],
        text,
        ha="center",
        va="center",
        fontsize=11,
        color="0.25",
    )


def diagram(width: float, height: float, ax: Axes | None = None) -> Axes:
    """Empty axes for a diagram, one unit to an inch or so."""
    ax = axes_or_new(ax, figsize=(width, height))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    return ax


def loop(here: str = "", *, ax: Axes | None = None) -> Axes:
    """The story as a loop; ``here`` ("truth", "enkf", "learning" or "hybrid") highlights where the reader is."""
    ax = diagram(10.6, 3.5, ax)
    box(ax, (1.4, 2.8), "true model", here=here == "truth")
    box(ax, (1.4, 0.7), "noisy, sparse\nobservations", here=here == "truth")
    box(ax, (5.3, 0.7), "EnKF with the\nmodel we have", here=here == "enkf")
    box(ax, (9.2, 0.7), "network learns\nthe model's error", here=here == "learning")
    box(ax, (5.3, 2.8), "hybrid = physical\nmodel + network", here=here == "hybrid")
    box(ax, (9.2, 2.8), "better forecasts", here=here == "hybrid")
    arrow(ax, (1.4, 2.4), (1.4, 1.1), "seen through", shift=(-0.72, 0.0))
    arrow(ax, (2.6, 0.7), (4.1, 0.7))
    arrow(ax, (6.5, 0.7), (8.0, 0.7), "analysis")
    arrow(ax, (8.4, 1.1), (6.1, 2.4), "correction", shift=(0.62, 0.18))
    arrow(ax, (6.5, 2.8), (8.0, 2.8))
    arrow(ax, (5.3, 2.4), (5.3, 1.1), "close the loop", dashed=True, shift=(-0.85, 0.0))
    return ax


def twin_experiment(*, ax: Axes | None = None) -> Axes:
    """What a twin experiment is: who knows what."""
    ax = diagram(10.6, 3.3, ax)
    box(ax, (1.5, 2.5), "true model", width=2.4)
    box(ax, (5.3, 2.5), "truth $x_k$", width=2.4)
    box(ax, (5.3, 0.7), "observations\n$y_k = H_k(x_k) + \\varepsilon_k$", width=2.7)
    box(ax, (1.5, 0.7), "wrong model $\\Phi$", width=2.4)
    box(ax, (9.0, 0.7), "analysis $x^a_k$", here=True, width=2.4)
    box(ax, (9.0, 2.5), "scores", width=2.4)
    arrow(ax, (2.7, 2.5), (4.1, 2.5), "runs")
    arrow(ax, (5.3, 2.1), (5.3, 1.1), "half, noisy", shift=(0.75, 0.0))
    arrow(ax, (6.65, 0.7), (7.8, 0.7), "EnKF")
    arrow(ax, (1.5, 0.3), (8.6, 0.3), bend=0.12, shift=(0, -0.62))
    arrow(ax, (6.5, 2.5), (7.8, 2.5), "only here")
    arrow(ax, (9.0, 1.1), (9.0, 2.1))
    ax.set_ylim(-0.4, 3.3)
    return ax


def training_pair(*, ax: Axes | None = None) -> Axes:
    """Where a training pair comes from: the step of the wrong model from one analysis, and the next analysis."""
    ax = diagram(9.6, 3.2, ax)
    blue, grey = STYLE["analysis"]["color"], STYLE["physical"]["color"]
    ax.plot([1.2, 7.0], [1.0, 2.5], "o", color=blue, markersize=12)
    ax.plot([7.0], [1.2], "s", color=grey, markersize=11)
    arrow(ax, (1.35, 1.0), (6.8, 1.2), "one step of the wrong model", bend=-0.1, shift=(0.0, -0.22))
    arrow(ax, (7.0, 1.35), (7.0, 2.3))
    ax.text(1.2, 1.3, r"$x^a_{k-1}$  (input)", fontsize=14, ha="center", color=blue)
    ax.text(7.0, 2.75, r"$x^a_k$", fontsize=14, ha="center", color=blue)
    ax.text(7.2, 0.95, r"$\Phi(x^a_{k-1})$", fontsize=14, color=grey, va="center")
    ax.text(7.2, 1.85, "target: what the\nmodel lacked", fontsize=13, va="center")
    return ax


def hybrid(*, ax: Axes | None = None) -> Axes:
    """The hybrid: the physical step and the network side by side, added."""
    ax = diagram(9.6, 2.9, ax)
    box(ax, (1.0, 1.45), "$x_k$", width=1.2)
    box(ax, (4.2, 2.2), "physical model  $\\Phi$", width=3.0)
    box(ax, (4.2, 0.7), "network  $\\mathrm{NN}_\\theta$", width=3.0, here=True)
    box(ax, (8.6, 1.45), "$x_{k+1}$", width=1.3)
    ax.text(6.7, 1.45, "+", fontsize=24, ha="center", va="center")
    for y in (2.2, 0.7):
        arrow(ax, (1.65, 1.45), (2.65, y))
        arrow(ax, (5.75, y), (6.55, 1.45 + 0.14 * np.sign(y - 1.45)))
    arrow(ax, (6.9, 1.45), (7.9, 1.45))
    return ax
