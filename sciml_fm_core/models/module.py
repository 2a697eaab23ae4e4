"""Any `torch.nn.Module` as the network of an operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sciml_fm_core.data.given import Data, file_of, open_data, sample, with_system
from sciml_fm_core.data.layout import Layout
from sciml_fm_core.physics.unknown import UnknownSystem

from .base import Model, ModelConfig
from .conditioning import Conditioning
from .normalization import FieldsNormalization
from .operator import Operator


class ModuleModel(Model):
    """A module from (batch, inputs + scalars, ny, nx) to (batch, targets, ny, nx); scalars are constant in space.

    It is in no registry: whoever has its code builds it again.
    """

    config_type = ModelConfig

    def __init__(self, module: nn.Module, config: ModelConfig):
        super().__init__(config)
        self.module, self.architecture = module, f"module {type(module).__name__}"  # type: ignore[misc] # of one alone

    @classmethod
    def create(cls, config, generator=None):
        """Refused: what builds the module is not known."""
        raise ValueError(
            "from scratch: nothing says how a module of yours is built; build it again, and fine-tune operator_of(it)"
        )

    def forward(self, fields: Tensor, conditioning: Conditioning) -> Tensor:
        """As `Model.forward`; ValueError where the module gives another shape."""
        scalars = conditioning.scalars[..., None, None].expand(-1, -1, *fields.shape[-2:])
        solution = self.module(torch.cat([fields, scalars], dim=1))
        expected = (len(fields), self.config.out_channels, *fields.shape[-2:])
        if solution.shape != expected:
            raise ValueError(f"{self.architecture}: expected to return {expected}, got {tuple(solution.shape)}")
        return solution


def operator_of(
    module: nn.Module,
    inputs: str | list[str] | None = None,
    targets: str | list[str] | None = None,
    scalars: str | list[str] = "",
    *,
    data: Data | None = None,
) -> Operator:
    """An operator whose network is any module: `fine_tune` trains it, `evaluate` measures it, it predicts.

    Its owner saves it, by ``torch.save(operator.model.module.state_dict(), ...)``: no bundle could build it again. A
    subclass of `Model` is saved in bundles, see the page on extending.

    >>> operator = operator_of(nn.Conv2d(3, 1, 1), inputs="a,f", targets="u", scalars="nu")
    >>> operator.predict(torch.ones(5, 2, 8, 10), torch.ones(5, 1)).shape
    torch.Size([5, 8, 10])

    Args:
        module: from (batch, inputs + scalars, ny, nx) to (batch, targets, ny, nx).
        inputs, targets, scalars: names of the channels, a list or a text with commas; where None, those of the data.
        data: examples to standardise inputs and targets by; where None, the module takes and gives physical units.

    Raises:
        ValueError: if nothing says the names; on data as `open_data`.
    """
    if inputs is None and targets is None:
        data = with_system(data, None)[0]
        if (file := file_of(data)) is None:
            raise ValueError(
                "operator: expected names of inputs and targets, or data of a file that has them, got none"
            )
        system: Any = file.system
    else:
        named = Layout(inputs or "", targets or "", scalars)
        system = UnknownSystem(named.inputs, named.targets, named.scalars)
    count = len(system.inputs) + len(system.outputs) + len(system.coefficient_names)
    normalization = FieldsNormalization((system,), [0.0] * count, [1.0] * count)
    if data is not None:
        normalization = FieldsNormalization.fit([(system, sample(open_data(data, system)))])
    config = ModelConfig(normalization.in_channels, out_channels=normalization.out_channels)
    model = ModuleModel(module, config).eval()
    return Operator(model, normalization, {"recipe": "fields", "architecture": model.architecture, "tasks": []})
