"""The stages of the story, each recomputed when asked for or taken from a cache.

    truth -> observations -> analysis -> correction        (and the independent data that test them)

Every stage is a function of the :class:`~mooc_da.Experiment` alone, so that each notebook runs on its
own. Results hold all experiments (seeds) of the configuration along their first axis; experiment s
is the same whether it is computed alone or with others.

What takes longer than a second is kept in memory and in a cache folder: ``$MOOC_DA_CACHE``, else
``~/.cache/mooc_da``; ``MOOC_DA_CACHE=none`` reads and keeps no file. A file there is named by a hash of
the configuration; one that is damaged or of another configuration is recomputed; a folder that
cannot be written is done without.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .config import Experiment, seeded
from .cycle import CycleResult, cycle
from .finite_size import EnKFN
from .learning import Pairs, fit, split_in_time, training_pairs
from .models import CubicLorenz96, Lorenz96, Step, spin_up, trajectory
from .networks import CorrectionCNN, HybridModel
from .observations import Observations, checkerboard, observe

FORMAT = 1  # to be raised when the code, not the configuration, changes what a stage gives
FURTHER = {"epochs": 8, "learning_rate": 4e-3, "rescale": False}  # training of a later pass through the loop
SHIPPED = Path(__file__).with_name("trained")  # networks of the default experiment, so that 3_hybrid opens at once


def true_model(cfg: Experiment) -> CubicLorenz96:
    """The model nature runs, unknown to everything but the truth and the scores."""
    return CubicLorenz96(forcing=cfg.true_forcing, dt=cfg.dt, cubic=cfg.true_cubic, friction=cfg.true_friction)


def physical_model(cfg: Experiment) -> Lorenz96:
    """The wrong model we have."""
    return Lorenz96(forcing=cfg.forcing, dt=cfg.dt)


def sample(cfg: Experiment, model, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Independent states on the attractor of a model, drawn for every experiment on its own: (n_seeds, *shape, Nx)."""
    states = [
        model.random_state(shape, cfg.n_sites, generator=seeded(cfg.seed + s, stream)) for s in range(cfg.n_seeds)
    ]
    return spin_up(model, states=torch.stack(states))


def truth(cfg: Experiment) -> Tensor:
    """What nature did: (n_seeds, n_truth, Nx), row k at time k; starts on the attractor of the true model."""
    model = true_model(cfg)

    def compute() -> dict:
        with torch.no_grad():
            return {"truth": trajectory(model, sample(cfg, model, "truth"), cfg.n_truth - 1)}

    return cached("truth", cfg, compute)["truth"]


def observations(cfg: Experiment) -> Observations:
    """What is seen of it: half of the points at each time, in turn (checkerboard), with noise."""

    def compute() -> dict:
        streams = [seeded(cfg.seed + s, "observations") for s in range(cfg.n_seeds)]
        single = [observe(x, checkerboard, cfg.obs_std, generator=g) for x, g in zip(truth(cfg), streams, strict=True)]
        return {"y": torch.stack([o.y for o in single]), "R": single[0].R}

    return Observations(network=checkerboard, **cached("observations", cfg, compute))


def enkf(cfg: Experiment, variance: float | Tensor) -> EnKFN:
    """The filter of the course with model error of ``sigma_q^2 = variance * dt``; a tensor tries several.

    Zero says that the model is perfect; then there is nothing for the adaptive inflation to find.
    """
    adaptive = torch.is_tensor(variance) or variance > 0
    return EnKFN(size=cfg.n_members, model_error_std=cfg.error_std(variance), adaptive=adaptive)


def climatological_ensemble(cfg: Experiment) -> Tensor:
    """The filter's start, (n_seeds, n_members, Nx): before it has seen anything it knows the climate of its model."""
    return sample(cfg, physical_model(cfg), "ensemble", (cfg.n_members,))


def assimilate(
    cfg: Experiment,
    step: Step,
    variance: float,
    *,
    times: slice | None = None,
    device: str = "cpu",
    progress: str = "",
) -> CycleResult:
    """The filter of the course with any model over some of the times: the first ``n_assimilated`` by default."""
    seen = observations(cfg)[times or slice(0, cfg.n_assimilated)].to(device)
    return cycle(enkf(cfg, variance), step, seen, climatological_ensemble(cfg).to(device), progress=progress)


