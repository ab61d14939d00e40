"""Cheat sheet, glossary, instructor's guide: formulas as in the code, links that lead somewhere, a PDF up to date."""

import contextlib
import importlib
import io
import math
import re
import sys
from pathlib import Path

import pytest
import torch

import mooc_da
from mooc_da import ensembles, kalman, networks
from mooc_da.covariances import Dense, desroziers

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
SHEET = (NOTEBOOKS / "cheat_sheet.md").read_text(encoding="utf-8")
GLOSSARY = (NOTEBOOKS / "glossary.md").read_text(encoding="utf-8")
GUIDE = (NOTEBOOKS / "instructors.md").read_text(encoding="utf-8")
EACH_TEXT = pytest.mark.parametrize("text", (SHEET, GLOSSARY, GUIDE), ids=("cheat sheet", "glossary", "instructors"))


def without_code(text):
    return re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)


def slug(heading):
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# All texts


@EACH_TEXT
def test_links_lead_to_files_and_headings_that_exist(text):
    anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)}
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        assert (NOTEBOOKS / path).is_file() if path else anchor in anchors, link


@EACH_TEXT
def test_formulas_survive_markdown(text):
    """Markdown takes a backslash before punctuation away, splits tables at bars, and wants no space inside of $."""
    text = without_code(text)
    blocks = re.findall(r"\$\$(.*?)\$\$", text, flags=re.DOTALL)
    rest = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    assert rest.count("$") % 2 == 0
    for formula in [block.replace("\\\\", "") for block in blocks] + re.findall(r"\$(.*?)\$", rest):
        assert not re.search(r"\\[^a-zA-Z]|[|*]", formula), formula
        assert formula.strip() and "\n\n" not in formula
    for formula in re.findall(r"\$(.*?)\$", rest):
        assert formula == formula.strip(), formula


# Glossary

ENTRIES = dict(re.findall(r"^### ([^\n]*)\n\n(.*?)\s*(?=^### |\Z)", GLOSSARY, flags=re.MULTILINE | re.DOTALL))
EACH_ENTRY = pytest.mark.parametrize("term", ENTRIES)
INDEX = re.findall(r"\[(.*?)\]\(#(.*?)\)", GLOSSARY[: GLOSSARY.index("## Terms")])


def fields(term):
    """Symbol, names and notebooks of an entry: ``{"Symbol": …, "DA": …, "ML": …, "In": …}``."""
    return dict(re.findall(r"\*(\w+)\* (.*?)(?: · (?=\*\w+\* )|$)", ENTRIES[term].splitlines()[0]))


def test_terms_are_in_order_and_their_anchors_unique():
    assert 50 <= len(ENTRIES) <= 80
    assert [*ENTRIES] == sorted(ENTRIES, key=str.casefold)
    assert len({slug(term) for term in ENTRIES}) == len(ENTRIES) == GLOSSARY.count("\n### ")


def test_the_index_holds_every_term_once_and_each_theme_is_in_order():
    assert sorted(anchor for _, anchor in INDEX) == sorted(map(slug, ENTRIES))
    assert all(slug(name) == anchor for name, anchor in INDEX)
    for theme in re.findall(r"^\*\*.*?:\*\* (.*)", GLOSSARY, flags=re.MULTILINE):
        names = re.findall(r"\[(.*?)\]", theme)
        assert names == sorted(names, key=str.casefold)


def test_each_symbol_is_defined_once():
    symbols = [re.match(r"\$(.*?)\$", entry["Symbol"])[1] for entry in map(fields, ENTRIES) if "Symbol" in entry]
    assert len(symbols) == len(set(symbols)) >= 25
    assert {"x", "y", "H", "R", "B", "P", "Q", "K", "E", "d", "J", "M"} <= set(symbols)


@EACH_ENTRY
def test_an_entry_has_names_a_place_and_a_meaning(term):
    assert {"In"} < set(fields(term)) <= {"Symbol", "DA", "ML", "In"}
    meaning = " ".join(ENTRIES[term].splitlines()[1:]).split()
    assert 12 <= len(meaning) <= 110


