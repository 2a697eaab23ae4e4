"""Files exactly as the paper's released code writes them."""

from pathlib import Path

import h5py
import torch

from sciml_fm_core import Examples


def write_released(examples: Examples, path: str | Path) -> Path:
    """``fields`` and ``tensor``, and no attributes."""
    with h5py.File(path, "w") as file:
        fields = torch.stack([examples.source, examples.solution], dim=1).cpu().numpy()
        file.create_dataset("fields", data=fields.astype("<f4"))
        file.create_dataset("tensor", data=examples.coefficients.cpu().numpy().astype("<f4"))
    return Path(path)
