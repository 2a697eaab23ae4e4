"""Operators and solvers as files that run without this package: ONNX, and programs of `torch.export` (.pt2).

What is written is the whole of `Operator.predict` for one system on one grid: units, normalisation, what the network is
told of the equation, and the network. The traced computation is that of `predict` itself, see `real_parts`: there is no
second implementation. Checks of what is given are left out, since they are none of a graph's business.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from sciml_fm_core._version import __version__
from sciml_fm_core.files import atomic_path, check_output, user_path
from sciml_fm_core.physics.spectral import Resolution, grid_shape, grid_text, inverse_transform, transform
from sciml_fm_core.physics.spectral_system import is_spectral
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task

from .real_parts import RealParts, trace

if TYPE_CHECKING:
    from .operator import Operator

OPSET = 20
"""Version of ONNX's operators that is written; the first with a GELU."""
LARGEST_DIFFERENCE = 1e-5
"""Relative difference to PyTorch above which nothing is written."""
SMALLEST = 1e-7
"""Sizes below it are rounding."""
CHECKED = 5
"""Random examples that a file is checked with."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
SUFFIXES = {".onnx": "ONNX", ".pt2": "torch.export"}


class Exported(NamedTuple):
    """A file that was written.

    Attributes:
        path: of the file.
        difference: largest relative difference of its solutions to PyTorch's with the same weights, over the examples
            that it was checked with.
        rounding: the same to the operator in float32; what float16 weights cost.
        bytes: its size.
    """

    path: Path
    difference: float
    rounding: float
    bytes: int


class _Graph(nn.Module):
    """A traced computation with its weights as buffers."""

    def __init__(self, function: Callable[..., Any], weights: Mapping[str, Tensor], halved: Sequence[str], examples):
        super().__init__()
        self.names = {key: key.replace(".", "_") for key in weights}
        values = [value.half().float() if key in halved else value for key, value in weights.items()]
        for key, value in zip(weights, values, strict=True):
            self.register_buffer(self.names[key], value.half() if key in halved else value)

        def computed(*given: Tensor) -> Any:
            with torch.no_grad():
                return function(dict(zip(weights, given, strict=False)), *given[len(weights) :])

        graph = trace(computed, [[*values, *(each[:count] for each in examples)] for count in (2, 3)], len(weights))
        self.interpreter = [RealParts(graph)]  # in a list: it is no part of the module
        self(*examples)  # see RealParts

    def forward(self, *given: Tensor) -> Any:
        weights = [getattr(self, name).float() for name in self.names.values()]
        return self.interpreter[0].run(*weights, *given, enable_io_processing=False)


def export_operator(
    operator: Operator,
    path: str | Path,
    system: System | str | None = None,
    resolution: Resolution | None = None,
    weights: str = "float32",
) -> Exported:
    """Write an operator for one of its systems, on one grid, for any number of examples; see `Operator.export`."""
    from .operator import halved_names

    path, known = _checked_path(path), operator.normalization.resolve(system)
    if weights not in ("float32", "float16"):
        raise ValueError(f"weights: expected float32 or float16, got {weights!r}; choose one of them")
    resolution = 128 if resolution is None else resolution
    if min(grid_shape(resolution)) < (least := operator.model.smallest_grid):
        raise ValueError(
            f"resolution: this operator expects at least {least} points in each direction, got "
            f"{grid_text(resolution)}; choose a finer grid"
        )
    rounded = operator.copy()
    rounded.model = rounded.model.plain()
    function, state = network_of(operator, known)
    halved = halved_names(state, f"export {path}") if weights == "float16" else []
    examples = _examples(operator, known, resolution)
    about = {
        "what": "operator", "card": operator.card, "weights": weights, "operator_digest": operator.digest,
    }  # fmt: skip
    with torch.no_grad():
        for key in halved:
            parameter = rounded.model.get_parameter(key.removeprefix("model."))
            parameter.copy_(parameter.half())
    expected = [each.predict(examples[0], examples[1], known) for each in (rounded, operator)]
    return _written(path, function, state, halved, known, examples, expected, about)


def network_of(operator: Operator, system: System) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """`predict` without its checks, as a function of weights, source and coefficients; and the weights, in float32."""
    from .operator import apply_operators

    plain = operator.copy().to("cpu")
    plain.model = plain.model.plain().float()
    net = _Net(plain, system, apply_operators)

    def function(given: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        return torch.func.functional_call(net, given, inputs)

    return function, {key: value.detach() for key, value in net.named_parameters()}


def export_solver(system: System, path: str | Path, resolution: Resolution | None = None) -> Exported:
    """Write the exact solver of an equation with a Fourier symbol, on one grid, for any number of examples.

    Args:
        system: such as ``find_system("poisson")``.
        path: file to write, ``*.onnx`` or ``*.pt2``.
        resolution: points n in each direction, an even number; 128 where None.

    Raises:
        ValueError: if no symbol solves the system, the grid is not one of its, packages are missing, or the file does
            not agree with `System.solve`.
    """
    path, resolution = _checked_path(path), 128 if resolution is None else resolution
    if not (is_spectral(system) and system.mode_by_mode):
        raise ValueError(
            f"export: expected a system that a Fourier symbol solves, got {system.name}; export an operator"
        )
    ny, nx = grid_shape(resolution)
    if ny != nx or ny % 2 or ny < 4:
        raise ValueError(
            f"resolution: expected an even number of points from 4 on, such as 128, got {grid_text(resolution)}"
        )

    def function(_: dict[str, Tensor], source: Tensor, coefficients: Tensor) -> Tensor:
        return inverse_transform(system.solve_hat(transform(source), coefficients, ny), ny)

    examples = _examples(None, system, ny)
    expected = [system.solve(*examples)] * 2
    return _written(path, function, {}, [], system, examples, expected, {"what": "solver", "card": {}})


class _Net(nn.Module):
    """`predict` without its checks, as a module: its parameters are those of the network."""

    def __init__(self, operator: Operator, system: System, apply: Callable):
        super().__init__()
        self.model, self.operator, self.system, self.apply_operators = operator.model, operator, system, apply

    def forward(self, source: Tensor, coefficients: Tensor | None = None) -> Tensor:
        if coefficients is None:
            coefficients = source.new_empty(source.shape[0], 0)
        return self.apply_operators([self.operator], self.system, source, coefficients)[0]


def _examples(operator: Operator | None, system: System, resolution: Resolution) -> list[Tensor]:
    """Input fields and coefficients to trace and to check with, in float32."""
    generator = torch.Generator().manual_seed(0)
    if system.is_known:
        low, high = next(iter(system.shifts.values()), (system.dialled.low, system.dialled.high))
        drawn = Task(system, low, high).sample(CHECKED, resolution, generator)
        return [drawn.source.float(), drawn.coefficients.float()]
    known: Any = operator and operator.normalization
    fields = len(system.inputs)
    centre, spread = torch.tensor(known.centre), torch.tensor(known.spread)
    shape = (CHECKED, fields, *grid_shape(resolution))
    source = torch.randn(shape, generator=generator) * spread[:fields, None, None] + centre[:fields, None, None]
    count = len(system.coefficient_names)
    scalars = (
        torch.randn(CHECKED, count, generator=generator) * spread[len(spread) - count :] + centre[len(spread) - count :]
    )
    return [source if fields > 1 else source[:, 0], scalars]


def _written(path, function, state, halved, system, examples, expected, about) -> Exported:
    """Trace, translate, check, and only then write."""
    inputs = examples if system.coefficient_names else examples[:1]
    graph = _Graph(function, state, halved, inputs).eval()
    names = ["source", "coefficients"][: len(inputs)]
    program = _program(graph, inputs)
    if path.suffix == ".onnx":
        translated = _translated(program, names, ["solution"])
        _simplify(translated.model)
        run = _session(_bytes_of_onnx(translated, {}), names)
    else:
        run = lambda *given: [program.module()(*given)]  # noqa: E731
    with torch.no_grad():
        (found,), (alone,) = run(*inputs), run(*(each[:1] for each in inputs))
    difference, rounding = (_difference(found, each) for each in expected)
    difference = max(difference, _difference(alone, expected[0][:1]))
    _check_difference(path, difference)
    said = {key: json.dumps(value) for key, value in (_about(system, examples, names) | about).items()}
    said["difference"] = json.dumps(difference)
    if path.suffix == ".onnx":
        content = _bytes_of_onnx(translated, said)
    else:
        buffer = io.BytesIO()
        with _quiet():
            torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(said)})
        content = buffer.getvalue()
    with atomic_path(path) as partial:
        partial.write_bytes(content)
    return Exported(path, difference, rounding, len(content))


def export_function(
    function: Callable[..., Sequence[Tensor]],
    path: str | Path,
    given: Mapping[str, Tensor],
    results: Sequence[str],
    weights: Mapping[str, Tensor] | None = None,
    largest: float = LARGEST_DIFFERENCE,
) -> float:
    """Write a computation as ONNX whose weights are in a file of their own, so that others can take their place.

    Args:
        function: of a dictionary of weights and of the inputs; it gives the results. Of each of these the first axis is
            that of the examples, whose number is free.
        path: file to write, ``*.onnx``.
        given: inputs to trace and to check with, by name, of at least three examples.
        results: names of what the function gives.
        weights: float32, by name. They are looked for in a file called ``weights``, one after another in this order.
        largest: the difference above which nothing is written.

    Returns:
        The largest relative difference to PyTorch, of the examples and the results that are floating-point numbers.

    Raises:
        ValueError: as `Operator.export`.
    """
    path, weights, inputs = _checked_path(path), dict(weights or {}), list(given.values())
    graph = _Graph(function, weights, [], inputs).eval()
    translated = _translated(_program(graph, inputs), list(given), list(results))
    outer = [translated.model.graph.initializers[name] for name in graph.names.values()]
    for value in outer:  # as inputs they are left alone where constants are computed
        del translated.model.graph.initializers[value.name]
        translated.model.graph.inputs.append(value)
    _simplify(translated.model)
    run = _session(_bytes_of_onnx(translated, {}), [*given, *graph.names.values()])
    with torch.no_grad():
        found, expected = run(*inputs, *weights.values()), function(weights, *inputs)
    difference = max(_difference(a, b) for a, b in zip(found, expected, strict=True))
    _check_difference(path, difference, largest)
    content = _bytes_of_onnx(translated, {}, {graph.names[key]: value.shape for key, value in weights.items()})
    with atomic_path(path) as partial:
        partial.write_bytes(content)
    return difference


def _program(graph: _Graph, inputs: Sequence[Tensor]) -> Any:
    batch = torch.export.Dim("batch", min=1)
    shapes = (tuple({0: batch} for _ in inputs),)
    with _quiet(), torch.no_grad():
        return torch.export.export(graph, tuple(inputs), dynamic_shapes=shapes, strict=False)


def _translated(program: Any, names: list[str], results: list[str]) -> Any:
    with _quiet(), torch.no_grad():
        return torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=names, output_names=results, verbose=False,
            optimize=False,
        )  # fmt: skip


def _check_difference(path: Path, difference: float, largest: float = LARGEST_DIFFERENCE) -> None:
    if not difference <= largest:
        raise ValueError(
            f"export {path}: expected solutions within {largest:g} of PyTorch's, got {difference:.2g}; "
            "nothing was written; try another grid, and report it"
        )


def _about(system: System, examples: list[Tensor], names: list[str]) -> dict[str, Any]:
    """What a reader of the file needs to know."""
    grid = list(examples[0].shape[-2:])
    fields = f"{len(system.inputs)}, " if system.input_axes > 2 else ""
    return {
        "format": "sciml-fm export 1",
        "sciml_fm": __version__,
        "licence": "MIT",
        "system": {"name": system.name, "label": system.label, "title": system.title, "equation": system.equation},
        "inputs": {
            "source": f"float32 (batch, {fields}{grid[0]}, {grid[1]}): {', '.join(system.inputs)}",
            "coefficients": f"float32 (batch, {len(system.coefficient_names)}): {', '.join(system.coefficient_names)}",
        }
        if len(names) > 1
        else {"source": f"float32 (batch, {fields}{grid[0]}, {grid[1]}): {', '.join(system.inputs)}"},
        "outputs": {"solution": f"float32, on the grid of the source: {', '.join(system.outputs)}"},
        "units": (
            "those of the equation on the periodic unit square; value [i, j] of a field is at y = i / ny, x = j / nx"
            if system.is_known
            else "those of the fields that it was trained on, whose values stand in the order of theirs"
        )
        + f"; normalisation is part of the graph{'; a source has zero mean' if system.zero_mean else ''}",
        "fields": list(system.inputs),
        "coefficients": list(system.coefficient_names),
        "solutions": list(system.outputs),
        "grid": grid,
    }


def _difference(found: Any, expected: Tensor) -> float:
    """Largest relative difference over examples."""
    found, expected = (torch.as_tensor(each).double().reshape(len(expected), -1) for each in (found, expected))
    off = (found - expected).masked_fill(found == expected, 0)  # infinity is infinity
    return float((off.norm(dim=1) / expected.norm(dim=1).clamp(min=SMALLEST)).max())


def _bytes_of_onnx(translated: Any, said: dict[str, str], outer: Mapping[str, Sequence[int]] | None = None) -> bytes:
    """The file; the inputs named in ``outer`` are weights of these shapes in a file of their own."""
    model = translated.model
    for node in model.graph:  # where in whose files an operation was traced is for nobody to know
        node.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props.update(said)
    model.producer_name, model.producer_version = "sciml-fm", __version__
    proto, at = translated.model_proto, 0
    kept = [each for each in proto.graph.input if each.name not in (outer or {})]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    for name, shape in (outer or {}).items():
        size = 4 * math.prod(shape)
        weight = proto.graph.initializer.add(name=name, dims=shape, data_type=1, data_location=1)  # float32, external
        for key, value in {"location": "weights", "offset": at, "length": size}.items():
            weight.external_data.add(key=key, value=str(value))
        at += size
    return proto.SerializeToString()


def _simplify(model: Any) -> None:
    """Compute what is constant, unless it would take room: one matrix for each row of a grid, say."""
    from onnxscript.optimizer import optimize

    optimize(model, input_size_limit=8192, output_size_limit=8192)


def _session(content: bytes, names: list[str]) -> Callable[..., Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda *given: session.run(None, {name: each.numpy() for name, each in zip(names, given, strict=True)})


def _checked_path(path: str | Path) -> Path:
    path = user_path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"export {path}: expected a file name that ends in {' or '.join(SUFFIXES)}; choose another name"
        )
    check_output(path, new=False)
    if path.suffix == ".onnx":
        for package in PACKAGES:
            try:
                importlib.import_module(package)
            except ImportError:
                raise ValueError(
                    f"export {path}: expected the packages {', '.join(PACKAGES)}, got no {package}; "
                    "pip install 'sciml-fm[export]'"
                ) from None
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """No word of the exporter's own."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
