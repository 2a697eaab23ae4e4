"""Records of a training on a card."""

from __future__ import annotations

import os
import platform

import torch

from sciml_fm_core._version import __version__
from sciml_fm_core.models.operator import Operator

from .config import History


def training_card(history: History, operator: Operator) -> dict:
    """Record a training on a card: cost, hardware, versions, learning curve."""
    return {
        "examples_seen": history.examples_seen,
        "seconds": round(history.seconds, 1),
        "best_validation_error": history.best_error,
        "parameters": operator.model.parameter_count,
        "hardware": hardware(operator.device),
        "versions": versions(),
        "curve": [[row["step"], round(row["validation_error"], 6)] for row in history.rows if row["validation_error"]],
    }


def versions() -> dict[str, str]:
    """Versions of this package and of torch."""
    return {"sciml_fm": __version__, "torch": torch.__version__.split("+")[0]}


def hardware(device: torch.device | str) -> str:
    """Name the device in words, with the threads that were used on a CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    count = torch.get_num_threads()
    return f"CPU, {name}, {count} thread{'s' if count > 1 else ''}"
