"""The instructor's guide: what it names exists, its minutes add up, its numbers are right and its snippets run."""

import contextlib
import dataclasses
import io
import itertools
import math
import re
import textwrap
import tomllib

import nbformat
import pytest
import torch
from test_exercises import COLLECTIONS
from test_layout import MAIN, NOTEBOOKS, ROOT
from torch import nn

import mooc_da
from mooc_da import quiz

GUIDE = (ROOT / "notebooks" / "instructors.md").read_text(encoding="utf-8")
BOOKS = {path.stem: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
NOTEBOOK_OF = {exercise.name: ex.notebook for ex in COLLECTIONS.values() for exercise in ex}
SECTIONS = dict(re.findall(r"^#{2,4} ([^\n]*)\n(.*?)(?=^#{2,4} |\Z)", GUIDE, flags=re.MULTILINE | re.DOTALL))


def prose(stem):
    return "\n\n".join(cell.source for cell in BOOKS[stem].cells if cell.cell_type == "markdown")


def section(start):
    """The text of the one section whose heading begins like that."""
    (text,) = (text for heading, text in SECTIONS.items() if re.match(rf"{re.escape(start)}(?!\w)", heading))
    return text


def rows(text):
    """The cells of the rows of all tables in a text, without heads."""
    lines = (line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("|"))
    cells = [[cell.strip() for cell in line] for line in lines]
    heads = {i - 1 for i, row in enumerate(cells) if row[0].startswith((":-", "-"))}
    return [row for i, row in enumerate(cells) if i not in heads and i - 1 not in heads]


# What is named exists


@pytest.mark.parametrize("stem", BOOKS)
def test_a_linked_heading_is_one_of_its_notebook(stem):
    headings = set(re.findall(r"^#+ (.*)", prose(stem), flags=re.MULTILINE)) | {stem}
    linked = re.findall(rf"\[([^]]*)\]\((?:extras/)?{stem}\.ipynb\)", GUIDE)
    assert linked
    assert [name for name in linked if name not in headings] == []


@pytest.mark.parametrize("line", [line for line in GUIDE.splitlines() if re.search(r"`ex\.\w+`", line)])
def test_an_exercise_stands_in_the_notebook_with_which_it_is_named(line):
    heading = next((h for h, text in SECTIONS.items() if line in text), "")
    for name in set(re.findall(r"`ex\.(\w+)`", line)) - {"name", "summary"}:
        assert NOTEBOOK_OF[name] in line + heading, f"{name} is an exercise of {NOTEBOOK_OF[name]}"


def test_sections_of_the_readme_are_there_under_their_names():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("On your own machine", "Changing something"):
        assert f"*{name}*" in GUIDE
        assert f"\n## {name}\n" in readme


def test_explorers_stand_in_the_notebook_with_which_they_are_named():
    named = [line for line in GUIDE.splitlines() if re.search(r"widgets\.\w+\(\)", line)]
    assert len(named) >= 5
    for line in named:
        for name in set(re.findall(r"widgets\.(\w+)\(\)", line)) - {"name"}:
            stems = [stem for stem, book in BOOKS.items() if any(f"widgets.{name}()" in c.source for c in book.cells)]
            assert any(stem in line for stem in stems), line


@pytest.mark.parametrize("stem", MAIN)
def test_every_exercise_question_and_objective_of_a_notebook_is_in_its_table(stem):
    table = section(f"Notebook {stem[0]}: {stem}")
    assert set(re.findall(r"`ex\.(\w+)`", table)) == {
        e.name for ex in COLLECTIONS.values() if ex.notebook == stem for e in ex
    }
    own = re.sub(r"final [^|]*", "", table)
    named = {(int(n), name) for n, name in re.findall(r"(\d+) `([\w-]+)`", own)}
    assert named == set(enumerate((q.id for q in quiz.bank()[stem]), 1))
    objectives = next(c.source for c in BOOKS[stem].cells if re.search(r"(this deck|the end) you can", c.source))
    listed = re.findall(r"^(?:\*|\d\.) (.*)", objectives[objectives.index("you can") :], flags=re.MULTILINE)
    assert [row[0] for row in rows(table)] == [re.sub(r"\*\*|[;.]$", "", text) for text in listed]
    assert len(listed) == 5


def test_every_question_of_the_final_quiz_is_named_by_its_number():
    text = "".join(section(f"Notebook {stem[0]}: {stem}") for stem in MAIN)
    named = {
        (int(n), name)
        for part in re.findall(r"final ([^|]*)", text)
        for n, name in re.findall(r"(\d+) `([\w-]+)`", part)
    }
    assert named == set(enumerate((q.id for q in quiz.bank()["final"]), 1))


def test_wrong_answers_name_questions_that_exist():
    table = rows(section("Wrong answers to expect"))
    assert 12 <= len(table) <= 24
    for _, where, question in table:
        stem = re.match(r"`(\w+)`", where)[1]
        for number in re.findall(r"quiz (\d)", where):
            assert int(number) <= len(quiz.bank()[stem])
        for number in re.findall(r"vote (\d)", where):
            assert f"## Vote {number}:" in prose(stem)
        assert question.endswith('?"'), "ask back, do not correct"


# Plans

PLANS = [heading for heading in SECTIONS if re.search(r"\d+ minutes", heading) and "sessions" not in heading]


@pytest.mark.parametrize("heading", PLANS)
def test_the_minutes_of_a_plan_add_up(heading):
    plan = [(int(at), int(minutes)) for at, minutes, _ in rows(SECTIONS[heading])]
    assert [at for at, _ in plan] == [0, *itertools.accumulate(m for _, m in plan)][:-1]
    assert sum(m for _, m in plan) == int(re.search(r"(\d+) minutes", heading)[1])


def test_there_are_plans_for_each_length_two_kinds_of_class_and_a_short_course():
    assert len(PLANS) == 9
    assert {re.search(r"(\d+) minutes", heading)[1] for heading in PLANS} == {"45", "90", "180"}


def test_the_lecture_leaves_out_only_slides_below_the_row():
    """In the deck the row of slides is the lecture, and what stands below is extra."""
    kinds = {}
    for cell in BOOKS["0_intro"].cells:
        if cell.cell_type == "markdown" and (heading := re.match(r"##? (.*)", cell.source)):
            kinds[heading[1]] = cell.metadata.slideshow.slide_type
    text = section("45 minutes: the lecture")
    shown = re.findall(r"\[([^]]*)\]\(0_intro", "\n".join(row[2] for row in rows(text)))
    row = [name for name, kind in kinds.items() if kind == "slide"]
    assert [name for name in row if name in shown] == shown
    left_out = re.findall(r"\[([^]]*)\]\(0_intro", text[text.index("Left out") :])
    assert set(left_out) - {"0_intro"} <= {name for name, kind in kinds.items() if kind != "slide"}


# Exam: every number of a solution, from the text of its question


def has(number, digits, solution):
    """That a solution prints the number, rounded."""
    stated = f"{number:.{digits}f}"
    assert re.search(rf"(?<![\d.]){re.escape(stated)}(?!\d)", section(f"Solution {solution}").replace("−", "-")), stated


def notebook_prints(stem, cell_id):
    """All numbers that a cell has printed."""
    (cell,) = (c for c in BOOKS[stem].cells if c.id == cell_id)
    return [float(number) for number in re.findall(r"-?\d+\.\d+", "".join(o.get("text", "") for o in cell.outputs))]


def test_every_question_has_a_solution_and_the_marks_add_up():
    questions = {h: t for h, t in SECTIONS.items() if h.startswith("Question")}
    assert 8 <= len(questions) <= 12
    total = 0
    for number, (heading, text) in enumerate(questions.items(), 1):
        marks = int(re.search(r"\((\d+) marks\)", heading)[1])
        assert heading.startswith(f"Question {number} ·")
        assert sum(map(int, re.findall(r"\[(\d+)\](?!\()", text))) == marks
        assert f"Solution {number}" in SECTIONS
        total += marks
    assert total == 100
    assert len([h for h in SECTIONS if h.startswith("Solution ")]) == len(questions)


def test_solution_1_growing_error():
    for rate in (1.2, 0.9):
        growth, P = math.exp(rate * 0.05), 0.01
        for _ in range(1000):
            gain = P / (P + 1)
            P = growth**2 * (1 - gain) * P
        assert pytest.approx(growth**2 - 1) == P
        assert pytest.approx(1 - growth**-2) == gain
        has(gain, 3, 1)
    has(math.exp(1.2 * 0.05), 3, 1)
    assert round(100 * (1 - (1 - math.exp(-0.09)) / (1 - math.exp(-0.12)))) == 24
    assert "24 %" in section("Solution 1")
    true, _, _, _, hybrid, _, _, _ = notebook_prints("3_hybrid", "3-23")
    assert abs(true - 1.2) < 0.1 and abs(hybrid - 0.9) < 0.1


def test_solution_2_three_members():
    E = torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, 2.0]], dtype=torch.float64)
    for factor, mean in ((1.0, (3, 1.5)), (1.2, (3.18, 1.59))):
        inflated = mooc_da.inflate(E, factor)
        Ea, _ = mooc_da.etkf_update(inflated, inflated[:, :1], torch.tensor([4.0]).double(), torch.ones(1).double())
        torch.testing.assert_close(Ea.mean(0), torch.tensor(mean, dtype=torch.float64), atol=0.005, rtol=0)
        assert f"$({mean[0]}, {mean[1]})$" in section("Solution 2")
        if factor == 1:
            stated = {
                k: float(v) for k, v in re.findall(r"P(\^a_\{\d\d\}|_\{\d\d\}) = ([\d.]*\d)", section("Solution 2"))
            }
            for name, covariance in {"": torch.cov(E.T), "^a": torch.cov(Ea.T)}.items():
                for i, j in ((0, 0), (0, 1), (1, 1)):
                    assert stated[f"{name}_{{{i + 1}{j + 1}}}"] == pytest.approx(float(covariance[i, j]))
    has(1.44 / 2.44, 3, 2)
    has(0.72 / 2.44, 3, 2)


