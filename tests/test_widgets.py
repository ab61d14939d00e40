"""Explorers are operated as a reader would: move, press, read; and their palette is seen by everyone."""

import base64
import itertools
import re
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mooc_da import explorers, hybrid_explorers, plots, widgets
from mooc_da.explorers import View
from mooc_da.reader import WIDGET
from mooc_da.widgets import Choice, Explorer, Scale, Slider

EXPLORERS = (
    "filter_cockpit", "model_explorer", "error_growth_explorer", "training_explorer", "hybrid_explorer",
)  # fmt: skip
EACH_EXPLORER = pytest.mark.parametrize("name", EXPLORERS)
LIVE = {}  # explorers are costly: one of each for all tests, which reset it


@pytest.fixture
def explorer(name):
    pytest.importorskip("ipywidgets")
    if name not in LIVE:
        LIVE[name] = getattr(widgets, name)()
    LIVE[name].reset.click()
    return LIVE[name]


def ends(slider):
    """The settings at both ends of a control."""
    if hasattr(slider, "min"):
        return slider.min, slider.max
    values = [o[1] if isinstance(o, tuple) else o for o in slider.options]
    return values[0], values[-1]


def text(explorer):
    return re.sub("<[^>]*>", "", explorer.status.value)


# All of them


@EACH_EXPLORER
def test_what_stands_in_is_a_picture_with_words(name, explorer):
    data, metadata = explorer._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert len(data["image/png"]) < 200_000
    assert len(data["text/plain"]) > 80
    assert metadata == {"image/png": {"alt": data["text/plain"]}}
    assert data[WIDGET]["model_id"] == explorer.box.model_id


@EACH_EXPLORER
def test_every_control_changes_the_picture_and_its_words(name, explorer):
    for key, slider in explorer.sliders.items():
        explorer.reset.click()
        before = explorer.image.value, text(explorer)
        other = next(v for v in ends(slider) if v != slider.value)
        slider.value = other
        assert explorer.settings[key] == pytest.approx(other) if isinstance(other, float) else other
        assert explorer.image.value != before[0], key
        assert text(explorer) != before[1], key
        assert explorer.shown.alt[:30] in explorer.image.value.replace("&#x27;", "'")


@EACH_EXPLORER
def test_the_corners_of_all_controls_tell_something(name, explorer):
    for corner in (0, 1):
        explorer.held = True  # one redraw for all
        for slider in explorer.sliders.values():
            slider.value = ends(slider)[corner]
        explorer.held = False
        explorer.update()
        assert "Not possible" not in text(explorer)
        assert not re.search(r"\bnan\b|\binf\b", text(explorer))


@EACH_EXPLORER
def test_the_buttons_draw_anew_and_go_back(name, explorer):
    first = explorer.image.value
    explorer.new_draw.click()
    assert explorer.image.value != first
    assert "Draw 2" in text(explorer)
    explorer.reset.click()
    assert explorer.image.value == first


@EACH_EXPLORER
def test_labels_have_room(name, explorer):
    for slider in explorer.sliders.values():
        assert 0 < len(slider.description) <= 26  # of 13 em
        assert slider.style.description_width.endswith("em")


# The machinery


def a_view(number, kind, draw):
    if number == 3:
        raise RuntimeError("three is <not> a number")
    figure, (ax,) = explorers.panels((0.1, 0.1, 0.8, 0.8))
    ax.plot([0, number])
    return View(figure, f'alt & "{number}" {kind}', f"{number} of {kind}, {draw}")


CONTROLS = {"number": Slider("Number", 1, 0, 3, 1), "kind": Choice("Kind", "a", ("a", "b"))}


@pytest.fixture
def small_explorer():
    pytest.importorskip("ipywidgets")
    return Explorer(a_view, CONTROLS)


def test_an_error_becomes_a_message_and_the_next_setting_works(small_explorer):
    small_explorer.sliders["number"].value = 3
    assert "three is &lt;not&gt; a number" in small_explorer.status.value
    assert small_explorer.image.value == ""
    small_explorer.sliders["number"].value = 2
    assert text(small_explorer) == "2 of a, 0"


