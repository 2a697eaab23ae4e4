"""Compilation of the network in training, and its precision."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from sciml_fm_core.models.base import Model, Network
from sciml_fm_core.models.operator import Operator

from .config import COMPILE_STEPS, TrainConfig

GRAPH_PARAMETERS = 4 * 10**6
"""Parameters up to which a compiled network is replayed as a CUDA graph: small networks wait for kernel launches."""


def compiles(config: TrainConfig, device: torch.device) -> bool:
    """Whether a training compiles its network: as asked, else by the rule of `TrainConfig.compile`."""
    if config.compile is not None:
        return config.compile
    if config.precision == "tf32":  # Inductor of some versions of PyTorch reads the older setting of TF32, and fails
        return False
    long = config.time_limit is None and config.steps >= COMPILE_STEPS
    return long and device.type == "cuda" and _has_compiler(device)


def _has_compiler(device: torch.device) -> bool:
    """Whether there is what torch.compile needs on a GPU: Triton, a C compiler with Python's headers, a recent GPU."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    tools = find_spec("triton") is not None and shutil.which("cc") is not None and headers.is_file()
    return tools and torch.cuda.get_device_capability(device) >= (7, 0)


def trained_network(config: TrainConfig, operator: Operator) -> Network | None:
    """Network as it is trained: in the precision asked for, and compiled where that pays; None for as it is."""
    network = operator.model.network(config.precision)
    if config.precision == "tf32" and operator.device.type == "cpu":
        raise ValueError("precision: expected a CUDA GPU for tf32, got a CPU; use float32")
    if compiles(config, operator.device):
        return compiled(network, operator.model)
    return network if config.precision == "bfloat16" else None


def compiled(network: Network, model: Model) -> Network:
    """Compile `Model.network`: on a GPU as a CUDA graph where the model is small."""
    graph = next(model.parameters()).is_cuda and model.parameter_count <= GRAPH_PARAMETERS
    return torch.compile(network, dynamic=False, mode="reduce-overhead" if graph else None)


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Let CUDA use TF32 for the products inside, where that is asked for."""
    if precision != "tf32":
        yield
        return
    settings = torch.backends.cuda.matmul
    before, settings.fp32_precision = settings.fp32_precision, "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before