# Formulas of the sheet


@pytest.fixture
def problem(randn):
    """An ensemble, what is observed of it, and its pieces with the names of the sheet."""
    E, y, R = randn(6, 5), randn(3), randn(3).square() + 0.5
    H = torch.eye(5, dtype=E.dtype)[::2]
    (x, X), (hx, Y) = mooc_da.anomalies(E), mooc_da.anomalies(E @ H.T)
    P, d = X.T @ X / 5, y - hx[0]
    S = H @ P @ H.T + torch.diag(R)
    names = {"E": E, "HE": E @ H.T, "y": y, "R": R, "H": H, "x": x, "X": X, "P": P, "d": d, "S": S}
    return names | {
        "K": P @ H.T @ torch.linalg.inv(S),
        "Y": Y / R.sqrt(),
        "delta": d / R.sqrt(),
        "I": torch.eye(6).to(E),
    }


def observed(p):
    return p["E"], p["HE"], p["y"], p["R"]


def inverse_root(A):
    values, vectors = torch.linalg.eigh(A)
    return vectors @ torch.diag(values.rsqrt()) @ vectors.T


def kalman_gain(p, draw):
    x, P, _ = kalman.kf_update(p["x"][0], p["P"], p["H"] @ p["x"][0], p["H"], p["y"], p["R"])
    yield x, p["x"][0] + p["K"] @ p["d"]
    yield P, (torch.eye(5) - p["K"] @ p["H"]) @ p["P"]


def stochastic(p, draw):
    E, _ = mooc_da.enkf_update(*observed(p), generator=torch.Generator().manual_seed(0))
    eps = torch.randn(6, 3, dtype=E.dtype, generator=torch.Generator().manual_seed(0)) * p["R"].sqrt()
    yield E, p["E"] + (p["y"] + eps - eps.mean(0) - p["HE"]) @ p["K"].T


def transform(p, draw):
    A = p["Y"] @ p["Y"].T + 5 * p["I"]
    w, T = torch.linalg.solve(A, p["Y"] @ p["delta"]), math.sqrt(5) * inverse_root(A)
    yield mooc_da.etkf_update(*observed(p))[0], p["x"] + (w + T) @ p["X"]


def square_root_core(p, draw):
    _, X = mooc_da.anomalies(mooc_da.sqrt_core(p["E"], 0.3))
    s, after = (torch.linalg.svdvals(A)[:5] for A in (p["X"], X))
    yield after, (s**2 + 5 * 0.3**2).sqrt()


def inflation(p, draw):
    yield mooc_da.inflate(p["E"], 1.1), p["x"] + 1.1 * p["X"]


def finite_size(p, draw):
    def D(zeta):
        misfit = p["delta"] @ torch.linalg.solve(torch.eye(3) + p["Y"].T @ p["Y"] / zeta, p["delta"])
        return misfit + (1 + 1 / 6) * zeta + 7 * math.log(7 / zeta) - 7

    E, statistics = mooc_da.enkf_n_update(*observed(p))
    zeta = float(statistics["zeta"])
    smallest = min(D(z) for z in torch.linspace(0.01, 5, 2000).tolist())
    yield D(zeta).clamp(max=smallest), D(zeta)
    w = torch.linalg.solve(p["Y"] @ p["Y"].T + zeta * p["I"], p["Y"] @ p["delta"])
    yield E.mean(0), p["x"][0] + w @ p["X"]


def pair(p, draw):
    model, states = mooc_da.Lorenz96(), draw(4, 8)
    inputs, targets = mooc_da.training_pairs(states, model)
    yield inputs[1], states[1]
    yield targets[1], states[2] - model(states[1])


def resolvent(p, draw):
    model, x = mooc_da.Lorenz96(), draw(8)
    yield networks.HybridModel(model, torch.sin)(x), model(x) + torch.sin(x)


def tendency(p, draw):
    model, x = mooc_da.Lorenz96(), draw(8)
    stated = mooc_da.rk4(lambda z: model.tendency(z) + z.sin() / 0.05, x, 0.05)
    yield networks.TendencyHybrid(model, torch.sin)(x), stated


