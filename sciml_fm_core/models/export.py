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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from sciml_fm_core._version import __version__
from sciml_fm_core.files import atomic_path, check_output, user_path
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.spectral import Resolution, grid_shape, grid_text, inverse_transform, transform
from sciml_fm_core.physics.spectral_system import is_spectral
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task

from .packed import halved_names
from .predict import apply_operators
from .real_parts import RealParts, trace
from .steps import ADVANCED, BEGUN, advance, begun, joined, steps_alike, taken

if TYPE_CHECKING:
    from .operator import Operator

OPSET = 20
"""Version of ONNX's operators that is written; the first with a GELU."""
LARGEST_DIFFERENCE = 1e-5
"""Relative difference to PyTorch above which nothing is written, unless PyTorch itself is half as far from float64."""
SMALLEST = 1e-7
"""Sizes below it are rounding."""
CHECKED = 5
"""Random examples that a file is checked with."""
ANY = "any"
"""In place of a resolution: the file is for all square grids of an even number of points."""
COARSEST = 16
"""Points of the coarsest grid of such a file, of a solver."""
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
    """A traced computation with its weights as buffers; of any even grid, where examples are given on three grids."""

    def __init__(
        self,
        function: Callable[..., Any],
        weights: Mapping[str, Tensor],
        halved: Sequence[str],
        grids: Sequence[Sequence[Tensor]],
    ):
        super().__init__()
        self.names = {key: key.replace(".", "_") for key in weights}
        values = [value.half().float() if key in halved else value for key, value in weights.items()]
        for key, value in zip(weights, values, strict=True):
            self.register_buffer(self.names[key], value.half() if key in halved else value)

        def computed(*given: Tensor) -> Any:
            with torch.no_grad():
                return function(dict(zip(weights, given, strict=False)), *given[len(weights) :])

        traced = [[each[:2] for each in grids[0]], [each[:3] for each in grids[0]]]
        traced += [[each[:2] for each in finer] for finer in grids[1:3]]
        graph = trace(computed, [[*values, *given] for given in traced], len(weights))
        self.interpreter = [RealParts(graph)]  # in a list: it is no part of the module
        self(*grids[0])  # see RealParts

    def forward(self, *given: Tensor) -> Any:
        weights = [getattr(self, name).float() for name in self.names.values()]
        return self.interpreter[0].run(*weights, *given, enable_io_processing=False)


def export_operator(
    operator: Operator,
    path: str | Path,
    system: System | str | None = None,
    resolution: Resolution | str | None = None,
    weights: str = "float32",
) -> Exported:
    """Write an operator on one grid or any, for any number of examples; see `Operator.export`."""
    path, known = _checked_path(path, resolution), operator.normalization.resolve(system)
    if weights not in ("float32", "float16"):
        raise ValueError(f"weights: expected float32 or float16, got {weights!r}; choose one of them")
    least, resolution = operator.model.smallest_grid, 128 if resolution is None else resolution
    if not isinstance(resolution, str) and min(grid_shape(resolution)) < least:
        raise ValueError(
            f"resolution: this operator expects at least {least} points in each direction, got "
            f"{grid_text(resolution)}; choose a finer grid"
        )
    rounded = operator.copy()
    rounded.model = rounded.model.plain()
    function, state = network_of(operator, known)
    halved = halved_names(state, f"export {path}") if weights == "float16" else []
    grids = [_examples(operator, known, each) for each in _grids(resolution, least)]
    about = {
        "what": "operator", "card": operator.card, "weights": weights, "operator_digest": operator.digest,
    }  # fmt: skip
    with torch.no_grad():
        for key in halved:
            parameter = rounded.model.get_parameter(key.removeprefix("model."))
            parameter.copy_(parameter.half())
    expected = [[each.predict(given[0], given[1], known) for each in (rounded, operator)] for given in grids]
    doubled = {key: value.double() for key, value in state.items()}
    with torch.no_grad():
        own = [function(doubled, given[0].double(), given[1].double()) for given in grids]
    off = max(_difference(found, exact) for (_, found), exact in zip(expected, own, strict=True))
    return _written(path, function, state, halved, known, grids, expected, about, max(LARGEST_DIFFERENCE, 2 * off))


def _grids(resolution: Resolution | str, least: int) -> list[Resolution]:
    """Grids to trace and to check with: one, or where all are meant three to trace with, and one more."""
    even = least + least % 2
    return [resolution] if not isinstance(resolution, str) else [even, even + 2, even + 10, 2 * even + 6]