def test_words_are_escaped_and_announced(small_explorer):
    assert 'alt="alt &amp; &quot;1&quot; a"' in small_explorer.image.value
    assert 'role="status" aria-live="polite"' in small_explorer.status.value


def test_a_reset_is_one_redraw(small_explorer, monkeypatch):
    small_explorer.sliders["number"].value, small_explorer.sliders["kind"].value = 2, "b"
    calls = []
    monkeypatch.setattr(widgets, "picture", lambda view, **settings: calls.append(settings) or small_explorer.shown)
    small_explorer.reset.click()
    assert calls == [{"number": 1, "kind": "a", "draw": 0}]


def test_going_back_computes_nothing(small_explorer):
    small_explorer.sliders["number"].value = 0
    misses = widgets.picture.cache_info().misses
    small_explorer.sliders["number"].value = 1
    assert widgets.picture.cache_info().misses == misses


def test_the_steps_of_a_slider_are_clean_numbers():
    pytest.importorskip("ipywidgets")
    explorer = Explorer(a_view, {"number": Slider("Number", 0.1, 0.0, 1.0, 0.1), "kind": CONTROLS["kind"]})
    explorer.sliders["number"].value = 0.1 + 0.2
    assert explorer.settings["number"] == 0.3


def test_a_slow_explorer_waits_until_a_slider_is_let_go():
    pytest.importorskip("ipywidgets")
    controls = CONTROLS | {"number": Scale("Number", 1.0, (0.0, 1.0))}
    assert not Explorer(a_view, controls, slow=True).sliders["number"].continuous_update
    assert Explorer(a_view, controls).sliders["number"].continuous_update


def test_without_widgets_the_picture_stands_alone(monkeypatch, capsys):
    for module in ("ipywidgets", "IPython"):
        monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    explorer = widgets.explore(a_view, CONTROLS)
    data, _ = explorer._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    printed = capsys.readouterr().out
    assert 'alt & "1" a' in printed
    assert "notebook" in printed


def test_in_a_notebook_without_widgets_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(widgets, "shell", object)
    monkeypatch.setattr(widgets.Explorer, "build", lambda self, module: None)
    widgets.explore(a_view, CONTROLS)
    assert "pip install ipywidgets" in capsys.readouterr().out


# What they show


COCKPIT = {"method": "ETKF", "size": 40, "inflation": 1.0, "variance": 0.3, "obs_std": 0.2, "stride": 2, "error": 1.0}


@pytest.mark.parametrize("draw", (0, 1))
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"variance": 0.0}, "it has lost the truth"),
        ({"variance": 0.0, "inflation": 1.2}, "too sure of itself"),
        ({"variance": 0.0, "inflation": 1.35}, "it knows its error"),
        ({"variance": 0.0, "inflation": 2.0}, "too careful"),
        ({"variance": 0.0, "method": "EnKF-N"}, "it knows its error"),
        ({"size": 10}, "it has lost the truth"),
        ({"size": 10, "method": "EnKF-N"}, "it broke down"),
    ],
)
def test_the_cockpit_answers_the_questions_beside_it(change, told, draw):
    assert told in explorers.filter_cockpit(**COCKPIT | change, draw=draw).alt


def test_a_model_between_is_at_its_ends_the_two_models():
    x = explorers.world(0)[0][:5]
    assert np.allclose(explorers.between(0.0)(x), explorers.NATURE(x))
    assert np.allclose(explorers.between(1.0)(x), explorers.PHYSICAL(x))


@pytest.mark.parametrize("draw", (0, 1, 2))
def test_the_quick_growth_rate_agrees_with_published_exponents(draw):
    """Lorenz-96 with F = 8: about 1.7 per MTU."""
    shown = explorers.model_explorer(8.0, 0.0, 1.0, draw).numbers
    rate, uncertainty = map(float, re.search(r"(-?[\d.]+) ± ([\d.]+)", shown).groups())
    assert abs(rate - 1.68) < 4 * uncertainty + 0.02


