"""The figures of the course, one function per kind, in one style.

Every function takes ``ax=None``, draws into it or into a figure of its own, and returns the Axes.
Colours, line styles and markers always mean the same; none relies on colour alone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image  # comes with matplotlib
from torch import Tensor

# The hues of Okabe & Ito, each as light as a contrast of 3 on white allows or darker, and far from the others for
# colour-blind readers too; one meaning each, with a line style of its own.
STYLE: dict[str, dict] = {
    "truth": {"color": "black", "linestyle": "-"},
    "observations": {"color": "black", "linestyle": "none", "marker": "o", "markerfacecolor": "none"},
    "physical": {"color": "#646464", "linestyle": (0, (4, 1.5))},
    "analysis": {"color": "#0C55A3", "linestyle": "-"},
    "spread": {"color": "#4882EA", "linestyle": "-."},
    "hybrid": {"color": "#00A065", "linestyle": "-"},
    "hybrid from truth": {"color": "#C0370F", "linestyle": (0, (1, 1))},
    "ridge": {"color": "#D758A7", "linestyle": (0, (5, 1, 1, 1))},
    "perfect": {"color": "black", "linestyle": (0, (1, 2))},
    "comparison": {"color": "#CD8300", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
}
RC = {
    "figure.figsize": (9.0, 4.2),
    "figure.dpi": 80,
    "figure.constrained_layout.use": True,
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2.2,
    "legend.frameon": False,
    "image.cmap": "RdBu_r",
}


def set_style() -> None:
    """Size, fonts and colours of all figures, once per notebook."""
    plt.rcParams.update(RC)


def show(drawing: Axes | Figure, alt: str) -> None:
    """Show a figure in a notebook, with a text that tells its message to those who cannot see it."""
    from IPython.display import display

    figure = drawing if isinstance(drawing, Figure) else drawing.figure
    drawn, png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    plt.close(figure)
    # 256 colours are enough for lines and maps, and a notebook of a third of the size
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(png, format="png", optimize=True)
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})


def style(name: str, label: str | None = None) -> dict:
    """Line properties of what is drawn (a key of STYLE), labelled with its name unless told otherwise."""
    if name not in STYLE:
        raise ValueError(f"name = {name!r}: expected one of {', '.join(STYLE)}.")
    return STYLE[name] | {"label": name if label is None else label}


def legend_below(ax: Axes, ncols: int = 4) -> None:
    """The legend under the axes, where it hides nothing."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=ncols)


def axes_or_new(ax: Axes | None, **figure) -> Axes:
    """The Axes given, or those of a new figure in the style of the course."""
    if ax is not None:
        return ax
    return plt.subplots(**figure)[1]


def hovmoeller(
    states: Tensor,
    dt: float,
    *,
    ax: Axes | None = None,
    centre: float = 2.3,
    limit: float = 10.0,
    title: str = "",
    label: str = "$x_n$",
) -> Axes:
    """A state on the ring through time: (K, Nx), time to the right, symmetric colours about ``centre``."""
    ax = axes_or_new(ax, figsize=(9.0, 2.8))
    end = states.shape[-2] * dt
    image = ax.imshow(
        states.detach().cpu().mT, aspect="auto", origin="lower", extent=(0, end, 0, states.shape[-1]),
        vmin=centre - limit, vmax=centre + limit, cmap="RdBu_r", interpolation="nearest",
    )  # fmt: skip
    ax.figure.colorbar(image, ax=ax, label=label, pad=0.01)
    ax.set(xlabel="time (MTU)", ylabel="point $n$", title=title)
    return ax


def series(
    times: Tensor,
    curves: Mapping[str, Tensor],
    *,
    ax: Axes | None = None,
    labels: Mapping[str, str] | None = None,
    ylabel: str = "",
    title: str = "",
) -> Axes:
    """Named curves over time (keys of STYLE, with other ``labels`` where given), NaN left out."""
    ax = axes_or_new(ax)
    for name, values in curves.items():
        seen = ~np.isnan(np.asarray(values))
        ax.plot(np.asarray(times)[seen], np.asarray(values)[seen], **style(name, (labels or {}).get(name)))
    ax.set(xlabel="time (MTU)", ylabel=ylabel, title=title)
    legend_below(ax)
    return ax


def banded(x, values: Tensor, name: str, *, ax: Axes, label: str | None = None) -> None:
    """Mean over the first axis of (S, K) as a line, and all S within a band."""
    values = np.asarray(values)
    line = style(name, label)
    ax.plot(x, values.mean(0), **line)
    if len(values) > 1:
        ax.fill_between(x, values.min(0), values.max(0), color=line["color"], alpha=0.2, linewidth=0)


