"""Exercises with feedback, one module per notebook: ``from mooc_da.exercises.enkf import ex``.

``ex.<name>.check(answer)`` says what is wrong or why it is right, ``ex.<name>.hint()`` nudges,
``ex.<name>.solution()`` shows an answer that is known to work, ``ex.summary()`` tells what has been solved.
"""

from importlib import import_module

from .. import reader

PARTS = (
    "intro", "enkf", "correction", "hybrid",
    "neural_operators", "latent_space", "closing_the_loop", "bug_museum",
)  # fmt: skip


def summary() -> None:
    """What has been solved in every notebook of the course, and the scores of the quizzes."""
    solved = {name for name, state in reader.recall("exercises").items() if state == "correct"}
    scores = reader.recall("quiz")
    rows = ["| notebook | exercises solved | quiz |", "|:--|:--|:--|"]
    for part in PARTS:
        ex = import_module(f".{part}", __package__).ex
        names = [exercise.name for exercise in ex]
        quiz = scores.get(ex.notebook)
        told = f"{quiz['score']} of {quiz['of']}" if quiz else "–"
        rows.append(f"| `{ex.notebook}` | {sum(name in solved for name in names)} of {len(names)} | {told} |")
    reader.say("\n".join(rows))
