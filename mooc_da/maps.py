"""Maps of fields in two dimensions, in the style of :mod:`mooc_da.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from . import plots


def fields(
    panels: Mapping[str, Tensor],
    *,
    axes: Sequence[Axes] | None = None,
    length: float = 1.0,
    centre: float = 0.0,
    limit: float | None = None,
    label: str = "",
    observed: Tensor | None = None,
    title: str = "",
) -> Figure:
    """Fields (n, n) side by side, rows to the north, with one symmetric scale of colours for all.

    Parameters
    ----------
    panels : title of each map -> its field
    length : of a side, in the units of the axes
    centre, limit : colours reach from ``centre - limit`` to ``centre + limit``; the largest departure by default
    label : of the colours, with their unit
    observed : (Ny, 2) x and y of points to mark in the first map
    title : above all, the finding
    """
    if axes is None:
        size = (3.3 * len(panels) + 1.2, 4.0 if title else 3.7)
        _, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="compressed")
        axes = axes[0]
        axes[0].figure.get_layout_engine().set(h_pad=0.09)  # room between the title of all and those of the maps
    if len(axes) != len(panels):
        raise ValueError(f"{len(axes)} axes for {len(panels)} maps: expected one each.")
    images = {name: np.asarray(field.detach().cpu()) for name, field in panels.items()}
    limit = limit or max(float(np.abs(image - centre).max()) for image in images.values())
    for ax, (name, image) in zip(axes, images.items(), strict=True):
        drawn = ax.imshow(
            image, origin="lower", extent=(0, length, 0, length), vmin=centre - limit, vmax=centre + limit,
            cmap="RdBu_r", interpolation="bilinear",
        )  # fmt: skip
        ax.set(title=name, xlabel="$x$")
        ax.spines[:].set_visible(False)
    if observed is not None:
        points = np.asarray(observed)
        axes[0].plot(points[:, 0], points[:, 1], **(plots.STYLE["observations"] | {"markersize": 3}))
    axes[0].set(ylabel="$y$")
    figure = axes[0].figure
    figure.colorbar(drawn, ax=list(axes), label=label, pad=0.015)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=16)
    return figure


def compression(
    linear: Mapping[int, float], network: Mapping[int, float], *, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Relative error of a reconstruction by the number of variables: EOFs as a line, autoencoders as points."""
    ax = plots.axes_or_new(ax)
    ax.plot(list(linear), list(linear.values()), **plots.style("physical", "leading EOFs"))
    ax.plot(list(network), list(network.values()), **(plots.style("hybrid", "autoencoder") | {"marker": "s"}))
    ax.set(xscale="log", yscale="log", xlabel="number of variables", ylabel="relative error", title=title)
    ax.set_xticks([4, 8, 16, 32, 64, 128], [4, 8, 16, 32, 64, 128])
    ax.set_yticks([0.01, 0.03, 0.1, 0.3], ["1 %", "3 %", "10 %", "30 %"])
    ax.minorticks_off()
    ax.legend()
    return ax