def tune_model_error(
    cfg: Experiment,
    step: Step,
    variances: Sequence[float],
    *,
    n_times: int = 600,
    n_seeds: int = 2,
    device: str = "cpu",
) -> tuple[float, Tensor]:
    """Choose ``sigma_q^2 / dt`` by the likelihood of the observations alone: the truth is not asked.

    All candidates run in one batch over the last ``n_times`` of the assimilated observations.

    Returns
    -------
    The best candidate and the mean log-likelihood per observation time, (n_seeds, n_candidates).
    """
    few = replace(cfg, n_seeds=min(n_seeds, cfg.n_seeds))
    seen = observations(cfg)[cfg.n_assimilated - n_times : cfg.n_assimilated].to(device)
    seen = replace(seen, y=seen.y[: few.n_seeds, None])  # (n_seeds, 1, K, Ny)
    start = climatological_ensemble(few).to(device).unsqueeze(1)  # the filter repeats it for every candidate
    filter_ = enkf(cfg, torch.tensor(list(variances), dtype=torch.float64, device=device))
    result = cycle(filter_, step, seen, start)
    likelihood = result.diagnostics["log_likelihood"][..., n_times // 3 :].mean(-1)
    return variances[int(likelihood.mean(0).argmax())], likelihood


def analysis(cfg: Experiment, *, device: str = "cpu", progress: str = "") -> CycleResult:
    """EnKF with the wrong model over the first ``n_assimilated`` times, burn-in included."""

    def compute() -> dict:
        result = assimilate(cfg, physical_model(cfg), cfg.model_error_variance, device=device, progress=progress)
        return {name: value for name, value in vars(result).items() if name != "final" and value is not None}

    return CycleResult(**cached("analysis", cfg, compute, device))


def test_times(cfg: Experiment) -> slice:
    """The last times of the truth, which nothing is learnt or tuned on, with a burn-in for a filter before them."""
    return slice(cfg.n_truth - cfg.n_test - cfg.test_burn_in, cfg.n_truth)


def test_truth(cfg: Experiment) -> Tensor:
    """The truth of the test times without their burn-in: (n_seeds, n_test, Nx)."""
    return truth(cfg)[:, -cfg.n_test :]


def forecast_truth(cfg: Experiment) -> Tensor:
    """Independent true runs to score forecasts on: (n_starts, n_forecast + 1, Nx), the same for every experiment."""
    model = true_model(cfg)
    starts = model.random_state((cfg.n_starts,), cfg.n_sites, generator=seeded(cfg.seed, "forecasts"))
    with torch.no_grad():
        return trajectory(model, spin_up(model, states=starts), cfg.n_forecast)


def pairs(cfg: Experiment, source: str = "analysis", *, device: str = "cpu") -> tuple[Pairs, Pairs]:
    """Training and validation pairs from the ``"analysis"`` or, as a ceiling, from the ``"truth"`` of its times."""
    if source not in ("analysis", "truth"):
        raise ValueError(f"source = {source!r}: expected 'analysis' or 'truth'.")
    return pairs_of(cfg, analysis(cfg, device=device).analysis if source == "analysis" else truth(cfg).to(device))


def pairs_of(cfg: Experiment, states: Tensor) -> tuple[Pairs, Pairs]:
    """Training and validation pairs from states at the assimilated times, (..., n_assimilated or more, Nx)."""
    used = states[..., cfg.burn_in : cfg.n_assimilated, :]
    return split_in_time(training_pairs(used, physical_model(cfg)), cfg.validation_fraction, cfg.gap)


def untrained(cfg: Experiment, stream: str = "weights") -> CorrectionCNN:
    """One network per experiment, with its first weights."""
    generators = [seeded(cfg.seed + s, stream) for s in range(cfg.n_seeds)]
    return CorrectionCNN((cfg.n_seeds,), cfg.channels, cfg.widths, generators=generators)


def correction(
    cfg: Experiment, source: str = "analysis", *, n_passes: int = 1, device: str = "cpu", progress: str = ""
) -> CorrectionCNN:
    """One trained network per experiment; see :func:`pairs` for the source. Shipped for the default experiment.

    With ``n_passes`` above one, from that many analyses one after the other, each with the hybrid of the pass before.
    """

    def compute() -> dict:
        if n_passes > 1:
            network = correction(cfg, n_passes=n_passes - 1, device=device).requires_grad_(True)
            next_pass(cfg, network, device=device, progress=progress)
        else:
            network = untrained(cfg).to(device)
            train(cfg, network, *pairs(cfg, source, device=device), progress=progress)
        return network.state_dict()

    if n_passes < 1 or (n_passes > 1 and source != "analysis"):
        raise ValueError(f"n_passes = {n_passes}: expected at least one, and one where the source is the truth.")
    stage = f"correction-{source}" + (f"-pass-{n_passes}" if n_passes > 1 else "")
    network = untrained(cfg).to(device)
    network.load_state_dict(cached(stage, cfg, compute, device))
    return network.eval().requires_grad_(False)


def next_pass(cfg: Experiment, network: CorrectionCNN, *, device: str = "cpu", progress: str = "") -> None:
    """Once more round the loop, in place: choose sigma_q by the innovations, assimilate with the hybrid, train on."""
    physical, few = physical_model(cfg), min(2, cfg.n_seeds)
    candidate = HybridModel(physical, network.select(slice(0, few)).eval())
    variance, _ = tune_model_error(
        cfg, candidate, (0.3, 0.1, 0.03, 0.01), n_times=min(300, cfg.n_assimilated), n_seeds=few, device=device
    )
    result = assimilate(cfg, HybridModel(physical, network.eval()), variance, device=device, progress=progress)
    train(cfg, network, *pairs_of(cfg, result.analysis), progress=progress, **FURTHER)


def train(cfg: Experiment, network: CorrectionCNN, training: Pairs, validation: Pairs, **options):
    """:func:`mooc_da.fit` with the numbers of the configuration; ``options`` override them."""
    numbers = {
        "epochs": cfg.epochs,
        "batch_size": cfg.batch_size,
        "learning_rate": cfg.learning_rate,
    }
    return fit(
        network,
        training,
        validation,
        **numbers | {"generator": seeded(cfg.seed, "batches")} | options,
    )


def ship(cfg: Experiment | None = None) -> None:
    """Train the networks of the default experiment anew and keep them with the package; when a default changes."""
    cfg = cfg or Experiment()
    os.environ["MOOC_DA_CACHE"] = "none"  # so that nothing old is read
    _memory.clear()
    for old in SHIPPED.glob("*.pt"):
        old.unlink()
    for source, n_passes in (("analysis", 1), ("truth", 1), ("analysis", 2), ("analysis", 3)):
        correction(cfg, source, n_passes=n_passes)
    for (name, _), values in _memory.items():
        if name.startswith("correction-"):
            store(values, SHIPPED / name)


_memory: dict[tuple[str, str], dict] = {}  # the stages of this session


def cached(stage: str, cfg: Experiment, compute: Callable[[], dict], device: str = "cpu") -> dict:
    """The tensors of a stage, from memory, the shipped files, the cache folder or else ``compute``."""
    name, folder = file_name(stage, cfg), cache_folder()
    if (name, device) not in _memory:
        values = read(name, [] if folder is None else [SHIPPED, folder], device)
        if values is None:
            values = compute()
            if folder is not None:
                store(values, folder / name)
        _memory[name, device] = values
    return _memory[name, device]


def read(name: str, folders: Sequence[Path], device: str) -> dict | None:
    """The tensors of the file of that name in the first folder that has it; None if there is none that is sound."""
    for path in (folder / name for folder in folders):
        try:
            saved = torch.load(path, weights_only=True, map_location=device)
            if saved["name"] != name:
                raise ValueError("of another configuration")
            return saved["values"]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except Exception as error:  # a damaged file fails in many ways, and all have one remedy
            warnings.warn(f"{path} is damaged ({type(error).__name__}): recomputing it.", stacklevel=4)
    return None


def file_name(stage: str, cfg: Experiment) -> str:
    """A name that changes with the configuration."""
    numbers = json.dumps([FORMAT, stage, cfg.as_dict()], sort_keys=True)
    return f"{stage}-{hashlib.sha256(numbers.encode()).hexdigest()[:16]}.pt"


def cache_folder() -> Path | None:
    """``$MOOC_DA_CACHE``, else ``~/.cache/mooc_da``; None for "none"."""
    folder = os.environ.get("MOOC_DA_CACHE", "")
    return None if folder == "none" else Path(folder or Path.home() / ".cache" / "mooc_da")


def store(values: dict, path: Path) -> None:
    """Write tensors so that no reader ever sees half a file; warn and go on if the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            torch.save({"name": path.name, "values": values}, part)
        os.chmod(part.name, 0o644)
        os.replace(part.name, path)
    except OSError as error:
        warnings.warn(
            f"The cache folder {path.parent} cannot be written ({error.strerror}): results are not kept. "
            "Set MOOC_DA_CACHE to a folder of yours to keep them.",
            stacklevel=4,
        )