def network_of(operator: Operator, system: System) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """`predict` without its checks, as a function of weights, source and coefficients; and the weights, in float32."""
    plain = operator.copy().to("cpu")
    plain.model = plain.model.plain().float()
    net = _Net(plain, system)

    def function(given: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        return torch.func.functional_call(net, given, inputs)

    return function, {key: value.detach() for key, value in net.named_parameters()}


def export_solver(system: System, path: str | Path, resolution: Resolution | str | None = None) -> Exported:
    """Write the exact solver of an equation with a Fourier symbol, for any number of examples.

    Args:
        system: such as ``find_system("poisson")``.
        path: file to write, ``*.onnx`` or ``*.pt2``.
        resolution: points n in each direction, an even number; ``"any"`` for a file that takes all of these; 128 where
            None.

    Raises:
        ValueError: if no symbol solves the system, the grid is not one of its, packages are missing, or the file does
            not agree with `System.solve`.
    """
    path, resolution = _checked_path(path, resolution), 128 if resolution is None else resolution
    known: Any = system
    stepped = steps_alike(system) and not known.mode_by_mode
    if not (stepped or (is_spectral(system) and known.mode_by_mode)):
        raise ValueError(
            f"export: expected a system that a Fourier symbol solves, or an evolution of one field whose steps are all "
            f"alike, got {system.name}; export an operator"
        )
    if stepped and (isinstance(resolution, str) or path.suffix != ".onnx"):
        raise ValueError(
            f"export {path}: a step of an evolution is a loop, which is written as ONNX and for one grid, got "
            f"{resolution}; choose .onnx and a number of points"
        )
    if not isinstance(resolution, str):
        ny, nx = grid_shape(resolution)
        if ny != nx or ny % 2 or ny < 4:
            raise ValueError(
                f"resolution: expected an even number of points from 4 on, such as 128, got {grid_text(resolution)}"
            )

    def function(_: dict[str, Tensor], source: Tensor, coefficients: Tensor) -> Tensor:
        n = source.shape[-1]
        return inverse_transform(known.solve_hat(transform(source), coefficients, n), n)

    grids = [_examples(None, system, each) for each in _grids(resolution, COARSEST)]
    expected = [[system.solve(*given)] * 2 for given in grids]
    about = {"what": "solver", "card": {}}
    if stepped:
        return _checked(path, _steps(known, *grids[0]), system, grids, expected, about)
    return _written(path, function, {}, [], system, grids, expected, about)


def _steps(system: Evolution, source: Tensor, coefficients: Tensor) -> Callable[[dict[str, str]], bytes]:
    """What makes the bytes of a step of an evolution, see `steps`."""
    import onnx

    def model(function: Callable[..., Any], given: dict[str, Tensor], results: Sequence[str]) -> Any:
        graph = _Graph(function, {}, [], [list(given.values())]).eval()
        translated = _translated(_program(graph, [list(given.values())]), list(given), list(results))
        _simplify(translated.model)
        return onnx.load_from_string(_bytes_of_onnx(translated, {}))

    needed, begin, given = taken(system), begun(system), {"source": source, "coefficients": coefficients}
    state, _, *found = begin({}, source, coefficients)
    inner = {"state": state, "coefficients": coefficients.double()} | dict(zip(needed, found, strict=True))
    outer = model(begin, given, [*BEGUN, *needed])
    whole = joined(outer, model(advance(system, source.shape[-1]), inner, ADVANCED), needed)

    def content(said: dict[str, str]) -> bytes:
        onnx.helper.set_model_props(whole, said)
        return whole.SerializeToString()

    return content


class _Net(nn.Module):
    """`predict` without its checks, as a module: its parameters are those of the network."""

    def __init__(self, operator: Operator, system: System):
        super().__init__()
        self.model, self.operator, self.system = operator.model, operator, system

    def forward(self, source: Tensor, coefficients: Tensor | None = None) -> Tensor:
        if coefficients is None:
            coefficients = source.new_empty(source.shape[0], 0)
        return apply_operators([self.operator], self.system, source, coefficients)[0]


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


def _written(path, function, state, halved, system, grids, expected, about, largest=LARGEST_DIFFERENCE) -> Exported:
    """Trace, translate, check, and only then write."""
    names = _names(system)
    inputs = [examples[: len(names)] for examples in grids]
    program = _program(_Graph(function, state, halved, inputs).eval(), inputs)
    if path.suffix == ".onnx":
        translated = _translated(program, names, ["solution"])
        _simplify(translated.model)
        return _checked(path, partial(_bytes_of_onnx, translated), system, grids, expected, about, largest=largest)

    def content(said: dict[str, str]) -> bytes:
        buffer = io.BytesIO()
        with _quiet():
            torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(said)})
        return buffer.getvalue()

    run = lambda *given: [program.module()(*given)]  # noqa: E731
    return _checked(path, content, system, grids, expected, about, run, largest)


def _names(system: System) -> list[str]:
    return ["source", "coefficients"][: 2 if system.coefficient_names else 1]


