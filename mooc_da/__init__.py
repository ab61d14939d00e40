"""mooc_da: data assimilation meets machine learning, the package of the course.

config        Experiment: every number of the course
models        rk4, Lorenz63, Lorenz96, CubicLorenz96; trajectory, spin_up, lyapunov_exponents; shallow_water
observations  networks (everywhere, every, checkerboard), observe, Observation(y, H, R)
ensembles     ensemble algebra: anomalies, inflate, sqrt_core, rotate
filters       EnKF, DEnKF, ETKF and a table of all methods; finite_size (EnKFN), localisation (LETKF),
              kalman (KF, ExtendedKF, UnscentedKF), particles (ParticleFilter)
variational   Var3D, Var4D (by minimisation); smoothers (EnKS, IEnKS, FourDEnVar), hybrids (HybridVar, EnsembleVar4D)
covariances   B as a square root, estimates of B and R
cycle         the one loop: cycle(method, step, observations, start), cycle_windows
networks      CorrectionCNN, CubicRidge (the baseline), HybridModel, TendencyHybrid; latent (EOFs, autoencoder)
learning      training_pairs, split_in_time, fit, rollout_loss; soap (SOAP, an optimiser)
loop          close_the_loop: assimilate, learn, assimilate with what was learnt; its study for notebook 6
              (loop_attempts, loop_study, loop_plots) and the model_card of what it ends with
scores        rmse, crps, rank_histogram, forecast_errors, skill_horizon, climate
stages        the story in cached steps (cache): truth -> observations -> analysis -> correction
plots         the figures of data; maps those of fields, diagrams those of the story
exercises     check, hint, solution; quiz (questions.toml); widgets: live explorers (explorers, hybrid_explorers)
challenge     beat the hybrid: fixed observations, sealed scores, a board with baselines
reader        what the course remembers of its reader; machine: what computer the notebook runs on
"""

from .config import Experiment, seeded
from .cycle import CycleResult, cycle, cycle_windows
from .ensembles import additive_noise, anomalies, inflate, rotate, sqrt_core
from .filters import ETKF, DEnKF, EnKF, FilterDivergence, denkf_update, enkf_update, etkf_update
from .finite_size import EnKFN, enkf_n_update
from .hybrids import EnsembleVar4D, HybridVar
from .kalman import KF, ExtendedKF, UnscentedKF
from .learning import fit, rollout_loss, rollout_pairs, split_in_time, training_pairs
from .localisation import LETKF, gaspari_cohn
from .loop import Recipe, close_the_loop
from .models import CubicLorenz96, Lorenz63, Lorenz96, lyapunov_exponents, repeated, rk4, spin_up, trajectory
from .networks import CorrectionCNN, CubicRidge, HybridModel, TendencyHybrid
from .observations import Observation, Observations, checkerboard, every, everywhere, observe
from .particles import ParticleFilter
from .scores import climate, crps, forecast_errors, over_seeds, rank_histogram, rmse, skill_horizon
from .smoothers import EnKS, FourDEnVar, IEnKS
from .soap import SOAP
from .variational import Var3D, Var4D

__version__ = "0.2.0"

__all__ = [
    "Experiment", "seeded",
    "CubicLorenz96", "Lorenz63", "Lorenz96", "lyapunov_exponents", "repeated", "rk4", "spin_up", "trajectory",
    "Observation", "Observations", "checkerboard", "every", "everywhere", "observe",
    "additive_noise", "anomalies", "gaspari_cohn", "inflate", "rotate", "sqrt_core",
    "ETKF", "DEnKF", "EnKF", "EnKFN", "FilterDivergence", "denkf_update", "enkf_n_update", "enkf_update", "etkf_update",
    "KF", "ExtendedKF", "LETKF", "ParticleFilter", "UnscentedKF",
    "EnKS", "EnsembleVar4D", "FourDEnVar", "HybridVar", "IEnKS", "Var3D", "Var4D",
    "CycleResult", "cycle", "cycle_windows",
    "CorrectionCNN", "CubicRidge", "HybridModel", "TendencyHybrid",
    "SOAP", "fit", "rollout_loss", "rollout_pairs", "split_in_time", "training_pairs",
    "Recipe", "close_the_loop",
    "climate", "crps", "forecast_errors", "over_seeds", "rank_histogram", "rmse", "skill_horizon",
]  # fmt: skip