def control_variable(p, draw):
    B, v, x_b = p["P"] + torch.eye(5), draw(1, 5), draw(5)
    x_0 = x_b + Dense(B).sqrt(v)[0]
    yield 0.5 * (x_0 - x_b) @ torch.linalg.solve(B, x_0 - x_b), 0.5 * v.square().sum()


def rms(p, draw):
    yield mooc_da.rmse(p["E"][:1], p["x"]), (p["E"][:1] - p["x"]).square().mean(-1).sqrt()


def ensemble_spread(p, draw):
    yield ensembles.spread(p["E"]), p["P"].diagonal().mean().sqrt()


def chi2(p, draw):
    yield mooc_da.etkf_update(*observed(p))[1]["chi2"], p["d"] @ torch.linalg.solve(p["S"], p["d"]) / 3


def likelihood(p, draw):
    log_density = -0.5 * (p["d"] @ torch.linalg.solve(p["S"], p["d"]) + torch.logdet(2 * math.pi * p["S"]))
    yield mooc_da.etkf_update(*observed(p))[1]["log_likelihood"], log_density


def ranked(p, draw):
    truth, E = draw(5), p["E"]
    pairs = (E[:, None] - E).abs().sum((0, 1)) / (6 * 5)
    yield mooc_da.crps(E, truth), ((E - truth).abs().mean(0) - pairs / 2).mean()


def horizon(p, draw):
    errors = torch.linspace(0, 3, 31, dtype=torch.float64)
    yield mooc_da.skill_horizon(errors, 2.55 / 2, 0.1), torch.tensor(1.275, dtype=torch.float64)


def saturation(p, draw):
    states = 3 * draw(100_000)
    yield (states[::2] - states[1::2]).square().mean().sqrt() / states.std(), torch.tensor(2.0).sqrt().double()


FORMULAS = {
    r"K = P H^{\mathsf T} \left( H P H^{\mathsf T} + R \right)^{-1}": kalman_gain,
    r"x^a = x + K d, \quad P^a = (I - K H) P": kalman_gain,
    r"E^a_i = E_i + K \left( y + \varepsilon_i - H(E_i) \right)": stochastic,
    r"E^a = x + (w + T) X": transform,
    r"w = (Y Y^{\mathsf T} + N I)^{-1} Y \delta": transform,
    r"T = \sqrt N (Y Y^{\mathsf T} + N I)^{-1/2}": transform,
    r"\sqrt{s^2 + N \sigma_q^2}": square_root_core,
    r"X^a \leftarrow \alpha X^a": inflation,
    r"\delta^{\mathsf T} \left( I + Y^{\mathsf T} Y / \zeta \right)^{-1} \delta + \epsilon \zeta": finite_size,
    r"(N_e + 1) \ln \frac{N_e + 1}{\zeta} - (N_e + 1)": finite_size,
    r"input $x^a_{k-1}$, target $x^a_k - \Phi(x^a_{k-1})$": pair,
    r"x_{k+1} = \Phi(x_k) + \mathrm{NN}_\theta(x_k)": resolvent,
    r"\dot x = \phi(x) + \mathrm{NN}_\theta(x) / \Delta t": tendency,
    r"x_0 = x_b + B^{1/2} v$, so that the background term is $\tfrac12 \lVert v \rVert^2": control_variable,
    r"\sqrt{\overline{(x^a - x)^2}}": rms,
    r"\sqrt{\overline{\mathrm{var}(E)}}": ensemble_spread,
    r"d^{\mathsf T} (H P H^{\mathsf T} + R)^{-1} d / N_y": chi2,
    r"\sum_k \ln N(d_k; 0, H P H^{\mathsf T} + R)": likelihood,
    r"\overline{\lvert E_i - x \rvert} - \tfrac12 \overline{\lvert E_i - E_j \rvert}": ranked,
    r"lead where RMSE passes $\mathrm{std} / 2$": horizon,
    r"\sqrt 2 \thinspace \mathrm{std}": saturation,
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_of_the_sheet_is_what_the_code_computes(formula, problem, randn):
    assert formula in SHEET
    tolerance = 0.02 if FORMULAS[formula] is saturation else 1e-6
    for computed, stated in FORMULAS[formula](problem, randn):
        torch.testing.assert_close(computed, stated.to(computed.dtype), rtol=tolerance, atol=1e-8)


@pytest.mark.parametrize("shape", ("flat", "U", "dome", "slope"))
def test_a_rank_histogram_has_the_shape_that_the_sheet_draws(shape, randn):
    width, shift = {"flat": (1, 0), "U": (0.5, 0), "dome": (2, 0), "slope": (1, -0.7)}[shape]
    frequencies = mooc_da.rank_histogram(width * randn(4000, 6, 5) + shift, randn(4000, 5))
    drawn = re.search(rf"\| ([▁-█]{{7}}) {shape} \|", SHEET)[1]
    heights = torch.tensor([float(ord(c)) for c in drawn], dtype=frequencies.dtype)
    if shape == "flat":
        assert len(set(drawn)) == 1
        assert (frequencies * 7 - 1).abs().max() < 0.05
    else:
        assert torch.corrcoef(torch.stack((heights, frequencies)))[0, 1] > 0.9


def test_every_name_on_the_sheet_is_one_of_the_package():
    names = set(re.findall(r"\bda\.(\w+)", SHEET)) | {"FilterDivergence", "LETKF", "enkf_n_update", "forecast_errors"}
    assert len(names) > 15
    assert not [name for name in names if not hasattr(mooc_da, name)]
    assert f"`{desroziers.__name__}`" in SHEET


def test_the_code_on_the_sheet_tells_the_whole_story():
    (code,) = re.findall(r"```python\n(.*?)```", SHEET, flags=re.DOTALL)
    assert len(code.split("\n")) <= 20
    assert max(map(len, code.splitlines())) <= 120
    results, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, results)
    first, again, physical, hybrid = map(float, re.findall(r"tensor\((\d\.\d+)", printed.getvalue()))
    assert again < 0.9 * first < 0.25
    assert hybrid > 1.5 * physical


