"""Every exercise accepts its solution and answers typical mistakes as intended, and stands in its notebook."""

import copy
import importlib
import re
import textwrap

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from test_layout import NOTEBOOKS, PARTS

import mooc_da
from mooc_da import exercises, reader, stages
from mooc_da.exercises.exercise import Exercise, Exercises, NotYet, call, choose, number, require, tensor, two

LONG = ("neural_operators", "latent_space", "closing_the_loop")  # their notebooks compute for minutes
COLLECTIONS = {name: importlib.import_module(f"mooc_da.exercises.{name}").ex for name in PARTS}
ANSWERS = {name: importlib.import_module(f"wrong_{name}") for name in COLLECTIONS}
RIGHT = [
    pytest.param(COLLECTIONS[part].all[name], code, id=f"{part}-{name}-{i}")
    for part, module in ANSWERS.items()
    for name, codes in getattr(module, "RIGHT", {}).items()
    for i, code in enumerate(codes)
]
EACH_EXERCISE = pytest.mark.parametrize(
    ("part", "exercise"),
    [(part, e) for part, ex in COLLECTIONS.items() for e in ex],
    ids=lambda v: getattr(v, "name", v),
)


def answers(exercise: Exercise, code: str) -> list:
    """What the names of the answers stand for after a cell with that code has run."""
    cfg = mooc_da.Experiment()
    names = {n: getattr(mooc_da, n) for n in mooc_da.__all__} | {
        "torch": torch, "nn": torch.nn, "stages": stages, "cfg": cfg,
        "physical": stages.physical_model(cfg), "nature": stages.true_model(cfg),
    }  # fmt: skip
    exec(textwrap.dedent(code), names)
    return [names[name] for name in exercise.answers]


@EACH_EXERCISE
def test_an_exercise_accepts_its_solution(part, exercise):
    outcome, message = exercise.verdict(*answers(exercise, exercise.code))
    assert outcome == "correct", message
    assert len(message) > 20, "say why"


@pytest.mark.parametrize(("exercise", "code"), RIGHT)
def test_an_exercise_accepts_other_right_answers(exercise, code):
    outcome, message = exercise.verdict(*answers(exercise, code))
    assert outcome == "correct", message


@EACH_EXERCISE
def test_typical_mistakes_get_the_feedback_that_was_meant_for_them(part, exercise):
    mistakes = ANSWERS[part].WRONG[exercise.name]
    assert len(mistakes) >= 2
    messages = set()
    for code, words in mistakes:
        outcome, message = exercise.verdict(*answers(exercise, code))
        assert (outcome, words in message) == ("not yet", True), f"{code}\n-> {outcome}: {message}"
        messages.add(message)
    assert len(messages) >= 2, "different mistakes, one feedback"


@EACH_EXERCISE
def test_an_exercise_is_not_attempted_at_first_and_has_graded_hints(part, exercise):
    assert exercise.verdict(*[None] * len(exercise.answers)).outcome == "not attempted"
    assert len(exercise.hints) >= 2
    assert all(len(text) > 20 for text in (*exercise.hints, exercise.explanation))


# In the notebooks

STEMS = {path.stem: path for path in NOTEBOOKS}
EACH_COLLECTION = pytest.mark.parametrize("ex", COLLECTIONS.values(), ids=list(COLLECTIONS))
LEAST = {"0_intro": 6, "1_enkf": 8, "2_correction": 8, "3_hybrid": 8, "7_bug_museum": 5}  # elsewhere 4


def exercise_cells(notebook: nbformat.NotebookNode) -> list:
    """The cells that hold exercises: a text and a code cell for each, in turn."""
    return [c for c in notebook.cells if "exercise" in c.metadata.get("tags", ())]


def name_checked(cell: nbformat.NotebookNode) -> str:
    return re.search(r"^ex\.(\w+)\.check\(", cell.source, flags=re.MULTILINE)[1]


def solved(notebook: nbformat.NotebookNode, ex: Exercises) -> nbformat.NotebookNode:
    """The notebook with the solution in the place of each starter."""
    for cell in exercise_cells(notebook)[1::2]:
        exercise = ex.all[name_checked(cell)]
        cell.source = f"{exercise.code}\n\nex.{exercise.name}.check({', '.join(exercise.answers)})"
    return notebook


