"""The bank of questions is complete and fair; a sitting keeps its score; the buttons do what the method does."""

import builtins
import re
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from mooc_da import reader
from mooc_da.quiz import Quiz, bank, html, mathml, quiz
from mooc_da.reader import WIDGET

module = sys.modules[quiz.__module__]
NOTEBOOKS = (
    *("0_intro", "1_enkf", "2_correction", "3_hybrid"),
    *("4_neural_operators", "5_latent_space", "6_closing_the_loop"),
)
QUESTIONS = {question.id: question for questions in bank().values() for question in questions}
EACH_QUESTION = pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
EACH_QUIZ = pytest.mark.parametrize("name", bank())


@pytest.fixture(autouse=True)
def nothing_remembered():
    reader.forget("quiz")
    yield
    reader.forget("quiz")


@pytest.fixture
def sitting():
    return Quiz("1_enkf", bank()["1_enkf"])


@pytest.fixture
def kernel(monkeypatch):
    """As in a notebook, for the quiz; what it says is still printed."""
    monkeypatch.setattr(module, "shell", lambda: SimpleNamespace(kernel=object()))


def right(sitting, number):
    return sitting.questions[number - 1].right


def wrong(sitting, number):
    return next(k for k in sitting.questions[number - 1].options if k != right(sitting, number))


# The bank


def test_every_notebook_has_a_quiz_and_the_course_a_final_one():
    assert {*NOTEBOOKS, "final"} <= set(bank())
    stems = {path.stem for path in (Path(__file__).parents[1] / "notebooks").glob("**/[!.]*.ipynb")}
    assert set(bank()) <= stems | {"final"}
    assert all(5 <= len(bank()[name]) <= 6 for name in NOTEBOOKS)
    assert len(bank()["final"]) == 15


def test_no_question_is_asked_twice_in_a_quiz_and_the_final_one_is_mostly_new():
    for questions in bank().values():
        assert len({q.id for q in questions}) == len(questions)
    before = {q.id for name in NOTEBOOKS for q in bank()[name]}
    assert sum(q.id not in before for q in bank()["final"]) >= 10


def test_no_two_questions_share_an_id_or_a_text():
    own = re.findall(r'(?m)^id = "(.*)"$', Path(module.__file__).with_name("questions.toml").read_text("utf-8"))
    assert len(own) == len(set(own)) == len(QUESTIONS)
    assert len({q.text for q in QUESTIONS.values()}) == len(QUESTIONS)


@EACH_QUESTION
def test_every_option_is_explained_and_one_is_right(question):
    assert 2 <= len(question.options) <= 5
    assert "".join(question.options) == "ABCDE"[: len(question.options)]
    assert question.right in question.options
    texts = [o.text for o in question.options.values()]
    reasons = [o.why for o in question.options.values()]
    assert len(set(texts)) == len(set(reasons)) == len(texts)
    assert all(len(reason) >= 20 and reason.endswith((".", ")")) for reason in reasons)


@EACH_QUESTION
def test_formulas_and_emphasis_are_closed(question):
    for text in (question.text, *(t for o in question.options.values() for t in (o.text, o.why))):
        assert text == text.strip()
        assert text.count("$") % 2 == 0, text
        formulas = re.findall(r"\$([^$]*)\$", text)
        assert all(f.strip() == f and f.count("{") == f.count("}") for f in formulas), text
        assert not re.search(r"[$*`\\^]|__", re.sub(r"\$[^$]+\$|<[^>]+>", "", html(text))), text


@EACH_QUESTION
def test_options_are_of_similar_length(question):
    lengths = [len(o.text) for o in question.options.values()]
    assert max(lengths) <= 2 * min(lengths) + 10


def test_length_does_not_give_the_right_answer_away():
    longest = [max(q.options, key=lambda k: len(q.options[k].text)) == q.right for q in QUESTIONS.values()]
    assert 0.1 <= sum(longest) / len(longest) <= 0.4  # by chance a quarter


@EACH_QUIZ
def test_the_right_letter_varies(name):
    letters = [q.right for q in bank()[name]]
    assert len(set(letters)) >= 3
    assert max(Counter(letters).values()) <= len(letters) / 2
    assert all(a != b or b != c for a, b, c in zip(letters, letters[1:], letters[2:], strict=False))


# A sitting