# The PDF


@pytest.fixture(scope="module")
def sheet():
    """The builder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "slides_pdf")
        yield importlib.import_module("sheet")


def test_the_pdf_is_one_page_and_up_to_date(sheet):
    pdf = sheet.PDF.read_bytes()
    assert sheet.printing.page_count(pdf) == 1
    assert sheet.printing.stamp_of(pdf) == sheet.source_digest(), "build it again: python slides_pdf/sheet.py"


def test_a_stamp_moves_nothing_in_a_pdf(sheet):
    pdf = sheet.PDF.read_bytes()
    offset = int(re.findall(rb"startxref\s+(\d+)", pdf)[-1])
    assert pdf[offset:].startswith(b"xref")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert sheet.printing.stamp_of(sheet.printing.stamped(pdf, "f" * 64)) == "f" * 64
    assert sheet.printing.stamp_of(b"%PDF-1.4 startxref 9 %%EOF") is None


def test_the_stamp_knows_every_source(sheet):
    digest = sheet.printing.digest
    assert len({digest("a", "b"), digest("ab"), digest("a", "c"), digest("b", "a")}) == 4


def test_the_printed_page_has_every_box_and_formula_and_no_link_to_a_file(sheet):
    html = sheet.page(SHEET, "", "")
    assert html.count("<section>") == SHEET.count("\n## ")
    assert html.count("$") == without_code(SHEET).count("$")
    assert all(link.startswith("https://") for link in re.findall(r'href="([^"]*)', html))


def test_the_builder_says_what_to_install(sheet, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(sheet.printing.PrintingError, match="pip install playwright"), sheet.printing.chromium():
        pass
    monkeypatch.setattr(sheet.printing, "CACHE", tmp_path)
    monkeypatch.setattr(sheet.printing.shutil, "which", lambda name: None)
    with pytest.raises(sheet.printing.PrintingError, match="npm is missing"):
        sheet.printing.mathjax_scripts()
