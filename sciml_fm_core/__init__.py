"""How pre-trained neural operators transfer: spectral solvers, neural operators, training, transfer and studies of it.

Data flows one way: `physics` -> `data` -> `models` -> `evaluation` -> `training` -> `study`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .data.batches import FixedBatches, FreshBatches
from .data.generation import generate
from .data.hdf5 import DatasetFile
from .data.layout import Layout
from .data.own import open_splits
from .data.splits import draw_split
from .data.trajectories import load_trajectories, save_trajectories, split_trajectories
from .evaluation.errors import error_map, evaluate, evaluate_shifts
from .evaluation.metrics import energy_spectrum, mean_relative_error, relative_error, relative_residual
from .experiments import architectures  # noqa: F401 - networks that are known by their names
from .models.base import MODELS, FixedGridModel, Model, ModelConfig
from .models.conditioning import Conditioning
from .models.fno import FNO, SIZES, FNOConfig
from .models.module import operator_of
from .models.operator import Operator, load_operator, shipped_operators
from .physics.evolution import Evolution
from .physics.examples import Examples
from .physics.parameter import Parameter
from .physics.spectral_system import SpectralSystem
from .physics.symmetries import Geometry
from .physics.system import SYSTEMS, System, find_system
from .physics.tasks import PAPER_TASKS, Task, parse_mixture
from .plugins import load_plugins
from .training.config import History, Progress, TrainConfig
from .training.loop import fit
from .training.losses import LOSSES, register_loss
from .training.recipes import LEARNING_RATES, PAPER_LEARNING_RATES, RECIPES
from .training.transfer import Adaptation, fine_tune, new_operator, pretrain, train_from_scratch

if TYPE_CHECKING:
    from .experiments.convergence.method import Convergence, FlowConvergence, convergence, flow_convergence
    from .experiments.error_bounds import ErrorBounds, error_bounds
    from .experiments.learned_symbol import LearnedSymbol, half_plane, learned_symbol
    from .experiments.released import operator_from_released
    from .experiments.uncertainty.ensemble import Ensemble, Prediction, load_ensemble, shipped_ensembles

__all__ = [
    "FNO",
    "LEARNING_RATES",
    "LOSSES",
    "MODELS",
    "PAPER_LEARNING_RATES",
    "PAPER_TASKS",
    "RECIPES",
    "SIZES",
    "SYSTEMS",
    "Adaptation",
    "Conditioning",
    "Convergence",
    "DatasetFile",
    "Ensemble",
    "ErrorBounds",
    "Evolution",
    "Examples",
    "FNOConfig",
    "FixedBatches",
    "FixedGridModel",
    "FlowConvergence",
    "FreshBatches",
    "Geometry",
    "History",
    "Layout",
    "LearnedSymbol",
    "Model",
    "ModelConfig",
    "Operator",
    "Parameter",
    "Prediction",
    "Progress",
    "SpectralSystem",
    "System",
    "Task",
    "TrainConfig",
    "__version__",
    "convergence",
    "draw_split",
    "energy_spectrum",
    "error_bounds",
    "error_map",
    "evaluate",
    "evaluate_shifts",
    "find_system",
    "fine_tune",
    "fit",
    "flow_convergence",
    "generate",
    "half_plane",
    "learned_symbol",
    "load_ensemble",
    "load_operator",
    "load_trajectories",
    "mean_relative_error",
    "new_operator",
    "open_splits",
    "operator_from_released",
    "operator_of",
    "parse_mixture",
    "pretrain",
    "register_loss",
    "relative_error",
    "relative_residual",
    "save_trajectories",
    "shipped_ensembles",
    "shipped_operators",
    "split_trajectories",
    "train_from_scratch",
]

_OF_EXPERIMENTS = {
    **dict.fromkeys(("Convergence", "FlowConvergence", "convergence", "flow_convergence"), "convergence.method"),
    **dict.fromkeys(("LearnedSymbol", "half_plane", "learned_symbol"), "learned_symbol"),
    **dict.fromkeys(("ErrorBounds", "error_bounds"), "error_bounds"),
    **dict.fromkeys(("Ensemble", "Prediction", "load_ensemble", "shipped_ensembles"), "uncertainty.ensemble"),
    "operator_from_released": "released",
}
"""Public names of side studies, which are imported when they are asked for: most programs use none of them."""


def __getattr__(name: str) -> Any:
    if name not in _OF_EXPERIMENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".experiments.{_OF_EXPERIMENTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


load_plugins()