def test_the_score_counts_first_tries(sitting):
    sitting.answer(1, right(sitting, 1))
    sitting.answer(2, wrong(sitting, 2))
    sitting.answer(2, right(sitting, 2))
    sitting.answer(1, wrong(sitting, 1))
    assert (sitting.score, sitting.answered) == (1, 2)
    assert sitting.latest(2) == right(sitting, 2)
    assert sitting.latest(3) is None


def test_every_answer_is_followed_by_its_reason(sitting, capsys):
    for number, question in enumerate(sitting.questions, 1):
        for letter, option in question.options.items():
            sitting.answer(number, letter)
            said = capsys.readouterr().out
            assert reader.plain(option.why) in said
            assert said.startswith("✓" if letter == question.right else "✗")
            assert ("is right" if letter == question.right else "is not the answer") in said


def test_the_best_score_of_all_sittings_is_remembered():
    for n_right in (2, 4, 1):
        sitting = Quiz("1_enkf", bank()["1_enkf"])
        for number in range(1, 5):
            sitting.answer(number, (right if number <= n_right else wrong)(sitting, number))
    assert reader.recall("quiz") == {"1_enkf": {"score": 1, "best": 4, "answered": 4, "of": 6}}
    assert "best so far: 4" in sitting.standing()


@pytest.mark.parametrize("rubbish", ("five", {"best": None}, {"best": "many"}, ["best"], 3))
def test_a_record_by_somebody_else_does_no_harm(sitting, rubbish):
    reader.record("quiz", "1_enkf", rubbish)
    sitting.answer(1, right(sitting, 1))
    assert reader.recall("quiz")["1_enkf"]["best"] == 1


def test_small_letters_will_do(sitting):
    sitting.answer(1, f" {right(sitting, 1).lower()} ")
    assert sitting.score == 1


@pytest.mark.parametrize("number", (0, 7, -1, 1.0, "1", True, None))
def test_a_question_that_is_not_there_is_refused(sitting, number):
    with pytest.raises(ValueError, match=r"no question .* from 1 to 6"):
        sitting.answer(number, "A")
    assert sitting.answered == 0


@pytest.mark.parametrize("letter", ("E", "", "AB", "1", 1, None))
def test_a_letter_that_is_not_there_is_refused(sitting, letter):
    with pytest.raises(ValueError, match=r"Question 2 has no option .* Choose from A, B, C, D"):
        sitting.answer(2, letter)
    assert sitting.answered == 0
    assert reader.recall("quiz") == {}


def test_a_quiz_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"no quiz '1_EnKF'.*1_enkf.*final"):
        quiz("1_EnKF")


# Without widgets


@EACH_QUIZ
def test_plain_python_prints_the_questions_once_and_no_answers(name, capsys):
    sitting = quiz(name)
    said = capsys.readouterr().out
    for question in bank()[name]:
        assert said.count(reader.plain(question.text)) == 1
        assert not any(reader.plain(o.why) in said for o in question.options.values())
    assert f'quiz("{name}")' in said
    assert len(repr(sitting).splitlines()) == 1


@EACH_QUIZ
def test_the_static_version_folds_every_answer(name):
    bundle = Quiz(name, bank()[name])._repr_mimebundle_()
    assert set(bundle) == {"text/markdown", "text/plain"}
    static = bundle["text/markdown"]
    assert static.count("<details>") == static.count("</details>") == len(bank()[name])
    shown = re.sub(r"<details>.*?</details>", "", static, flags=re.DOTALL)
    for question in bank()[name]:
        for option in question.options.values():
            assert f". {option.why}" not in shown.replace("**", "")
            assert option.why in static
            assert option.text in shown
        assert f"✓ **{question.right}.**" in static


