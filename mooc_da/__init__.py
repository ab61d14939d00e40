"""mooc_da: data assimilation meets machine learning, the package of the course.

config        Experiment: every number of the course
models        rk4, Lorenz63, Lorenz96, CubicLorenz96; trajectory, spin_up, lyapunov_exponents
observations  networks (everywhere, every, checkerboard), observe, Observation(y, H, R)
ensembles     ensemble algebra: anomalies, inflate, sqrt_core, rotate
filters       EnKF, ETKF, EnKFN and their update functions
cycle         the one loop: cycle(method, step, observations, start)
networks      CorrectionCNN, CubicRidge (the baseline), HybridModel, TendencyHybrid
learning      training_pairs, split_in_time, fit, rollout_loss
scores        rmse, crps, rank_histogram, forecast_errors, skill_horizon, climate
stages        the story in cached steps: truth -> observations -> analysis -> correction
plots         the figures of data, diagrams those of the story (only these two need matplotlib)
"""

from .config import Experiment, seeded
from .cycle import CycleResult, cycle
from .ensembles import additive_noise, anomalies, inflate, rotate, sqrt_core
from .filters import ETKF, EnKF, EnKFN, FilterDivergence, enkf_n_update, enkf_update, etkf_update
from .learning import fit, rollout_loss, rollout_pairs, split_in_time, training_pairs
from .models import CubicLorenz96, Lorenz63, Lorenz96, lyapunov_exponents, repeated, rk4, spin_up, trajectory
from .networks import CorrectionCNN, CubicRidge, HybridModel, TendencyHybrid
from .observations import Observation, Observations, checkerboard, every, everywhere, observe
from .scores import climate, crps, forecast_errors, over_seeds, rank_histogram, rmse, skill_horizon

__version__ = "0.1.0"

__all__ = [
    "Experiment", "seeded",
    "CubicLorenz96", "Lorenz63", "Lorenz96", "lyapunov_exponents", "repeated", "rk4", "spin_up", "trajectory",
    "Observation", "Observations", "checkerboard", "every", "everywhere", "observe",
    "additive_noise", "anomalies", "inflate", "rotate", "sqrt_core",
    "ETKF", "EnKF", "EnKFN", "FilterDivergence", "enkf_n_update", "enkf_update", "etkf_update",
    "CycleResult", "cycle",
    "CorrectionCNN", "CubicRidge", "HybridModel", "TendencyHybrid",
    "fit", "rollout_loss", "rollout_pairs", "split_in_time", "training_pairs",
    "climate", "crps", "forecast_errors", "over_seeds", "rank_histogram", "rmse", "skill_horizon",
]  # fmt: skip