@EACH_COLLECTION
def test_every_exercise_stands_once_in_its_notebook_text_first(ex):
    cells = exercise_cells(nbformat.read(STEMS[ex.notebook], as_version=4))
    assert [c.cell_type for c in cells] == ["markdown", "code"] * (len(cells) // 2)
    assert {name_checked(c) for c in cells[1::2]} == set(ex.all)
    assert len(cells[1::2]) == len(ex.all) >= LEAST.get(ex.notebook, 4)
    for text, code in zip(cells[::2], cells[1::2], strict=True):
        exercise = ex.all[name_checked(code)]
        assert text.source.startswith(f"**Exercise: {exercise.title}."), exercise.name
        assert f"ex.{exercise.name}.check({', '.join(exercise.answers)})" in code.source


def test_the_overview_knows_every_part():
    assert sorted(exercises.PARTS) == PARTS


def test_no_two_exercises_share_a_name():
    names = [exercise.name for ex in COLLECTIONS.values() for exercise in ex]
    assert len(names) == len(set(names)), "progress is kept by name"


@EACH_COLLECTION
def test_stored_notebooks_were_run_with_nothing_solved(ex):
    for cell in exercise_cells(nbformat.read(STEMS[ex.notebook], as_version=4))[1::2]:
        (output,) = cell.outputs
        assert output.data["text/markdown"].startswith("○ **Not attempted.**")


@pytest.mark.slow
@pytest.mark.parametrize(
    "ex",
    [pytest.param(ex, marks=pytest.mark.weekly if part in LONG else (), id=part) for part, ex in COLLECTIONS.items()],
)
def test_a_notebook_with_all_solutions_filled_in_runs_and_every_exercise_reports_correct(ex, tmp_path, monkeypatch):
    monkeypatch.setenv("MOOC_DA_PROGRESS", str(tmp_path / "progress.json"))
    reader.forget()
    notebook = solved(nbformat.read(STEMS[ex.notebook], as_version=4), ex)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    for cell in exercise_cells(notebook)[1::2]:
        told = [o.data["text/markdown"] for o in cell.outputs if "text/markdown" in o.get("data", {})]
        assert told[-1].startswith("✓ **Correct.**"), f"{name_checked(cell)}: {told}"
    assert {name for name, state in reader.recall("exercises").items() if state == "correct"} >= set(ex.all)


# The framework


@pytest.fixture
def ex(tmp_path, monkeypatch) -> Exercises:
    """Two exercises of their own, and a memory of their own."""
    monkeypatch.setenv("MOOC_DA_PROGRESS", str(tmp_path / "progress.json"))
    reader.forget()
    ex = Exercises("a notebook")

    @ex.exercise("Half of one", hints=("Divide.", "One by two."), solution="half = 0.5", explanation="By division.")
    def half_of_one(half) -> str:
        half = number(half, "Half")
        require(half != 2, "That is twice as much.")
        require(half == 0.5, "Try again.")
        return "Two of them make one."

    @ex.exercise("Double", hints=("Add.", "x + x."), solution="def double(x): return x + x", explanation="Sum.")
    def doubled(double) -> str:
        x = torch.ones(3, dtype=torch.float64)
        require(tensor(call(double, x), (3,)).sum() == 6, "Not twice.")
        return "Right."

    @ex.exercise("Both", hints=("Count.", "Again."), solution='one, two = "A", "B"', explanation="The alphabet.")
    def both_letters(one, two) -> str:
        return choose(one, "A", {"A": "First.", "B": "Second."}) + choose(two, "B", {"A": "First.", "B": "Second."})

    return ex


def test_check_tells_all_three_outcomes_and_remembers_what_was_solved(ex, capsys):
    for answer, words in ((None, "Not attempted"), (..., "Not attempted"), (2, "twice as much"), (0.5, "Two of them")):
        ex.half_of_one.check(answer)
        assert words in capsys.readouterr().out
    assert reader.recall("exercises") == {"half_of_one": "correct"}
    ex.half_of_one.check(2)  # trying something else afterwards loses nothing
    assert reader.recall("exercises") == {"half_of_one": "correct"}
    ex.summary()
    assert "1 of 3 exercises solved" in capsys.readouterr().out
    ex.forget()
    assert reader.recall("exercises") == {}


def test_hints_get_stronger_and_the_solution_is_shown_as_code(ex, capsys):
    for words in ("Hint 1 of 2", "Hint 2 of 2", "Hint 2 of 2"):
        ex.half_of_one.hint()
        assert words in capsys.readouterr().out
    ex.half_of_one.solution()
    assert "half = 0.5" in capsys.readouterr().out


def test_a_mistyped_name_is_told_with_the_names_there_are(ex):
    assert "half_of_one" in dir(ex)
    with pytest.raises(AttributeError, match=r"'half'.* half_of_one, doubled"):
        ex.half.check(1)
    with pytest.raises(AttributeError, match=r"'chek', but check, hint and solution"):
        ex.half_of_one.chek(1)
    assert copy.deepcopy(ex).half_of_one.answers == ("half",)


def test_the_bare_names_say_how_to_use_them(ex):
    assert (
        repr(ex.both_letters) == "Exercise “Both”: ex.both_letters.check(one, two); for a nudge, ex.both_letters.hint()"
    )
    assert "ex.half_of_one, ex.doubled, ex.both_letters" in repr(ex)


@pytest.mark.parametrize(
    ("given", "outcome", "words"),
    [
        ((), "not yet", "You give 0, but `ex.both_letters.check(one, two)` asks for 2"),
        (("A",), "not yet", "You give 1"),
        (("A", "B", "C"), "not yet", "You give 3"),
        (("A", None), "not attempted", "Still missing: `two`."),
        ((..., "B"), "not attempted", "Still missing: `one`."),
        ((None, None), "not attempted", ""),
        ((None, lambda: None), "not attempted", ""),
        ((" a.", "B"), "correct", "First.Second."),
    ],
)
def test_of_several_answers_the_missing_ones_are_named(ex, given, outcome, words):
    verdict = ex.both_letters.verdict(*given)
    assert (verdict.outcome, verdict.message[: len(words)]) == (outcome, words)


def test_what_is_missing_is_told_by_check(ex, capsys):
    ex.both_letters.check("A", None)
    assert "Not attempted. Still missing: two." in capsys.readouterr().out
    assert reader.recall("exercises") == {}


def broken(x):
    return x.no_such_method()


def forgets(x):
    y = 2 * x  # noqa: F841


def in_place(x):
    x *= 2
    return x


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (broken, "AttributeError.*in the line `return x.no_such_method"),
        (in_place, "changes its argument in place"),
        (lambda x: x[:2], r"shape \(2,\); \(3,\) is asked for"),
        (lambda x: x / 0, "NaN or infinite"),
        (lambda x: "six", "tensor of shape"),
        (3, "not int: leave out the brackets"),
        (torch.ones(3), "not Tensor: leave out the brackets"),
        ("B", r"not str\.$"),
        (lambda x: print(end=""), "is a `return` missing"),
        (forgets, "is a `return` missing"),
        (lambda x: 6, "tensor of shape|has shape"),
    ],
)
def test_whatever_an_answer_does_is_told_as_feedback(ex, answer, words):
    outcome, message = ex.doubled.verdict(answer)
    assert outcome == "not yet"
    assert re.search(words, message), message


