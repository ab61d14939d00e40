"""The diagrams of the story: the loop, the twin experiment, the training pair, the hybrid.

Like the functions of :mod:`mooc_da.plots` they take ``ax=None`` and return the Axes. As files, for slides and pages
of your own, each as SVG and as PNG:

    python -m mooc_da.diagrams notebooks/figures
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .plots import RC, STYLE, axes_or_new

ALT = {
    "loop": "The course in one loop. A true model is seen through noisy, sparse observations. An ensemble Kalman "
    "filter with the model we have turns them into analyses, from which a network learns the model's error. Physical "
    "model and network together are the hybrid, which forecasts better and goes back into the filter.",
    "twin_experiment": "A twin experiment. The true model runs a truth, which is observed at half of its points, with "
    "noise. The filter knows the observations and a wrong model, and makes the analysis. Only the scores compare it "
    "with the truth.",
    "training_pair": "A training pair. From one analysis, the input, the wrong model makes a step and misses the next "
    "analysis; the difference, what the model lacked, is the target.",
    "hybrid": "The hybrid. The state goes through the physical model and through the network, side by side; the sum of "
    "both is the next state.",
}
HEIGHT = 0.86  # of a box


def pictogram(ax: Axes, xy: tuple[float, float], kind: str) -> None:
    """A small drawing of what a box holds, in the colours of the figures, centred at ``xy``."""
    x, y = xy
    s = np.linspace(-1, 1, 60)
    color = {role: STYLE[role]["color"] for role in ("truth", "physical", "analysis", "hybrid")}

    def wave(s: np.ndarray) -> np.ndarray:
        return 0.17 * np.sin(3.4 * s) + 0.06 * np.sin(7.0 * s + 1.0)

    def curve(role: str, offset: np.ndarray | float = 0.0) -> None:
        ax.plot(
            x + 0.36 * s, y + wave(s) + offset, color=color[role], linestyle=STYLE[role]["linestyle"], linewidth=1.9
        )

    def circles(points: np.ndarray) -> None:
        noise = 0.05 * np.cos(40 * points)
        ax.plot(x + 0.36 * points, y + wave(points) + noise, **STYLE["observations"], markersize=4.5)

    if kind == "truth":
        curve("truth")
    elif kind == "observations":
        circles(np.linspace(-0.95, 0.95, 7))
    elif kind == "physical":
        curve("physical")
    elif kind == "analysis":
        band = 0.06 + 0.05 * np.cos(9 * s)
        ax.fill_between(x + 0.36 * s, y + wave(s) - band, y + wave(s) + band, color=color["analysis"], alpha=0.25, lw=0)
        curve("analysis")
        circles(np.linspace(-0.9, 0.9, 4))
    elif kind == "hybrid":
        curve("physical", 0.1 * (s + 1))
        curve("hybrid")
    elif kind == "forecast":
        spread = 0.13 * (s + 1) ** 1.5 / 2
        ax.fill_between(
            x + 0.36 * s, y + wave(s) - spread, y + wave(s) + spread, color=color["hybrid"], alpha=0.25, lw=0
        )
        curve("hybrid")
    elif kind == "network":
        left, middle = [(x - 0.3, y + h) for h in (-0.2, 0.0, 0.2)], [(x, y + h) for h in (-0.24, -0.08, 0.08, 0.24)]
        right = [(x + 0.3, y + h) for h in (-0.1, 0.1)]
        for a, b in [(a, b) for a in left for b in middle] + [(a, b) for a in middle for b in right]:
            ax.plot(*zip(a, b, strict=True), color=color["hybrid"], linewidth=0.6)
        ax.plot(*zip(*left, *middle, *right, strict=True), "o", color=color["hybrid"], markersize=4.5)
    else:
        raise ValueError(f"kind = {kind!r}: there is no such pictogram.")


def box(
    ax: Axes, xy: tuple[float, float], text: str, kind: str = "", *, here: bool = False, width: float = 2.9
) -> None:
    """A labelled box, centred at ``xy``, with a pictogram; tinted and bold if the reader is ``here``."""
    x, y = xy
    blue = np.array(to_rgb(STYLE["analysis"]["color"]))
    face, edge = (0.88 + 0.12 * blue, blue) if here else (np.array(to_rgb("#FAFAFA")), np.array(to_rgb("0.45")))
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - HEIGHT / 2),
            width,
            HEIGHT,
            boxstyle="round,pad=0.0,rounding_size=0.12",
            facecolor=face,
            edgecolor=edge,
            linewidth=3 if here else 1.3,
        )
    )
    middle = x
    if kind:
        pictogram(ax, (x - width / 2 + 0.5, y), kind)
        middle = x + 0.47
    ax.text(middle, y, text, ha="center", va="center", fontsize=14.5, fontweight="bold" if here else "normal")


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    *,
    bend: float = 0.0,
    dashed: bool = False,
    shift: tuple[float, float] = (0.0, 0.2),
    color: str = "0.25",
) -> None:
    """An arrow of a diagram with a caption at its middle."""
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=18, shrinkA=0, shrinkB=2, color=color,
                        linewidth=1.8, linestyle="--" if dashed else "-", connectionstyle=f"arc3,rad={bend}")
    )  # fmt: skip
    x, y = (start[0] + end[0]) / 2 + shift[0], (start[1] + end[1]) / 2 + shift[1]
    ax.text(x, y, text, ha="center", va="center", fontsize=13, color=color)


def diagram(width: float, height: float, ax: Axes | None = None) -> Axes:
    """Empty axes for a diagram, one unit to an inch or so."""
    ax = axes_or_new(ax, figsize=(width, height))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    return ax


def loop(here: str = "", *, ax: Axes | None = None) -> Axes:
    """The story as a loop; ``here`` ("truth", "enkf", "learning" or "hybrid") highlights where the reader is."""
    ax = diagram(11.6, 3.6, ax)
    box(ax, (1.6, 2.8), "true model,\nunknown", "truth", here=here == "truth")
    box(ax, (1.6, 0.7), "noisy, sparse\nobservations", "observations", here=here == "truth")
    box(ax, (5.7, 0.7), "EnKF with the\nmodel we have", "analysis", here=here == "enkf")
    box(ax, (9.9, 0.7), "network learns\nmodel's error", "network", here=here == "learning")
    box(ax, (5.7, 2.8), "hybrid: model\n+ network", "hybrid", here=here == "hybrid")
    box(ax, (9.9, 2.8), "better\nforecasts", "forecast", here=here == "hybrid")
    green, blue = STYLE["hybrid"]["color"], STYLE["analysis"]["color"]
    arrow(ax, (1.6, 2.37), (1.6, 1.13), "seen through", shift=(0.82, 0.0))
    arrow(ax, (3.05, 0.7), (4.25, 0.7))
    arrow(ax, (7.15, 0.7), (8.45, 0.7), "analysis", color=blue)
    arrow(ax, (9.2, 1.13), (6.9, 2.37), "correction", shift=(0.8, 0.12), color=green)
    arrow(ax, (7.15, 2.8), (8.45, 2.8))
    arrow(ax, (5.3, 2.37), (5.3, 1.13), "close\nthe loop", dashed=True, shift=(-0.58, 0.0), color=green)
    return ax


def twin_experiment(*, ax: Axes | None = None) -> Axes:
    """What a twin experiment is: who knows what."""
    ax = diagram(11.6, 3.6, ax)
    ax.axhspan(1.75, 3.6, color="0.94", zorder=0)
    ax.text(0.12, 3.42, "nature: only for making observations, and for scores", fontsize=12.5, color="0.3", va="center")
    box(ax, (1.6, 2.65), "true model", "truth", width=2.7)
    box(ax, (5.7, 2.65), "truth $x_k$", "truth", width=2.7)
    box(ax, (5.7, 0.75), "observations\n$y_k = H_k(x_k) + \\varepsilon_k$", "observations", width=3.2)
    box(ax, (1.6, 0.75), "wrong\nmodel $\\Phi$", "physical", width=2.7)
    box(ax, (10.0, 0.75), "analysis $x^a_k$", "analysis", here=True, width=2.9)
    box(ax, (10.0, 2.65), "scores: RMSE, …", width=2.9)
    arrow(ax, (2.95, 2.65), (4.35, 2.65), "runs")
    arrow(ax, (5.7, 2.22), (5.7, 1.18), "half of the points, with noise", shift=(1.68, -0.27))
    arrow(ax, (7.3, 0.75), (8.55, 0.75), "EnKF")
    arrow(ax, (1.6, 0.32), (9.6, 0.32), bend=0.045, shift=(0, -0.62))
    arrow(ax, (7.05, 2.65), (8.55, 2.65))
    arrow(ax, (10.0, 1.18), (10.0, 2.22))
    ax.set_ylim(-0.1, 3.6)
    return ax


def training_pair(*, ax: Axes | None = None) -> Axes:
    """Where a training pair comes from: the step of the wrong model from one analysis, and the next analysis."""
    ax = diagram(11.6, 3.3, ax)
    analysis, physical, hybrid = (STYLE[role]["color"] for role in ("analysis", "physical", "hybrid"))
    t = np.linspace(0, 1, 50)
    ax.plot(2.0 + 5.6 * t, 0.98 + 1.65 * t + 0.35 * np.sin(np.pi * t), color="0.6", linewidth=1.8)
    ax.text(4.0, 2.3, "the truth, unknown", fontsize=13, color="0.35", rotation=19, ha="center", va="center")
    arrow(ax, (2.15, 0.85), (7.42, 0.98), "one step of the wrong model", bend=-0.1, shift=(0.2, -0.1), color=physical)
    arrow(ax, (7.6, 1.15), (7.6, 2.28), color=hybrid)
    ax.plot([2.0, 7.6], [0.85, 2.45], "o", color=analysis, markersize=13)
    ax.plot([7.6], [0.98], "s", color=physical, markersize=12)
    ax.text(1.75, 0.85, r"input  $x^a_{k-1}$", fontsize=15.5, ha="right", va="center", color=analysis)
    ax.text(7.85, 2.5, r"$x^a_k$", fontsize=15, va="center", color=analysis)
    ax.text(7.85, 0.92, r"$\Phi(x^a_{k-1})$", fontsize=15.5, color=physical, va="center")
    ax.text(
        7.85,
        1.75,
        "target: what the model lacked,\n" r"$x^a_k - \Phi(x^a_{k-1})$",
        fontsize=14,
        va="center",
        color=hybrid,
    )
    arrow(ax, (2.0, 0.25), (7.6, 0.25), "time", shift=(3.2, 0.0), color="0.5")
    return ax


def hybrid(*, ax: Axes | None = None) -> Axes:
    """The hybrid: the physical step and the network side by side, added."""
    ax = diagram(11.6, 3.1, ax)
    box(ax, (1.3, 1.55), "$x_k$", width=1.4)
    box(ax, (5.2, 2.45), "physical model  $\\Phi$", "physical", width=3.7)
    box(ax, (5.2, 0.65), "network  $\\mathrm{NN}_\\theta$", "network", here=True, width=3.7)
    box(ax, (10.3, 1.55), "$x_{k+1}$", width=1.4)
    ax.plot(8.2, 1.55, "o", markersize=27, markerfacecolor="white", markeredgecolor="0.25", markeredgewidth=1.6)
    ax.text(8.2, 1.55, "+", fontsize=22, ha="center", va="center_baseline")
    for y in (2.45, 0.65):
        arrow(ax, (2.0, 1.55), (3.35, y))
        arrow(ax, (7.05, y), (7.98, 1.55 + 0.15 * np.sign(y - 1.55)))
    arrow(ax, (8.45, 1.55), (9.6, 1.55))
    return ax


STORY = {"loop": loop, "twin_experiment": twin_experiment, "training_pair": training_pair, "hybrid": hybrid}


def source_digest() -> str:
    """What changes when the drawings may have changed; every file holds it as its *Source*."""
    return hashlib.sha256((inspect.getsource(sys.modules[__name__]) + repr((STYLE, RC))).encode()).hexdigest()


def save(folder: Path) -> None:
    """Write each diagram of the story as SVG and PNG, with its alternative text inside."""
    for name, draw in STORY.items():
        about = {"Title": ALT[name].partition(".")[0], "Description": ALT[name], "Source": source_digest()}
        with plt.rc_context(RC | {"svg.hashsalt": name}):
            figure = draw().figure
            figure.savefig(folder / f"{name}.svg", metadata=about | {"Date": None})
            figure.savefig(folder / f"{name}.png", dpi=120, metadata=about)
            plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m mooc_da.diagrams FOLDER      (an existing one)")
    save(Path(sys.argv[1]))
