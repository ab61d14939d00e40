"""What an exercise is: a judge of answers, graded hints, a solution, and a memory of what was solved.

A judge is a function of the answers, under the names the reader gives them in the notebook. It returns why
the answer is right, or raises :class:`NotYet` with what is probably misunderstood. It tests properties,
closed forms and agreement within a tolerance, never a stored number that another machine would miss.
"""

from __future__ import annotations

import dis
import inspect
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .. import reader

PACKAGE = Path(__file__).parents[1]


class NotAttempted(Exception):
    """The starter is still there."""


class NotYet(Exception):
    """The answer is wrong; the message names the likely misconception."""


class Verdict(NamedTuple):
    """What a judge found."""

    outcome: Literal["not attempted", "not yet", "correct"]
    message: str


SYMBOLS = {"not attempted": "○", "not yet": "✗", "correct": "✓"}
IDLE = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}  # the bytecode of a body like `...`


class Exercise:
    """One exercise; the judge's parameters are the names of the answers, in the order of ``check``."""

    def __init__(self, judge: Callable[..., str], title: str, hints: tuple[str, ...], solution: str, explanation: str):
        self.name, self.title = judge.__name__, title
        self.judge, self.hints = judge, hints
        self.code, self.explanation = textwrap.dedent(solution).strip(), inspect.cleandoc(explanation)
        self.answers = tuple(inspect.signature(judge).parameters)
        self.usage = f"ex.{self.name}.check({', '.join(self.answers)})"
        self.n_hints_given = 0

    def __repr__(self) -> str:
        return f"Exercise “{self.title}”: {self.usage}; for a nudge, ex.{self.name}.hint()"

    def __getattr__(self, name: str):
        raise AttributeError(f"An exercise has no {name!r}, but check, hint and solution.")

    def verdict(self, *answers) -> Verdict:
        """Judge without telling or remembering anything; whatever the reader's code raises is told as "not yet"."""
        if len(answers) != len(self.answers):
            return Verdict("not yet", f"You give {len(answers)}, but `{self.usage}` asks for {len(self.answers)}.")
        missing = [f"`{name}`" for name, answer in zip(self.answers, answers, strict=True) if is_starter(answer)]
        if missing:
            some = len(missing) < len(answers)
            return Verdict("not attempted", f"Still missing: {', '.join(missing)}." if some else "")
        try:
            return Verdict("correct", self.judge(*answers))
        except NotAttempted:
            return Verdict("not attempted", "")
        except NotYet as wrong:
            return Verdict("not yet", str(wrong))
        except Exception as error:  # an answer may be any code, and may fail in any way
            return Verdict("not yet", explained(error))

    def check(self, *answers) -> None:
        """Say whether the answer is right, and why or what is wrong; remember what was solved."""
        outcome, message = self.verdict(*answers)
        nudge = f"Write your answer where the `None` or the dots are. For a nudge, run `ex.{self.name}.hint()`."
        if outcome == "correct":
            reader.record("exercises", self.name, "correct")
        elif outcome == "not yet" and reader.recall("exercises").get(self.name) != "correct":
            reader.record("exercises", self.name, "not yet")
        reader.say(f"{SYMBOLS[outcome]} **{outcome.capitalize()}.** {message or nudge}")

    def hint(self) -> None:
        """A nudge; called again, a stronger one."""
        given = min(self.n_hints_given, len(self.hints) - 1)
        self.n_hints_given = given + 1
        more = "once more for a stronger one" if self.n_hints_given < len(self.hints) else "the last one"
        reader.say(f"**Hint {given + 1} of {len(self.hints)}** ({more}). {self.hints[given]}")

    def solution(self) -> None:
        """An answer that is known to work, and the reason."""
        reader.say(f"**A solution.**\n\n```python\n{self.code}\n```\n\n{self.explanation}")


class Exercises:
    """The exercises of one notebook, in its order: ``ex.<name>`` is one of them."""

    def __init__(self, notebook: str):
        self.notebook = notebook
        self.all: dict[str, Exercise] = {}

    def exercise(self, title: str, *, hints: tuple[str, ...], solution: str, explanation: str):
        """Decorate a judge: it becomes the exercise of its name."""

        def add(judge: Callable[..., str]) -> Exercise:
            self.all[judge.__name__] = Exercise(judge, title, hints, solution, explanation)
            return self.all[judge.__name__]

        return add

    def __getattr__(self, name: str) -> Exercise:
        exercises = vars(self).get("all", {})
        if name not in exercises:
            raise AttributeError(f"There is no exercise {name!r} here, but {', '.join(exercises)}.")
        return exercises[name]

    def __repr__(self) -> str:
        return f"Exercises of {self.notebook}: {', '.join(f'ex.{name}' for name in self.all)}; ex.summary()"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.all]

    def __iter__(self) -> Iterator[Exercise]:
        return iter(self.all.values())

    def summary(self) -> None:
        """Which exercises of this notebook are solved, and where that is remembered."""
        known = reader.recall("exercises")
        states = {e.name: known.get(e.name, "not attempted") for e in self}
        solved = sum(state == "correct" for state in states.values())
        rows = [f"| {e.title} | `ex.{e.name}` | {SYMBOLS[states[e.name]]} {states[e.name]} |" for e in self]
        where = "on this machine" if reader.progress_file() else "in this session"
        reader.say(
            f"**{solved} of {len(states)} exercises solved.**\n\n| exercise | name | |\n|:--|:--|:--|\n"
            + "\n".join(rows)
            + f"\n\nThis is remembered {where} only; `ex.forget()` starts afresh."
        )

    def forget(self) -> None:
        """Start afresh: forget all exercises that were solved, and the hints given here."""
        reader.forget("exercises")
        for exercise in self:
            exercise.n_hints_given = 0