def skill(
    errors: Mapping[str, Tensor],
    dt: float,
    *,
    threshold: float | None = None,
    saturation: float | None = None,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Forecast RMSE by lead, each (S, T + 1) or (T + 1,): mean and range over the experiments."""
    ax = axes_or_new(ax)
    for name, values in errors.items():
        values = np.atleast_2d(np.asarray(values))
        banded(np.arange(values.shape[-1]) * dt, values, name, ax=ax)
    for level, text in (
        (threshold, "half the climatological std"),
        (saturation, r"two states at random: $\sqrt{2}\,\times$ std"),
    ):
        if level is not None:
            ax.axhline(level, color="0.6", linewidth=1, zorder=0)
            ax.annotate(
                text,
                (1.0, level),
                (0, 3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                fontsize=11,
                color="0.35",
                ha="right",
            )
    ax.set(xlabel="lead (MTU)", ylabel="RMSE", title=title, xlim=(0, None), ylim=(0, None))
    ax.legend(loc="upper left" if saturation is not None else "lower right")
    return ax


def ranks(frequencies: Tensor, *, ax: Axes | None = None, title: str = "") -> Axes:
    """A rank histogram, (Ne + 1,), with the line of a reliable ensemble."""
    ax = axes_or_new(ax, figsize=(8.0, 3.6))
    n = len(frequencies)
    ax.bar(
        range(n),
        np.asarray(frequencies) * n,
        width=1.0,
        color=STYLE["spread"]["color"],
        edgecolor="white",
        linewidth=0.4,
    )
    ax.axhline(1.0, **style("truth", "reliable"))
    ax.set(xlabel="members below the truth", ylabel="frequency / expected", title=title)
    ax.legend()
    return ax


def learning_curves(
    curves: Mapping[str, Tensor],
    *,
    ax: Axes | None = None,
    floor: float | None = None,
    title: str = "",
) -> Axes:
    """Losses by epoch, each (n_epochs, S): mean and range over the networks."""
    ax = axes_or_new(ax)
    lines = {
        "training": ("physical", "training"),
        "validation": ("hybrid", "validation"),
        "validation, truth": ("hybrid from truth", "validation, learnt from truth"),
    }
    for name, values in curves.items():
        banded(
            np.arange(1, len(values) + 1),
            np.asarray(values).T,
            lines[name][0],
            ax=ax,
            label=lines[name][1],
        )
    if floor is not None:
        ax.axhline(floor, **style("perfect", "the exact model error"))
    ax.set(xlabel="epoch", ylabel="MSE / variance of the targets", title=title)
    ax.legend()
    return ax


def joint_density(
    x: Tensor,
    y: Tensor,
    *,
    ax: Axes | None = None,
    xlabel: str = "",
    ylabel: str = "",
    limit: float | None = None,
    slope: float | None = None,
    title: str = "",
) -> Axes:
    """How often pairs of values occur (logarithmic grey), with the diagonal and a regression line through 0."""
    ax = axes_or_new(ax, figsize=(6.4, 5.2))
    x, y = np.asarray(x).ravel(), np.asarray(y).ravel()
    limit = limit or float(np.abs(x).max())
    ax.hexbin(
        x,
        y,
        gridsize=60,
        extent=(-limit, limit, -limit, limit),
        bins="log",
        cmap="Greys",
        linewidths=0.1,
    )
    line = np.array([-limit, limit])
    ax.plot(line, line, **style("truth", "equal"))
    if slope is not None:
        ax.plot(line, slope * line, **style("analysis", f"slope {slope:.2f}"))
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=line, ylim=line, title=title)
    ax.legend(loc="upper left")
    return ax


def by_rank(
    curves: Mapping[str, Tensor],
    *,
    ax: Axes | None = None,
    xlabel: str = "",
    ylabel: str = "",
    yscale: str = "linear",
    title: str = "",
) -> Axes:
    """Values numbered from one (Lyapunov exponents, power by wavenumber), each (S, n) or (n,)."""
    ax = axes_or_new(ax)
    for name, values in curves.items():
        values = np.atleast_2d(np.asarray(values))
        banded(np.arange(1, values.shape[-1] + 1), values, name, ax=ax)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale=yscale, title=title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax


def bars(
    groups: Mapping[str, Tensor],
    names: Sequence[str],
    *,
    ax: Axes | None = None,
    xlabel: str = "",
    title: str = "",
) -> Axes:
    """Horizontal bars of means, with every experiment as a dot: label -> values (S,); ``names`` are keys of STYLE."""
    ax = axes_or_new(ax)
    for place, (values, name) in enumerate(zip(groups.values(), names, strict=True)):
        values = np.atleast_1d(np.asarray(values))
        ax.barh(place, values.mean(), color=STYLE[name]["color"], alpha=0.75, height=0.62)
        ax.plot(
            values,
            np.full(len(values), place),
            "o",
            color="black",
            markerfacecolor="white",
            markersize=4,
        )
        ax.annotate(
            f"{values.mean():.3f}",
            (values.max(), place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
        )
    ax.set_yticks(range(len(groups)), list(groups))
    ax.invert_yaxis()
    ax.locator_params(axis="x", nbins=5)
    ax.set(xlabel=xlabel, title=title)
    return ax


def summary(skill_curves: Mapping[str, Tensor], results: Mapping[str, Tensor], dt: float, threshold: float):
    """The story in one figure: forecasts to the left, analyses to the right. Returns the Figure."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.4), width_ratios=(1.1, 1.0))
    skill(
        skill_curves,
        dt,
        threshold=threshold,
        ax=left,
        title="The learnt correction doubles the useful forecast",
    )
    groups = {
        "physical": results["analysis_rmse"],
        "hybrid": results["hybrid_analysis_rmse"],
        "hybrid from truth": results["hybrid_truth_analysis_rmse"],
        "perfect": results["perfect_analysis_rmse"],
    }
    bars({f"{name} model" if name == "perfect" else name: v for name, v in groups.items()}, list(groups), ax=right,
         xlabel="analysis RMSE", title="… and improves the filter it came from")  # fmt: skip
    return figure