@pytest.mark.parametrize(
    ("forcing", "cubic", "friction", "told"),
    [
        (0.5, 0.0, 1.0, "comes to rest"),
        (2.0, 0.0, 1.0, "no clear sign of chaos"),
        (8.5, 0.025, 1.01, "is chaotic"),
        (8.5, 0.1, 1.01, "blows up"),
    ],
)
def test_the_model_explorer_names_the_regime(forcing, cubic, friction, told):
    for words in explorers.model_explorer(forcing, cubic, friction, 0)[1:]:
        assert told in words


def horizons(view):
    return [float(h) for h in re.findall(r"([\d.]+) MTU[.,]", view.numbers.split("λ₁")[0])]


@pytest.mark.parametrize("draw", (0, 1))
def test_a_better_start_helps_the_true_model_only(draw):
    coarse, fine = (horizons(explorers.error_growth_explorer(s, "physical", draw)) for s in (1e-2, 1e-4))
    assert 3.5 < fine[0] - coarse[0] < 6.0
    assert abs(fine[1] - coarse[1]) < 0.05


@pytest.mark.parametrize("draw", (0, 1))
def test_few_noisy_targets_are_learnt_by_heart(draw):
    few, many = (
        [float(v) for v in re.findall(r"\d\.\d\d+", hybrid_explorers.training_explorer(0.5, n, 20, draw).numbers)]
        for n in (10, 1000)
    )
    assert few[0] < few[2] - 0.2  # the training loss falls below what the noise alone makes
    assert many[0] > many[2] - 0.05
    assert many[3] < 0.7 * few[3]  # RMSE against the true error


@pytest.mark.parametrize("draw", (0, 1))
def test_the_hybrid_is_better_in_forecast_and_filter(draw):
    models = (("hybrid from truth", 0), ("hybrid", 3), ("hybrid", 1), ("physical", 0))
    ceiling, _, hybrid, physical = (float(hybrid_explorers.leads(*model, 0.0, draw)[20]) for model in models)
    assert ceiling < hybrid < 0.6 * physical
    ceiling, third, hybrid, physical = (hybrid_explorers.in_filter(*model, 0.03, draw)[0] for model in models)
    assert ceiling < third < hybrid < 0.9 * physical


# The palette


def linear(colour):
    """Linear light of an sRGB colour (IEC 61966-2-1)."""
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(colour):
    """With white, as WCAG 2 defines it."""
    return 1.05 / (linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05)


SEEN_BY = {  # matrices for linear light of Machado, Oliveira & Fernandes (2009), severity 1
    "most": np.eye(3),
    "deuteranopes": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopes": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def lab(light):
    """CIELAB of linear light, white point D65."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    ratios = to_xyz @ np.clip(light, 0, 1) / [0.95047, 1.0, 1.08883]
    x, y, z = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


LINES = {name: line for name, line in plots.STYLE.items() if line["linestyle"] != "none"}


@pytest.mark.parametrize("name", plots.STYLE)
def test_a_line_stands_out_from_white(name):
    assert contrast(plots.STYLE[name]["color"]) >= 3.0


@pytest.mark.parametrize("colour", ("black", "0.25", "0.3", "0.35"))
def test_text_stands_out_from_white(colour):
    assert contrast(colour) >= 4.5


@pytest.mark.parametrize("reader", SEEN_BY)
def test_lines_differ_in_colour_for_every_reader(reader):
    colours = {to_rgb(line["color"]): lab(SEEN_BY[reader] @ linear(line["color"])) for line in LINES.values()}
    assert len(colours) == len(LINES) - 1  # the perfect model shares black with the truth, and differs by its dots
    for a, b in itertools.combinations(colours.values(), 2):
        assert np.linalg.norm(a - b) > 15


def test_lines_differ_without_colour_too_or_much_in_lightness():
    for (a, one), (b, other) in itertools.combinations(LINES.items(), 2):
        same_dashes = one["linestyle"] == other["linestyle"]
        lightness = [lab(linear(line["color"]))[0] for line in (one, other)]
        assert not same_dashes or abs(lightness[0] - lightness[1]) > 15, (a, b)