def test_a_reader_without_ipywidgets_is_told_what_to_do(sitting, kernel, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "ipywidgets":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    bundle = sitting._repr_mimebundle_()
    assert set(bundle) == {"text/markdown", "text/plain"}
    assert all("%pip install -U ipywidgets" in content for content in bundle.values())


@pytest.mark.parametrize(("version", "enough"), (("7.6.5", False), ("7.7.0", True), ("8.0.0rc1", True), ("10.1", True)))
def test_an_old_ipywidgets_is_not_used(monkeypatch, version, enough):
    monkeypatch.setitem(sys.modules, "ipywidgets", SimpleNamespace(__version__=version))
    assert (module._widgets() is not None) == enough


# With widgets


@pytest.fixture
def panel(sitting, kernel):
    pytest.importorskip("ipywidgets")
    bundle = sitting._repr_mimebundle_()
    assert set(bundle) == {WIDGET, "text/markdown", "text/plain"}
    assert bundle[WIDGET]["model_id"] == sitting._panel.box.model_id
    return sitting._panel


def choose(panel, number, letter):
    panel.letters[number - 1].value = letter
    panel.buttons[number - 1].click()
    return panel.feedback[number - 1].value


def test_the_buttons_answer(panel, sitting):
    first, second = right(sitting, 1), wrong(sitting, 2)
    assert f"✓ <strong>{first} is right.</strong>" in choose(panel, 1, first)
    assert f"✗ <strong>{second} is not the answer.</strong>" in choose(panel, 2, second)
    assert (sitting.score, sitting.answered) == (1, 2)
    assert "Score: 1 of 6" in panel.standing.value
    assert reader.recall("quiz")["1_enkf"] == {"score": 1, "best": 1, "answered": 2, "of": 6}


def test_the_other_options_are_explained_once_the_answer_is_found(panel, sitting):
    question = sitting.questions[1]
    others = [o.why for letter, o in question.options.items() if letter != question.right]
    assert "Why not the others?" not in choose(panel, 2, wrong(sitting, 2))
    assert all(html(why) in choose(panel, 2, question.right) for why in others)


def test_nothing_is_chosen_at_first_and_nothing_is_no_answer(panel, sitting):
    assert all(letters.value is None for letters in panel.letters)
    panel.buttons[0].click()
    assert "Choose a letter" in panel.feedback[0].value
    assert sitting.answered == 0
    assert reader.recall("quiz") == {}


def test_method_and_buttons_keep_one_score(panel, sitting):
    sitting.answer(1, right(sitting, 1))
    assert panel.letters[0].value == right(sitting, 1)
    assert "is right" in panel.feedback[0].value
    assert "Score: 1 of 6" in panel.standing.value


def test_showing_a_sitting_again_shows_the_same_widgets(panel, sitting):
    model_id = panel.box.model_id
    assert sitting._repr_mimebundle_()[WIDGET]["model_id"] == model_id


def test_every_control_says_which_question_it_belongs_to(panel):
    for number, (letters, button) in enumerate(zip(panel.letters, panel.buttons, strict=True), 1):
        assert str(number) in letters.description
        assert str(number) in button.tooltip


# HTML


@pytest.mark.parametrize(
    ("markdown", "expected"),
    (
        ("a **b** and *c*", "a <strong>b</strong> and <em>c</em>"),
        ("`tanh` of $x$", "<code>tanh</code> of <math><mrow><mi>x</mi></mrow></math>"),
        ("**a, *not* `b`**", "<strong>a, <em>not</em> <code>b</code></strong>"),
        ("a < b & <script>", "a &lt; b &amp; &lt;script&gt;"),
        ("`**` is a power", "<code>**</code> is a power"),
    ),
)
def test_a_line_of_markdown_becomes_html(markdown, expected):
    assert html(markdown) == expected


@pytest.mark.parametrize(
    ("formula", "expected"),
    (
        ("x_k", "<msub><mi>x</mi><mi>k</mi></msub>"),
        ("x^a_{0k}", "<msubsup><mi>x</mi><mrow><mn>0</mn><mi>k</mi></mrow><mi>a</mi></msubsup>"),
        (r"\sqrt 2\, \sigma", "<msqrt><mn>2</mn></msqrt><mi>σ</mi>"),
        (r"\mathrm{NN}_\theta", '<msub><mi mathvariant="normal">NN</mi><mi>θ</mi></msub>'),
        ("1.1^2", "<msup><mn>1.1</mn><mn>2</mn></msup>"),
        ("a < b", '<mi>a</mi><mo stretchy="false">&lt;</mo><mi>b</mi>'),
    ),
)
def test_a_formula_becomes_mathml(formula, expected):
    assert mathml(formula) == f"<math><mrow>{expected}</mrow></math>"


@EACH_QUESTION
def test_every_formula_is_well_formed_mathml_without_rest_of_tex(question):
    for text in (question.text, *(t for o in question.options.values() for t in (o.text, o.why))):
        root = ElementTree.fromstring(f"<p>{html(text)}</p>")
        assert not set("$\\{}^_") & set("".join(root.itertext()))
        for node in root.iter():
            assert len(node) == {"msub": 2, "msup": 2, "msubsup": 3, "msqrt": 1}.get(node.tag, len(node))
