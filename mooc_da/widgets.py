"""Live explorers: a slider for each parameter, and a picture computed anew while it moves.

    widgets.filter_cockpit()  widgets.model_explorer()  widgets.error_growth_explorer()
    widgets.training_explorer()  widgets.hybrid_explorer()

As the last line of a cell each shows its controls; where widgets cannot run (GitHub, a printed notebook) a
picture of the default settings stands in for them, and without a notebook its description. Only core widgets
are used, of ipywidgets 7.7 or 8.
"""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib

from . import explorers, hybrid_explorers, plots
from .explorers import View
from .reader import live, say, shell

RC = plots.RC | {"figure.constrained_layout.use": False, "font.size": 12, "axes.titlesize": 13, "lines.linewidth": 1.9}
RC |= {"figure.dpi": 100, "legend.fontsize": 10.5, "axes.labelsize": 12}
RC |= {"axes.titley": 1.0}  # a title at a fixed place is drawn faster


@dataclass(frozen=True)
class Slider:
    """A number from ``low`` to ``high`` in equal steps; whole numbers if the step is one."""

    label: str
    default: float
    low: float
    high: float
    step: float

    def widget(self, widgets: Any, **options: Any) -> Any:
        """The control, made by the module ``ipywidgets``."""
        kind = widgets.IntSlider if isinstance(self.step, int) else widgets.FloatSlider
        return kind(value=self.default, min=self.low, max=self.high, step=self.step, **options)


@dataclass(frozen=True)
class Scale:
    """A slider over given values, with the text that is shown for each."""

    label: str
    default: Any
    values: Mapping[str, Any] | Sequence[float]

    def widget(self, widgets: Any, **options: Any) -> Any:
        """The control, made by the module ``ipywidgets``."""
        named = self.values if isinstance(self.values, Mapping) else {f"{v:g}": v for v in self.values}
        return widgets.SelectionSlider(value=self.default, options=list(named.items()), **options)


@dataclass(frozen=True)
class Choice:
    """One of a few things, from a list that opens."""

    label: str
    default: str
    values: Sequence[str]

    def widget(self, widgets: Any, continuous_update: bool, **options: Any) -> Any:
        """The control, made by the module ``ipywidgets``; a choice has no in-between that could update."""
        return widgets.Dropdown(value=self.default, options=list(self.values), **options)


Control = Slider | Scale | Choice


class Picture(NamedTuple):
    """A view as it goes into a page."""

    png: str  # base64
    alt: str
    numbers: str
    shape: tuple[int, int]  # pixels, width and height


@functools.lru_cache(maxsize=64)
def picture(view: Callable[..., View], **settings: Any) -> Picture:
    """Compute and draw a view; the last ones are kept, so that going back and forth is free."""
    with matplotlib.rc_context(RC):
        figure, alt, numbers = view(**settings)
        png = io.BytesIO()
        figure.savefig(png, format="png")
    shape = tuple(round(inches * figure.dpi) for inches in figure.get_size_inches())
    return Picture(base64.b64encode(png.getvalue()).decode(), alt, numbers, shape)