def test_solution_3_multiply_or_add():
    for variances in ((4, 0.01), (4 * 1.1**2, 0.01 * 1.1**2), (4 + 0.03, 0.01 + 0.03)):
        for variance in variances:
            has(variance / (variance + 0.04), 3, 3)
    has(4 * 1.1**2, 2, 3)
    has(0.01 * 1.1**2, 4, 3)
    has(4.03, 2, 3)


def test_solution_4_two_filters():
    for variance, innovations in ((0.0016, 0.0802), (0.0676, 0.1020)):
        has(variance + 0.04, 4, 4)
        has(innovations / (variance + 0.04), 2, 4)
        has(math.sqrt(innovations - 0.04), 3, 4)


def test_solution_5_variance_must_not_be_free():
    r = torch.tensor([1.0, -2.0, 2.0])
    q = torch.linspace(0.5, 10, 9501)
    cost = r.square().sum() / (2 * q) + 1.5 * q.log()
    assert float(q[cost.argmin()]) == pytest.approx(3, abs=0.01)
    targets, _, errors, *_ = notebook_prints("2_correction", "2-10")
    assert targets == pytest.approx(0.195, abs=0.002)
    assert errors == pytest.approx(0.103, abs=0.002)
    has((0.195 / 0.103) ** 2, 1, 5)


