"""A step of an evolution as a file: the integrator's own steps, by ETDRK4 or by the symbol, as often as T asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sciml_fm_core.physics.evolution import Evolution, Stepper, etdrk4
from sciml_fm_core.physics.spectral import inverse_transform, transform
from sciml_fm_core.physics.system import System

Function = Callable[..., Sequence[Tensor]]

BEGUN = ("state", "count")
"""First results of `begun`; those that `advance` takes besides follow, called as `taken` says."""
ADVANCED = ("next", "shown")
"""Results of `advance`."""


def steps_alike(system: System) -> bool:
    """Whether a system is an evolution of one field whose steps are all alike, for states like those of its tasks."""
    return (
        isinstance(system, Evolution)
        and type(system)._states is Evolution._states
        and len(system.inputs) == len(system.outputs) == 1
    )


def taken(system: Evolution) -> list[str]:
    """Names of what a step of an evolution's solver needs: a multiplier, or coefficients of ETDRK4."""
    return ["multiplier"] if system.is_linear else list(Stepper._fields)


def begun(system: Evolution) -> Function:
    """What a step begins with, from states (batch, n, n) and coefficients (batch, c), and how many steps it takes."""

    def function(_: dict[str, Tensor], source: Tensor, coefficients: Tensor) -> list[Tensor]:
        n, coefficients, state_hat = source.shape[-1], coefficients.double(), transform(source.double())
        time = system.time(coefficients)
        if system.is_linear:
            return [
                _real(state_hat),
                torch.ones_like(time).max().long(),
                _real(system.linear_multiplier(coefficients, n)),
            ]
        count = torch.ceil(time.max() / system.largest_step - 1e-6).clamp(min=1)  # as `substeps`
        needed = etdrk4(system.symbol(coefficients, n), time / count, state_hat.dtype)
        return [_real(state_hat), count.long(), *map(_real, needed)]

    return function


def advance(system: Evolution, n: int) -> Function:
    """One step of the solver between Fourier coefficients (batch, n, n // 2 + 1, 2), and the state that it leads to."""

    def function(_: dict[str, Tensor], state: Tensor, coefficients: Tensor, *needed: Tensor) -> list[Tensor]:
        state_hat, told = torch.view_as_complex(state), [_complex(each, state.ndim) for each in needed]
        if system.is_linear:
            state_hat = state_hat * told[0]
        else:
            state_hat = Stepper(*told).advance(state_hat, system.dealiased_rest(coefficients, n, state.dtype))
        return [torch.view_as_real(state_hat), inverse_transform(state_hat, n).float()]

    return function


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values


def _complex(values: Tensor, ndim: int) -> Tensor:
    return torch.view_as_complex(values) if values.ndim == ndim else values


def joined(begin: Any, step: Any, needed: Sequence[str]) -> Any:
    """One model of two: what a step begins with, and the integrator's step in a loop, as often as the first says.

    Args:
        begin, step: models of `begun` and `advance`, from ``source`` and ``coefficients``.
        needed: names of what the second takes of the first besides the state.
    """
    import onnx
    from onnx import TensorProto, helper

    step = onnx.compose.add_prefix(step, "step_")
    boolean = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("step_on", "step_on_next")]
    number = helper.make_tensor_value_info("step_number", TensorProto.INT64, [])
    state, before = step.graph.input[0], helper.make_tensor_value_info("step_before", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [*step.graph.node, helper.make_node("Identity", ["step_on"], ["step_on_next"])], "step",
        [number, boolean[0], state, before], [boolean[1], *step.graph.output], initializer=step.graph.initializer,
    )  # fmt: skip
    told = [("coefficients_in_double", "step_coefficients"), *((name, f"step_{name}") for name in needed)]
    begin.graph.node.extend([
        helper.make_node("Cast", ["coefficients"], ["coefficients_in_double"], to=TensorProto.DOUBLE),
        *(helper.make_node("Identity", [name], [inner]) for name, inner in told),
        helper.make_node("Loop", ["count", "", "state", "source"], ["final_state", "solution"], body=body),
    ])  # fmt: skip
    solution = helper.make_tensor_value_info("solution", TensorProto.FLOAT, None)
    solution.type.tensor_type.shape.CopyFrom(begin.graph.input[0].type.tensor_type.shape)
    del begin.graph.output[:]
    begin.graph.output.append(solution)
    return begin
