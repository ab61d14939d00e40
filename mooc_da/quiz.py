"""Quizzes: a few questions at the end of each notebook, with a reason for every answer, right or wrong.

``quiz("1_enkf")`` as the last line of a cell shows buttons where widgets can run, and the questions with folded
answers elsewhere, also in a stored notebook. Without a notebook it prints the questions, and
``q = quiz("1_enkf"); q.answer(1, "B")`` answers. The questions are in ``questions.toml`` beside this file.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from html import escape, unescape
from importlib.resources import files
from types import ModuleType

from .reader import live, plain, recall, record, say, shell

LETTERS = "ABCDE"
RIGHT, WRONG = "✓", "✗"
SIGNS = dict(re.findall(r"(\S+)=(\S+)", r"\beta=β \theta=θ \eta=η \sigma=σ \lambda=λ \Delta=Δ \Phi=Φ \mathcalN=𝒩"))
SIGNS |= dict(re.findall(r"(\S+)=(\S+)", r"\ln=ln \to=→ \mapsto=↦ \sim=∼ \ge=≥ \infty=∞ -=−"))
ADVICE = "For buttons, run `%pip install -U ipywidgets` (7.7 or later), restart the kernel and run again."


@dataclass(frozen=True)
class Option:
    """An answer to choose, and why it is right or which mistake it is; both Markdown."""

    text: str
    why: str


@dataclass(frozen=True)
class Question:
    """A question (Markdown), its options by letter, and the letter of the right one."""

    id: str
    text: str
    options: dict[str, Option]
    right: str

    def mark(self, letter: str) -> str:
        """A sign for right or wrong that does without colour."""
        return RIGHT if letter == self.right else WRONG

    def markdown(self) -> str:
        """The question and its lettered options."""
        return f"{self.text}\n\n" + "\n".join(f"* **{letter}.** {o.text}" for letter, o in self.options.items())

    def solution(self) -> str:
        """The right letter, and the reason for or against each."""
        reasons = (f"* {self.mark(letter)} **{letter}.** {o.why}" for letter, o in self.options.items())
        return f"**{self.right}** is right.\n\n" + "\n".join(reasons)

    def feedback(self, letter: str) -> str:
        """What to say to a reader who chose this letter."""
        verdict = "is right" if letter == self.right else "is not the answer"
        return f"{self.mark(letter)} **{letter} {verdict}.** {self.options[letter].why}"


@cache
def bank() -> dict[str, tuple[Question, ...]]:
    """All questions of ``questions.toml`` by quiz. A table with ``use`` stands for a question of another quiz."""
    tables = tomllib.loads(files(__package__).joinpath("questions.toml").read_text(encoding="utf-8"))
    own = {t["id"]: _question(t) for rows in tables.values() for t in rows if "use" not in t}
    return {name: tuple(own[t.get("use", t.get("id"))] for t in rows) for name, rows in tables.items()}


def _question(table: dict) -> Question:
    options = {letter: Option(*table[letter]) for letter in LETTERS if letter in table}
    return Question(table["id"], table["text"], options, table["right"])


def quiz(name: str) -> Quiz:
    """A new sitting of a quiz; outside of a notebook it prints the questions.

    Parameters
    ----------
    name : the stem of a notebook's name (``"1_enkf"``), or ``"final"`` for the whole course

    Raises
    ------
    ValueError : there is no such quiz
    """
    if name not in bank():
        raise ValueError(f"There is no quiz {name!r}. Choose one of: {', '.join(bank())}.")
    sitting = Quiz(name, bank()[name])
    if shell() is None:
        print(sitting.text())
    return sitting


class Quiz:
    """One sitting of a quiz. The score counts questions that were answered right at the first try.

    After each answer the score, and the best one of all sittings, are kept with
    ``reader.record("quiz", name, {"score", "best", "answered", "of"})``.

    Parameters
    ----------
    name : under which the score is kept
    questions : in the order in which they are asked
    """

    def __init__(self, name: str, questions: tuple[Question, ...]):
        self.name = name
        self.questions = questions
        self._tried: list[list[str]] = [[] for _ in questions]  # letters, in the order of the answers
        self._panel: _Panel | None = None

    @property
    def answered(self) -> int:
        """Number of questions with an answer."""
        return sum(map(bool, self._tried))

    @property
    def score(self) -> int:
        """Number of questions answered right at the first try."""
        return sum(tried[:1] == [q.right] for q, tried in zip(self.questions, self._tried, strict=True))

    @property
    def best(self) -> int:
        """Best score of all sittings that are remembered."""
        try:
            return int(recall("quiz")[self.name]["best"])
        except (KeyError, TypeError, ValueError):  # nothing there, or not by us
            return 0

    def answer(self, number: int, letter: str) -> None:
        """Answer a question, and show why the answer is right or wrong. One may try again; the first try counts.

        Parameters
        ----------
        number : of the question, from 1
        letter : ``"A"``, ``"B"``, …

        Raises
        ------
        ValueError : there is no such question, or it has no such option
        """
        say(f"{self._mark(number, letter)}\n\n{self.standing()}")
        if self._panel:
            self._panel.show(number)

    def standing(self) -> str:
        """The score so far, in words."""
        n = len(self.questions)
        best = f" Your best so far: {self.best}." if self.best else ""
        return f"**Score: {self.score} of {n}** right at the first try, {self.answered} answered.{best}"

    def latest(self, number: int) -> str | None:
        """The letter that a question was answered with last."""
        return self._tried[number - 1][-1] if self._tried[number - 1] else None

    def _mark(self, number: int, letter: str) -> str:
        """Keep an answer and the score; return the feedback."""
        n = len(self.questions)
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= n:
            raise ValueError(f"There is no question {number!r}. Give a number from 1 to {n}, without quotation marks.")
        question = self.questions[number - 1]
        chosen = letter.strip().upper() if isinstance(letter, str) else letter
        if chosen not in question.options:
            raise ValueError(f"Question {number} has no option {letter!r}. Choose from {', '.join(question.options)}.")
        self._tried[number - 1].append(chosen)
        score = {"score": self.score, "best": max(self.score, self.best), "answered": self.answered, "of": n}
        record("quiz", self.name, score)
        return question.feedback(chosen)

    def markdown(self) -> str:
        """All questions, each with its answer folded below."""
        blocks = [
            f"**{number}.** {question.markdown()}\n\n"
            f"<details><summary>Answer to question {number}</summary>\n\n{question.solution()}\n\n</details>"
            for number, question in enumerate(self.questions, 1)
        ]
        return "\n\n".join([f"**Quiz, {len(blocks)} questions.** Choose first, then unfold the answer.", *blocks])

    def text(self) -> str:
        """All questions as plain text, and how to answer them."""
        blocks = [plain(f"{number}. {question.markdown()}") for number, question in enumerate(self.questions, 1)]
        how = f'To answer: q = quiz("{self.name}"), then for example q.answer(1, "B")'
        return "\n\n".join([f"Quiz {self.name}, {len(blocks)} questions", *blocks, how])

    def __repr__(self) -> str:
        return f"<quiz {self.name}: {plain(self.standing())}>"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """Buttons where they can run, and with them what a front end without widgets shows instead."""
        bundle = {"text/markdown": self.markdown(), "text/plain": self.text()}
        if getattr(shell(), "kernel", None) is None:
            return bundle
        widgets = _widgets()
        if widgets is None:
            return {kind: f"{content}\n\n{ADVICE}" for kind, content in bundle.items()}
        self._panel = self._panel or _Panel(self, widgets)
        return bundle | live(self._panel.box)


class _Panel:
    """The widgets of a sitting: for each question its text, the letters, a button and the feedback."""

    STYLE = """<style>
