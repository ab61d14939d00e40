"""``python -m mooc_da`` from the shell."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = (
    "analysis_rmse", "spread", "zeta", "forecast_rmse", "val_mse", "rmse_vs_true_error", "t50_physical", "t50_hybrid",
    "t50_hybrid_truth", "hybrid_analysis_rmse", "perfect_analysis_rmse",
)  # fmt: skip


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mooc_da", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The small run: what it printed and the folder it filled."""
    out = tmp_path_factory.mktemp("out") / "new"
    return command("--fast", "--seeds", 1, "--out", out), out


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def test_one_command_tells_the_story_in_numbers(run):
    process, out = run
    assert process.returncode == 0, process.stderr
    results = json.loads((out / "results.json").read_text(), parse_constant=refuse)
    for name in RESULTS:
        assert results[name]["mean"] > 0, name
        assert "std" in results[name]
    mean = {name: results[name]["mean"] for name in RESULTS}
    assert 0.18 < mean["analysis_rmse"] < 0.22
    assert mean["perfect_analysis_rmse"] < mean["hybrid_analysis_rmse"] < mean["analysis_rmse"] < mean["forecast_rmse"]
    assert mean["t50_physical"] < mean["t50_hybrid"] < mean["t50_hybrid_truth"]
    assert mean["rmse_vs_true_error"] < 0.105  # the error of the physical model itself


def test_the_results_say_what_made_them_and_how_long_it_took(run):
    results = json.loads((run[1] / "results.json").read_text())
    assert {"mooc_da", "python", "torch", "numpy"} <= set(results["versions"])
    assert results["seconds"]
    assert all(stage["wall"] >= 0 and stage["cpu"] >= 0 for stage in results["seconds"].values())


def test_the_run_draws_its_summary_and_prints_its_table(run):
    process, out = run
    (figure,) = out.glob("*.png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert figure.stat().st_size > 10_000
    assert "target" in process.stdout
    assert str(out) in process.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("--out", Path(__file__) / "below"), "cannot be written"),
        (("--seeds", 0), "--seeds 0"),
        (("--device", "nonsense"), "--device nonsense"),
    ),
)
def test_impossible_options_fail_at_once_with_advice(arguments, message):
    process = command("--fast", *arguments)
    assert process.returncode == 2
    assert message in process.stderr
    assert "Traceback" not in process.stderr


def test_the_example_in_the_readme_runs_and_scores_as_published(capsys):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    exec(examples[0], {})
    assert 0.17 < float(re.search(r"\d\.\d+", capsys.readouterr().out)[0]) < 0.27  # published: 0.22