# What judges are made of


def is_starter(answer) -> bool:
    """Nothing is there yet: None, dots, or a function whose body is nothing else."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return answer is None or answer is ...
    idle = {i.opname for i in dis.get_instructions(code)} <= IDLE
    return idle and set(code.co_consts) <= {None, ..., answer.__doc__}


def require(condition, message: str) -> None:
    """Raise :class:`NotYet` with the message unless the condition holds."""
    if not condition:
        raise NotYet(message)


def number(value, name: str = "The answer") -> float:
    """A finite number, from a Python number, or a tensor or array with one element."""
    if not isinstance(value, Real) or isinstance(value, bool):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise NotYet(f"{name} should be a number, not {value!r}: no quotation marks, no units.") from None
        require(
            value.numel() == 1, f"{name} has {value.numel()} elements, and one number is asked for: is a mean missing?"
        )
        require(value.dtype != torch.bool, f"{name} is {value.item()}: a number is asked for.")
        value = value.item()
    require(abs(value) < float("inf"), f"{name} is {value}: something overflowed or was divided by zero.")
    return float(value)


def tensor(value, shape: tuple[int, ...], name: str = "The answer") -> Tensor:
    """A finite tensor of that shape in double precision; arrays and lists are welcome."""
    try:
        value = torch.as_tensor(value).detach().to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"{name} should be a tensor of shape {tuple(shape)}, not {type(value).__name__}.") from None
    require(value.shape == shape, f"{name} has shape {tuple(value.shape)}; {tuple(shape)} is asked for.")
    require(value.isfinite().all(), f"{name} holds NaN or infinite numbers.")
    return value


def call(function, *arguments):
    """The value of the reader's function, which must be something. Its arguments must stay as they are."""
    advice = ": leave out the brackets" if isinstance(function, Real) or hasattr(function, "dtype") else ""
    require(callable(function), f"A function is asked for, not {type(function).__name__}{advice}.")
    copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    value = function(*copies)
    require(value is not None and value is not ..., "Your function returned nothing: is a `return` missing?")
    for before, after in zip(arguments, copies, strict=True):
        untouched = not isinstance(before, Tensor) or torch.equal(before.nan_to_num(), after.nan_to_num())
        require(untouched, "Your function changes its argument in place. Make a new tensor: `x = x + …`, not `x += …`.")
    return value


def two(value, what: str) -> tuple:
    """Both values of a function that should return two."""
    require(isinstance(value, tuple | list) and len(value) == 2, f"Return two things, {what}, with a comma between.")
    return tuple(value)


def close(a: Tensor | float, b: Tensor | float, tolerance: float = 1e-6) -> bool:
    """Equal up to a tolerance relative to the largest entry of ``b``."""
    b = torch.as_tensor(b)
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-12))


def unlike(
    value: Tensor | float, mistakes: Mapping[str, Tensor | float], within: float | None = None, told: str = ""
) -> None:
    """Raise the message of the first mistake that gives this value, to rounding or ``within`` a distance of it.

    ``told`` comes before the message.
    """
    for message, wrong in mistakes.items():
        distance = torch.as_tensor(value - wrong).abs().max()
        same = close(value, wrong) if within is None else distance <= within
        require(not same, told + message)


def choose(answer, right: str, feedback: Mapping[str, str]) -> str:
    """Judge a letter: the feedback of every option, the right one included."""
    letter = str(answer).strip(" .,:;()").upper()
    require(letter in feedback, f"Answer with one of the letters {', '.join(feedback)}, in quotation marks.")
    require(letter == right, f"**{letter}**: {feedback[letter]}")
    return feedback[right]


def explained(error: Exception) -> str:
    """What the reader's code raised, and in which of its lines."""
    theirs = [
        f for f in traceback.extract_tb(error.__traceback__) if PACKAGE not in Path(f.filename).parents and f.line
    ]
    where = f" in the line `{theirs[-1].line}`" if theirs else ""
    return f"Your code stopped with {type(error).__name__}: {error}{where}."