.mooc-da-quiz .widget-radio-box { flex-flow: row wrap; align-items: center; margin: 0 1em 0 0 !important }
.mooc-da-quiz .widget-radio-box label { width: auto; margin: 0 1em 0 0; padding: 0 .3em; font-size: 1em }
.mooc-da-quiz .widget-radio { display: flex; flex-flow: row nowrap; align-items: center; width: auto }
.mooc-da-quiz .quiz-text { line-height: 1.55; max-width: 50em; white-space: normal }
.mooc-da-quiz .quiz-text :is(p, ol, ul) { margin: .3em 0 }
.mooc-da-quiz ol { list-style: upper-alpha; padding-left: 2em }
.mooc-da-quiz math { font-size: 1.15em }
.mooc-da-quiz summary { display: list-item; cursor: pointer }
.mooc-da-quiz ul { list-style: none; padding-left: .5em }
.mooc-da-quiz .quiz-right, .mooc-da-quiz .quiz-wrong { padding: .2em .8em; border-left: .3em solid #0c55a3 }
.mooc-da-quiz .quiz-wrong { border-left: .3em double #c0370f }
</style>"""

    def __init__(self, sitting: Quiz, widgets: ModuleType):
        self.sitting = sitting
        self.letters, self.buttons, self.feedback, cards = [], [], [], []
        for number, question in enumerate(sitting.questions, 1):
            items = "".join(f"<li>{html(option.text)}</li>" for option in question.options.values())
            asked = f'<p><strong>Question {number}.</strong> {html(question.text)}</p><ol type="A">{items}</ol>'
            letters = widgets.RadioButtons(options=list(question.options), value=None, description=f"Answer {number}:")
            letters.tooltip = f"Choose a letter for question {number}"  # shown from ipywidgets 8 on
            button = widgets.Button(description="Check", tooltip=f"Check the answer to question {number}")
            button.on_click(lambda _, number=number: self._check(number))
            self.letters.append(letters)
            self.buttons.append(button)
            self.feedback.append(widgets.HTML())
            row = widgets.HBox([letters, button], layout=widgets.Layout(flex_flow="row wrap", align_items="center"))
            text = widgets.HTML(_block(asked))
            cards.append(widgets.VBox([text, row, self.feedback[-1]], layout=widgets.Layout(margin="0 0 18px 0")))
        self.standing = widgets.HTML()
        self.box = widgets.VBox([widgets.HTML(self.STYLE), *cards, self.standing])
        self.box.add_class("mooc-da-quiz")
        for number in range(1, len(cards) + 1):
            self.show(number)

    def _check(self, number: int) -> None:
        letter = self.letters[number - 1].value
        if letter is None:
            self.feedback[number - 1].value = _block("<p>Choose a letter first.</p>")
        else:
            self.sitting._mark(number, letter)
            self.show(number)

    def show(self, number: int) -> None:
        """Bring one question, and the score, up to date with the sitting."""
        letter, question = self.sitting.latest(number), self.sitting.questions[number - 1]
        if letter is not None:
            self.letters[number - 1].value = letter
            content = f"<p>{html(question.feedback(letter))}</p>"
            if letter == question.right:
                others = ((k, o) for k, o in question.options.items() if k != letter)
                reasons = "".join(f"<li>{WRONG} <strong>{k}.</strong> {html(o.why)}</li>" for k, o in others)
                content += f"<details><summary>Why not the others?</summary><ul>{reasons}</ul></details>"
            else:
                content += "<p>Try again, if you like. The score counts first tries.</p>"
            self.feedback[number - 1].value = _block(content, "right" if letter == question.right else "wrong")
        self.standing.value = _block(f"<p>{html(self.sitting.standing())}</p>")


def _block(content: str, verdict: str = "") -> str:
    return f'<div class="quiz-text{verdict and " quiz-" + verdict}">{content}</div>'


def html(text: str) -> str:
    """HTML of a line of Markdown: emphasis, code, and formulas ``$…$`` as MathML."""

    def converted(match: re.Match) -> str:
        formula, code, strong, emphasis = match.groups()
        if formula:
            return mathml(unescape(formula))
        tag, inner = ("code", code) if code else ("strong", convert(strong)) if strong else ("em", convert(emphasis))
        return f"<{tag}>{inner}</{tag}>"

    def convert(escaped: str) -> str:
        return re.sub(r"\$([^$]+)\$|`([^`]+)`|\*\*(.+?)\*\*|\*(.+?)\*", converted, escaped)

    return convert(escape(text, quote=False))


def mathml(tex: str) -> str:
    """MathML of the little TeX in the questions: widgets have no MathJax in Colab, browsers show MathML themselves."""
    tex = tex.replace(r"\,", " ").replace(r"\mathcal ", r"\mathcal")
    tokens = re.findall(r"\\[a-zA-Z]+|\d+(?:\.\d+)?|\S", tex)[::-1]

    def row() -> str:
        parts = []
        while tokens and tokens[-1] != "}":
            base, scripts = atom(), {}
            while tokens and tokens[-1] in "_^":
                scripts |= {tokens.pop(): atom()}
            tag = {"_": "msub", "^": "msup"}.get("".join(scripts), "msubsup")
            parts.append(f"<{tag}>{base}{scripts.get('_', '')}{scripts.get('^', '')}</{tag}>" if scripts else base)
        if tokens:
            tokens.pop()
        return f"<mrow>{''.join(parts)}</mrow>"

    def atom() -> str:
        token = tokens.pop()
        if token == "{":
            return row()
        if token == r"\sqrt":
            return f"<msqrt>{atom()}</msqrt>"
        if token in (r"\mathrm", r"\mathsf"):
            return f'<mi mathvariant="normal">{re.sub("<[^>]*>", "", atom())}</mi>'
        sign = SIGNS.get(token, token)
        kind = "mn" if sign[0].isdigit() else "mi" if sign.isalpha() or sign == "∞" else 'mo stretchy="false"'
        return f"<{kind}>{escape(sign)}</{kind[:2]}>"

    return f"<math>{row()}</math>"


def _widgets() -> ModuleType | None:
    """ipywidgets, unless it is missing or older than 7.7."""
    try:
        import ipywidgets
    except ImportError:
        return None
    return ipywidgets if tuple(map(int, ipywidgets.__version__.split(".")[:2])) >= (7, 7) else None
