"""How pre-trained neural operators transfer: spectral solvers, Fourier neural operators, training and transfer.

Data flows one way: `spectral` -> `systems` -> `sources`, `tasks` -> `datasets` -> `normalization` -> `fno` ->
`operator` -> `training` -> `transfer`.
"""

from ._version import __version__
from .data.batches import FixedBatches, FreshBatches
from .data.hdf5 import DatasetFile, generate
from .data.splits import draw_split
from .evaluation.errors import error_map, evaluate, evaluate_shifts
from .evaluation.metrics import energy_spectrum, relative_error, relative_residual
from .models.fno import FNO, SIZES, FNOConfig
from .models.operator import Operator, load_operator, shipped_operators
from .physics.examples import Examples
from .physics.system import SYSTEMS, System, find_system
from .physics.tasks import PAPER_TASKS, Task, parse_mixture
from .training.config import History, Progress, TrainConfig
from .training.loop import fit
from .training.recipes import PAPER_LEARNING_RATES, RECIPES
from .training.transfer import Adaptation, fine_tune, new_operator, pretrain, train_from_scratch

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
    "__version__",
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