def _checked(path, content, system, grids, expected, about, run=None, largest=LARGEST_DIFFERENCE) -> Exported:
    """Write what is made of metadata, if it solves the examples as is expected."""
    names = _names(system)
    run, difference, rounding = run or _session(content({}), names), 0.0, 0.0
    with torch.no_grad():
        for examples, (ours, unrounded) in zip(grids, expected, strict=True):
            given = examples[: len(names)]
            (found,), (alone,) = run(*given), run(*(each[:1] for each in given))
            difference = max(difference, _difference(found, ours), _difference(alone, ours[:1]))
            rounding = max(rounding, _difference(found, unrounded))
    _check_difference(path, difference, largest)
    said = {key: json.dumps(value) for key, value in (_about(system, grids, names) | about).items()}
    made = content(said | {"difference": json.dumps(difference)})
    with atomic_path(path) as partial_path:
        partial_path.write_bytes(made)
    return Exported(path, difference, rounding, len(made))


def export_function(
    function: Callable[..., Sequence[Tensor]],
    path: str | Path,
    given: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    results: Sequence[str],
    weights: Mapping[str, Tensor] | None = None,
    largest: float = LARGEST_DIFFERENCE,
) -> float:
    """Write a computation as ONNX whose weights are in a file of their own, so that others can take their place.

    Args:
        function: of a dictionary of weights and of the inputs; it gives the results. Of each of these the first axis is
            that of the examples, whose number is free.
        path: file to write, ``*.onnx``.
        given: inputs to trace and to check with, by name, of at least three examples; or several of these, on three
            grids to trace with and others to check with, for a file that takes any even grid.
        results: names of what the function gives.
        weights: float32, by name. They are looked for in a file called ``weights``, one after another in this order.
        largest: the difference above which nothing is written.

    Returns:
        The largest relative difference to PyTorch, of the examples and the results that are floating-point numbers.

    Raises:
        ValueError: as `Operator.export`.
    """
    path, weights = _checked_path(path), dict(weights or {})
    sets = [given] if isinstance(given, Mapping) else given
    names, inputs = [*sets[0]], [list(each.values()) for each in sets]
    graph = _Graph(function, weights, [], inputs).eval()
    translated = _translated(_program(graph, inputs), names, list(results))
    outer = [translated.model.graph.initializers[name] for name in graph.names.values()]
    for value in outer:  # as inputs they are left alone where constants are computed
        del translated.model.graph.initializers[value.name]
        translated.model.graph.inputs.append(value)
    _simplify(translated.model)
    run = _session(_bytes_of_onnx(translated, {}), [*names, *graph.names.values()])
    difference = 0.0
    with torch.no_grad():
        for each in inputs:
            found, expected = run(*each, *weights.values()), function(weights, *each)
            difference = max(difference, *(_difference(a, b) for a, b in zip(found, expected, strict=True)))
    _check_difference(path, difference, largest)
    content = _bytes_of_onnx(translated, {}, {graph.names[key]: value.shape for key, value in weights.items()})
    with atomic_path(path) as partial:
        partial.write_bytes(content)
    return difference


def _program(graph: _Graph, grids: Sequence[Sequence[Tensor]]) -> Any:
    """Program for any batch; and for any even grid, where there are examples on several."""
    batch, half = torch.export.Dim("batch", min=1), torch.export.Dim("half", min=2)
    shapes: list[dict[int, Any]] = [{0: batch} for _ in grids[0]]
    for dims, *values in zip(shapes, *grids, strict=True):
        for axis in range(1, values[0].ndim):
            if len({each.shape[axis] for each in values}) > 1:
                dims[axis] = half + 1 if axis == values[0].ndim - 2 and values[0].shape[-1] == 2 else 2 * half
    with _quiet(), torch.no_grad():
        return torch.export.export(graph, tuple(grids[0]), dynamic_shapes=(tuple(shapes),), strict=False)


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


def _about(system: System, grids: list[list[Tensor]], names: list[str]) -> dict[str, Any]:
    """What a reader of the file needs to know."""
    grid = ["n", "n"] if len(grids) > 1 else list(grids[0][0].shape[-2:])
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
        "coarsest": list(grids[0][0].shape[-2:]),
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

    with _quiet():
        optimize(model, input_size_limit=8192, output_size_limit=8192)


def _session(content: bytes, names: list[str]) -> Callable[..., Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda *given: session.run(None, {name: each.numpy() for name, each in zip(names, given, strict=True)})


def _checked_path(path: str | Path, resolution: Resolution | str | None = None) -> Path:
    path = user_path(path)
    if isinstance(resolution, str) and resolution != ANY:
        raise ValueError(f"resolution: expected a number of points, a pair of them or {ANY!r}, got {resolution!r}")
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