def starter(x): ...


def documented(x):
    """Twice x."""
    ...  # your lines


def empty(x):
    return None


@pytest.mark.parametrize("answer", [starter, documented, empty, lambda x: ..., lambda x: None, None, ...])
def test_a_starter_is_not_attempted(ex, answer):
    assert ex.doubled.verdict(answer) == ("not attempted", "")


@pytest.mark.parametrize("value", [3, (1, 2, 3), [1], torch.ones(2), None])
def test_what_is_not_two_things_is_told(value):
    assert two([1, 2], "a and b") == (1, 2)
    with pytest.raises(NotYet, match="Return two things, a and b"):
        two(value, "a and b")


@pytest.mark.parametrize("value", [0.5, torch.tensor(0.5), torch.tensor([[0.5]]), np.float32(0.5), [0.5]])
def test_a_number_may_come_in_any_shape(ex, value):
    assert ex.half_of_one.verdict(value).outcome == "correct"


@pytest.mark.parametrize("value", ["0.5 K", torch.ones(2), float("nan"), float("inf"), True, torch.tensor(True), {}])
def test_what_is_no_number_is_told(ex, value):
    outcome, message = ex.half_of_one.verdict(value)
    assert (outcome, message.startswith("Half ")) == ("not yet", True), message


def test_a_letter_is_judged_by_the_feedback_of_its_option():
    feedback = {"A": "No: too small.", "B": "Yes, for a reason."}
    assert choose(" b ", "B", feedback) == feedback["B"]
    with pytest.raises(NotYet, match=r"\*\*A\*\*: No: too small"):
        choose("A", "B", feedback)
    with pytest.raises(NotYet, match="one of the letters A, B"):
        choose("C", "B", feedback)