@pytest.mark.parametrize(("a", "b"), ((0.9, 0.9), (0.9, 0.7), (0.8, 0.95)))
def test_solution_6_a_network_that_learns_to_damp(a, b, randn):
    sigma, s, n = 1.0, 0.5, 40_000
    w, x = randn(n) * math.sqrt(1 - a**2) * sigma, [0.0]
    for noise in w.tolist():
        x.append(a * x[-1] + noise)
    xa = torch.tensor(x, dtype=torch.float64) + s * randn(n + 1)
    inputs, targets = mooc_da.training_pairs(xa[:, None], lambda x: b * x)
    slope = float((inputs * targets).sum() / inputs.square().sum())
    assert slope == pytest.approx(((a - b) * sigma**2 - b * s**2) / (sigma**2 + s**2), abs=0.02)


def test_numbers_of_solution_6():
    c = -(0.2**2) / (3.5**2 + 0.2**2)
    has(c, 5, 6)
    has(100 * (1 - (1 + c) ** 20), 1, 6)


def test_solution_7_count_a_network(seed):
    def conv(*sizes):
        return nn.Conv1d(*sizes, padding=sizes[-1] // 2, padding_mode="circular")

    torch.manual_seed(seed)
    network = nn.Sequential(conv(2, 12, 5), nn.Tanh(), conv(12, 8, 3), nn.Tanh(), conv(8, 1, 1)).double()
    n = sum(p.numel() for p in network.parameters())
    has(n, 0, 7)
    has(3179 * 40 / n, 0, 7)
    x = torch.randn(2, 40, dtype=torch.float64)
    seen = torch.func.jacrev(lambda x: network(x)[0, 20])(x)
    assert (seen.abs().sum(0) > 0).sum() == 7
    nature = mooc_da.stages.true_model(mooc_da.Experiment())
    seen = torch.func.jacrev(lambda x: nature(x)[20])(3 * x[0]).nonzero().flatten()
    assert (len(seen), int(20 - seen.min()), int(seen.max() - 20)) == (21, 12, 8)
    assert "(5, 3179, 40)" in "".join(
        o.get("text", "") for c in BOOKS["2_correction"].cells for o in c.get("outputs", ())
    )


def test_solution_8_read_a_figure():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    line = next(line for line in readme.splitlines() if line.startswith("| analysis RMSE"))
    physical, hybrid, _, perfect = (float(n) for n in re.findall(r"(\d\.\d+) ±", line))
    assert (physical, hybrid, perfect) == (0.199, 0.142, 0.034)
    has(100 * (1 - hybrid / physical), 0, 8)
    has((physical**2 - hybrid**2) / (physical**2 - perfect**2), 2, 8)
    line = next(line for line in readme.splitlines() if line.startswith("| skill horizon"))
    for column in line.split("|")[2:5]:
        has(float(column.split("±")[0]), 1, 8)
    has(2 * math.sqrt(2) * 1.77, 1, 8)


def test_solution_9_start_or_model():
    for error in (0.20, 0.14):
        has(math.log(1.75 / error) / 1.2, 2, 9)
    assert round(5 * math.log(1.75 / 0.2) / 1.2) == 9
    from_truth = notebook_prints("3_hybrid", "3-13")
    assert from_truth[:2] == pytest.approx([0.79, 1.69], abs=0.01)
    _, physical, _, _, hybrid, _ = notebook_prints("3_hybrid", "3-17")
    assert (physical, hybrid) == pytest.approx((0.75, 1.39), abs=0.01)
    assert round(from_truth[0] - physical, 2) == 0.04
    assert round((from_truth[0] - physical) * 5 * 24) == 5  # hours; an MTU is five days


def test_the_plan_for_90_minutes_says_what_the_notebook_prints_of_interpolation():
    assert [round(value, 1) for value in notebook_prints("1_enkf", "1-16")] == [2.6, 0.2]


def test_the_true_model_forecasts_as_long_as_question_9_says():
    nature = mooc_da.stages.true_model(mooc_da.Experiment())
    states = mooc_da.spin_up(nature, (300,), generator=mooc_da.seeded(1, "exam"), n_steps=400)
    runs = mooc_da.trajectory(nature, states, 50)
    noise = torch.randn(states.shape, dtype=states.dtype, generator=mooc_da.seeded(1, "noise"))
    for error, stated in ((0.20, 1.6), (0.14, 1.8)):
        assert f"{stated}" in section("Question 9")
        errors = mooc_da.forecast_errors(nature, runs, starts=states + error * noise)
        assert float(mooc_da.skill_horizon(errors, 1.75, nature.dt)) == pytest.approx(stated, abs=0.15)


def test_solution_10_shares_of_squares():
    has(100 * (1 - math.sqrt(1 - 0.61)), 0, 10)


def test_solution_11_is_a_stochastic_enkf(randn, generator):
    names = {"torch": torch}
    exec(re.search(r"```python\n(.*?)```", section("Solution 11"), flags=re.DOTALL)[1], names)
    n, H, R, y = 100_000, randn(2, 3), randn(2).square() + 0.5, randn(2)
    E = randn(n, 3) @ randn(3, 3) + randn(3)
    Ea = names["analyse"](E, y, H, R, generator)
    P = torch.cov(E.T)
    K = P @ H.T @ torch.linalg.inv(H @ P @ H.T + torch.diag(R))
    scale = float(P.diagonal().max())
    torch.testing.assert_close(Ea.mean(0), E.mean(0) + K @ (y - H @ E.mean(0)), atol=0.02 * scale, rtol=0.02)
    torch.testing.assert_close(torch.cov(Ea.T), (torch.eye(3) - K @ H) @ P, atol=0.03 * scale, rtol=0.03)


def test_an_enkf_with_observations_as_they_are_is_too_sure(generator, randn):
    E, y = randn(100_000, 1), torch.zeros(1).double()
    names = {"torch": torch}
    exec(re.search(r"```python\n(.*?)```", section("Solution 11"), flags=re.DOTALL)[1], names)
    H, R = torch.eye(1).double(), torch.ones(1).double()
    right = names["analyse"](E, y, H, R, generator).var()
    K = E.var() / (E.var() + 1)
    assert float(right) == pytest.approx(1 / 2, rel=0.03)
    assert float((E + (y - E) * K).var()) == pytest.approx(1 / 4, rel=0.03)


# Snippets


def printed(heading):
    """What the snippet of a section prints."""
    (code,) = re.findall(r"```python\n(.*?)```", section(heading), flags=re.DOTALL)
    assert max(map(len, code.splitlines())) <= 120
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(textwrap.dedent(code), {})
    return out.getvalue()


def test_other_numbers_make_another_experiment():
    assert 0.2 < float(printed("Other numbers").split()[0]) < 0.5


def test_another_model_goes_round_the_loop():
    ours, hybrid = map(float, re.findall(r"tensor\((\d+\.\d+)", printed("Another model")))
    assert 2 * ours < hybrid


def test_other_observations_are_assimilated():
    errors = dict(re.findall(r"(\w[\w ]*) tensor\((\d+\.\d+)", printed("Other observations")))
    assert len(errors) == 3
    assert all(float(error) < 0.5 for error in errors.values()), errors


def test_an_exercise_of_ones_own_judges():
    wrong, right = printed("An exercise of your own").strip().splitlines()
    assert wrong.startswith("✗") and "weight of the forecast" in wrong
    assert right.startswith("✓")


def test_a_question_of_ones_own_is_one_of_the_bank():
    (code,) = re.findall(r"```toml\n(.*?)```", section("An exercise of your own"), flags=re.DOTALL)
    ((name, (table,)),) = tomllib.loads(code).items()
    question = quiz._question(table)
    assert name in MAIN
    assert question.right in question.options
    assert question.id not in {q.id for questions in quiz.bank().values() for q in questions}


def test_names_of_the_package_in_the_text_exist():
    text = re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL)
    for name in re.findall(r"`stages\.(\w+)", text):
        assert hasattr(mooc_da.stages, name)
    for name in ("CubicRidge", "CorrectionCNN", "HybridModel"):
        assert f"`{name}`" in text and hasattr(mooc_da, name)
    assert "`FORMAT`" in text and mooc_da.cache.FORMAT
    assert mooc_da.Experiment().fast().n_seeds == 2 and mooc_da.Experiment().fast().n_assimilated == 1500
    assert {field.name for field in dataclasses.fields(mooc_da.Experiment)} >= {"obs_std"}
