"""The figures of notebook 6, in the style of :mod:`mooc_da.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .plots import STYLE, banded


def over_passes(
    values: Mapping[str, Sequence],
    references: Mapping[str, Mapping[str, float]],
    labels: Mapping[str, str],
    title: str = "",
) -> Figure:
    """Scores pass by pass, one panel each: mean and range over the experiments, and what there is to compare with.

    Parameters
    ----------
    values : score -> (P, S), P passes of S experiments; three panels stand side by side
    references : key of STYLE -> score -> level; a level that is missing is not drawn
    labels : score -> label of its axis, and key of STYLE -> entry in the legend
    """
    n_rows = -(-len(values) // 3)
    figure, panels = plt.subplots(n_rows, 3, figsize=(13.0, 3.2 * n_rows), sharex=True, squeeze=False)
    for ax, (score, rows) in zip(panels.flat, values.items(), strict=True):
        rows = np.asarray(rows)
        banded(np.arange(1, len(rows) + 1), rows.T, "hybrid", ax=ax, label=labels["hybrid"])
        for name, levels in references.items():
            if score in levels:
                ax.axhline(levels[score], label=labels[name], **STYLE[name] | {"linewidth": 1.6})
        ax.set(ylabel=labels[score])
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in panels[-1]:
        ax.set_xlabel("analyses learnt from")
    lines, texts = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, texts, loc="outside lower center", ncols=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    return figure


def compared(
    groups: Mapping[str, Mapping[str, Sequence]],
    *,
    references: Mapping[str, Mapping[str, float]],
    labels: Mapping[str, str],
    chosen: str = "",
    title: str = "",
) -> Figure:
    """Scores of many models, one line each and one panel for each score: every experiment a dot, their mean a bar.

    Parameters
    ----------
    groups : score -> label of a model -> (S,) values
    references : key of STYLE -> score -> level to compare with
    labels : score -> label of its axis, and key of STYLE -> entry in the legend
    chosen : the label to stand out
    """
    n_rows = max(len(models) for models in groups.values())
    figure, panels = plt.subplots(1, len(groups), figsize=(12.0, 0.36 * n_rows + 1.9), sharey=True, squeeze=False)
    for ax, (score, models) in zip(panels.flat, groups.items(), strict=True):
        for name, levels in references.items():
            if score in levels:
                ax.axvline(levels[score], label=labels[name], zorder=0, **STYLE[name] | {"linewidth": 1.6})
        for place, (label, values) in enumerate(models.items()):
            values = np.asarray(values, dtype=float)
            ax.plot(values, np.full(len(values), place), "o", color="black", markerfacecolor="white", markersize=5)
            colour = STYLE["hybrid" if label == chosen else "physical"]["color"]
            ax.plot(values.mean(), place, "|", markersize=16, markeredgewidth=4, color=colour)
        ax.set_yticks(range(len(models)), list(models))
        ax.locator_params(axis="x", nbins=6)
        ax.set(xlabel=labels[score])
    panels[0, 0].invert_yaxis()
    lines, texts = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, texts, loc="outside lower center", ncols=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    return figure


def prices(
    studies: Mapping[str, Mapping[str, Sequence]],
    references: Mapping[str, float],
    labels: Mapping[str, str],
    title: str = "",
) -> Figure:
    """A score against how much there is of something, one panel for each study: setting -> (S,) values.

    Parameters
    ----------
    studies : title of a panel -> label of a setting -> values
    references : key of STYLE -> level to compare with, the course's own setting
    labels : "score" -> label of the axis, and key of STYLE -> entry in the legend
    """
    figure, panels = plt.subplots(1, len(studies), figsize=(11.0, 4.2), sharey=True)
    for ax, (study, settings) in zip(panels, studies.items(), strict=True):
        for place, values in enumerate(settings.values()):
            values = np.asarray(values, dtype=float)
            ax.plot(np.full(len(values), place), values, "o", color="black", markerfacecolor="white", markersize=5)
        means = [np.mean(np.asarray(values, dtype=float)) for values in settings.values()]
        ax.plot(range(len(means)), means, color=STYLE["hybrid"]["color"])
        for name, level in references.items():
            ax.axhline(level, label=labels[name], zorder=0, **STYLE[name] | {"linewidth": 1.6})
        ax.set_xticks(range(len(settings)), list(settings))
        ax.set(xlabel=study, xlim=(-0.4, len(settings) - 0.6))
    panels[0].set(ylabel=labels["score"])
    lines, texts = panels[0].get_legend_handles_labels()
    figure.legend(lines, texts, loc="outside lower center", ncols=len(references))
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    return figure