class Explorer:
    """A view with its controls; shown once, where it is displayed.

    Attributes
    ----------
    sliders : name of a setting -> its widget; move one by ``explorer.sliders[name].value = …``
    new_draw, reset : buttons; ``click()`` presses them
    image, status : what is shown, as HTML
    shown : the :class:`Picture` there is
    """

    def __init__(self, view: Callable[..., View], controls: Mapping[str, Control], *, slow: bool = False) -> None:
        self.view, self.controls, self.slow = view, controls, slow
        self.default = {name: control.default for name, control in controls.items()} | {"draw": 0}
        self.settings, self.sliders, self.held = dict(self.default), {}, False
        self.shown = self.standing_in = picture(view, **self.default)
        try:
            import ipywidgets
        except ImportError:
            self.box = None
        else:
            self.box = self.build(ipywidgets)

    def build(self, widgets: Any) -> Any:
        """Controls above the picture."""
        for name, control in self.controls.items():
            layout = widgets.Layout(flex="1 1 27em", width="auto", max_width="36em", margin="1px 16px 1px 0")
            self.sliders[name] = control.widget(
                widgets, description=control.label, layout=layout, style={"description_width": "13em"},
                continuous_update=not self.slow,
            )  # fmt: skip
            self.sliders[name].observe(self.update, "value")
        self.new_draw = widgets.Button(description="New draw", tooltip="Other random numbers, the same settings")
        self.reset = widgets.Button(description="Reset", tooltip="The settings of the beginning")
        self.new_draw.on_click(self.draw_again)
        self.reset.on_click(self.start_again)
        self.image, self.status = widgets.HTML(), widgets.HTML()
        self.present()
        row = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center")
        buttons = widgets.HBox([self.new_draw, self.reset])
        controls = widgets.Box([*self.sliders.values(), buttons], layout=row)
        return widgets.VBox([controls, self.image, self.status])

    def draw_again(self, _: Any = None) -> None:
        """Other random numbers, the same settings."""
        self.settings["draw"] += 1
        self.update()

    def start_again(self, _: Any = None) -> None:
        """Back to the settings and the random numbers of the beginning, in one redraw."""
        self.held, self.settings["draw"] = True, 0
        for name, slider in self.sliders.items():
            slider.value = self.default[name]
        self.held = False
        self.update()

    def update(self, _: Any = None) -> None:
        """Compute and show what the controls say; an error becomes a message in the place of the numbers."""
        if self.held:
            return
        values = {name: slider.value for name, slider in self.sliders.items()}
        self.settings |= {n: round(v, 9) if isinstance(v, float) else v for n, v in values.items()}
        if self.slow:
            self.tell("Computing …")
        try:
            self.shown = picture(self.view, **self.settings)
        except Exception as error:  # a callback's traceback is lost in a log, a message is read
            self.tell(f"Not possible with these settings: {error}")
            self.image.value = ""
            return
        self.present()

    def present(self) -> None:
        """Show the picture there is, and its numbers."""
        width, height = self.shown.shape
        self.image.value = (
            f'<img src="data:image/png;base64,{self.shown.png}" alt="{html.escape(self.shown.alt)}" '
            f'style="width: 100%; max-width: {width}px; aspect-ratio: {width} / {height}">'
        )
        again = f" (Draw {self.settings['draw'] + 1}.)" if self.settings["draw"] else ""
        self.tell(self.shown.numbers + again)

    def tell(self, text: str) -> None:
        """One line under the picture, which screen readers read out when it changes."""
        self.status.value = (
            f'<div role="status" aria-live="polite" style="max-width: 60em; line-height: 1.4">{html.escape(text)}</div>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        """The live explorer, and what stands in for it."""
        data = {"image/png": self.standing_in.png, "text/plain": self.standing_in.alt}
        if self.box is not None and self.box.model_id is not None:
            data |= live(self.box)
        return data, {"image/png": {"alt": self.standing_in.alt}}

    def __repr__(self) -> str:
        return f"<explorer {self.view.__name__}>"


def explore(view: Callable[..., View], controls: Mapping[str, Control], *, slow: bool = False) -> Explorer:
    """An explorer of a view; says what to do where it cannot be live.

    Parameters
    ----------
    view : keyword arguments, those of the controls and ``draw`` -> :class:`mooc_da.explorers.View`
    controls : name of the argument -> control, in the order of display
    slow : compute when a slider is let go, not while it moves
    """
    explorer = Explorer(view, controls, slow=slow)
    if shell() is None:
        say(f"{explorer.shown.alt}\n\n(To move its sliders, open this in a notebook.)")
    elif explorer.box is None:
        say("Its sliders need ipywidgets: run `%pip install ipywidgets`, then restart the kernel.")
    return explorer


def filter_cockpit() -> Explorer:
    """Ensemble filters at work, 200 times of Lorenz-96; it begins with one that has lost the truth."""
    controls = {
        "method": Choice("Filter", "ETKF", tuple(explorers.FILTERS)),
        "size": Slider("Members", 40, 5, 80, 5),
        "inflation": Slider("Inflation", 1.0, 1.0, 2.0, 0.05),
        "variance": Scale("Model error: σ_q² / dt", 0.0, (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
        "obs_std": Scale("Observation error: σ", 0.2, (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)),
        "stride": Scale("Points observed", 2, {"all": 1, "1 of 2": 2, "1 of 4": 4, "1 of 5": 5, "1 of 8": 8}),
        "error": Slider("Model: 0 true, 1 physical", 1.0, 0.0, 1.5, 0.25),
    }
    return explore(explorers.filter_cockpit, controls)


def model_explorer() -> Explorer:
    """The equation of the true model for any forcing, cubic term and friction."""
    controls = {
        "forcing": Slider("Forcing F", 8.5, 0.0, 16.0, 0.5),
        "cubic": Slider("Cubic term ν", 0.025, 0.0, 0.1, 0.005),
        "friction": Slider("Friction λ", 1.01, 0.5, 2.0, 0.01),
    }
    return explore(explorers.model_explorer, controls)


def error_growth_explorer() -> Explorer:
    """How errors of the start and of the model grow."""
    controls = {
        "size": Scale("Error of the start", 1e-3, (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.2, 0.5, 1.0)),
        "model": Choice("Model of the forecast", "true", ("true", "physical")),
    }
    return explore(explorers.error_growth_explorer, controls)


def training_explorer() -> Explorer:
    """A little network, trained in about a second whenever a slider is let go."""
    controls = {
        "noise": Scale("Noise of the targets", 0.2, (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)),
        "amount": Scale("States to learn from", 100, (10, 30, 100, 300, 1000)),
        "width": Scale("Width of the network", 20, (1, 2, 5, 10, 20, 40)),
    }
    return explore(hybrid_explorers.training_explorer, controls, slow=True)


def hybrid_explorer() -> Explorer:
    """The hybrid in forecasts and back in the filter, beside the physical model and its ceiling."""
    controls = {
        "lead": Slider("Lead of the forecast (MTU)", 1.0, 0.1, 4.0, 0.1),
        "start_error": Scale("Error of its start", 0.0, (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)),
        "variance": Scale("Model error: σ_q² / dt", 0.03, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
        "loop_pass": Slider("Pass through the loop", 1, 1, 8, 1),
    }
    return explore(hybrid_explorers.hybrid_explorer, controls)
