"""How pre-trained neural operators transfer: spectral solvers, Fourier neural operators, training and transfer.

Data flows one way: `spectral` -> `systems` -> `sources`, `tasks` -> `datasets` -> `normalization` -> `fno` ->
`operator` -> `training` -> `transfer`.
"""

__version__ = "0.1.0"

from .datasets import DatasetFile, FixedBatches, FreshBatches, draw_split, generate
from .fno import FNO, SIZES, FNOConfig
from .metrics import energy_spectrum, relative_error, relative_residual
from .operator import Operator, load_operator, shipped_operators
from .systems import SYSTEMS, System, find_system
from .tasks import PAPER_TASKS, Examples, Task, parse_mixture
from .training import History, Progress, TrainConfig, fit
from .transfer import (
    PAPER_LEARNING_RATES,
    RECIPES,
    Adaptation,
    error_map,
    evaluate,
    evaluate_shifts,
    fine_tune,
    new_operator,
    pretrain,
    train_from_scratch,
)

__all__ = [
    "FNO",
    "PAPER_LEARNING_RATES",
    "PAPER_TASKS",
    "RECIPES",
    "SIZES",
    "SYSTEMS",
    "Adaptation",
    "DatasetFile",
    "Examples",
    "FNOConfig",
    "FixedBatches",
    "FreshBatches",
    "History",
    "Operator",
    "Progress",
    "System",
    "Task",
    "TrainConfig",
    "draw_split",
    "energy_spectrum",
    "error_map",
    "evaluate",
    "evaluate_shifts",
    "find_system",
    "fine_tune",
    "fit",
    "generate",
    "load_operator",
    "new_operator",
    "parse_mixture",
    "pretrain",
    "relative_error",
    "relative_residual",
    "shipped_operators",
    "train_from_scratch",
]
