"""A computation as a graph of real operations: no transform, no complex number, any batch.

What PyTorch computes with complex numbers and `torch.fft` is traced, operation by operation, and run again with a pair
of real tensors in place of each complex one, and products with real matrices in place of transforms. So whatever the
package computes, an equation of somebody's own included, has a form for programs that know neither (ONNX, a browser).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

aten = torch.ops.aten


class Pair:
    """A complex tensor as two real ones."""

    def __init__(self, real: Any, imag: Any):
        self.real, self.imag = real, imag


def trace(function: Callable[..., Tensor], examples: Sequence[Sequence[Tensor]], whole: int) -> fx.GraphModule:
    """Operations of a function, for a batch of any size and, where it is asked for, for grids of any even size.

    It is traced with several sizes. A number that differs between them is a function of the size of the batch and of
    the points n of the grid, such as ``batch n^2`` or ``n / 2 + 1``, and is replaced by it.

    Args:
        function: of tensors.
        examples: its arguments with two sizes of a batch; then, where the grid is free, with the first of these on two
            finer grids. A field is the first argument that is one of a batch.
        whole: how many of the first arguments are no batch, such as weights.

    Raises:
        ValueError: if it does something else with a batch or a grid of another size.
    """
    graphs = [make_fx(torch.func.functionalize(function, remove="mutations"))(*each) for each in examples]
    first, batches = graphs[0], [each[whole].shape[0] for each in examples[:2]]
    points = [examples[0][whole].shape[-1], *(each[whole].shape[-1] for each in examples[2:])]
    targets = [[node.target for node in graph.graph.nodes] for graph in graphs]
    if any(each != targets[0] for each in targets):
        raise ValueError(
            "export: expected the same operations for every size of a batch and a grid; compute examples alike"
        )
    nodes = list(zip(*(list(graph.graph.nodes) for graph in graphs), strict=True))
    known: dict[str, fx.Node] = {}
    with first.graph.inserting_after(nodes[len(examples[0]) - 1][0]):
        for name, dim in (("points", -1), ("batch", 0)):
            known[name] = first.graph.call_function(aten.sym_size.int, (nodes[whole][0], dim))
    for same in nodes:
        node = same[0]
        if node.op == "get_attr" and len({getattr(g, n.target).shape for g, n in zip(graphs, same, strict=True)}) > 1:
            raise ValueError(
                "export: a tensor has the size of the batch or grid and is made without it; use new_ones and alike"
            )
        flat = [tree_flatten((each.args, each.kwargs)) for each in same]
        ours, form = flat[0]
        with first.graph.inserting_before(node):
            for place, values in enumerate(zip(*(each for each, _ in flat), strict=True)):
                if isinstance(values[0], int | float) and any(each != values[0] for each in values):
                    ours[place] = _number(first.graph, values, batches, points, known)
        node.args, node.kwargs = tree_unflatten(ours, form)
    first.graph.eliminate_dead_code()
    first.recompile()
    return first


def _number(graph: fx.Graph, values: Sequence[Any], batches: list[int], points: list[int], known: dict) -> Any:
    """What computes a number from the size of the batch and the points of the grid."""
    of_batch, of_points, call = values[:2], (values[0], *values[2:]), graph.call_function

    def total(*terms: Any) -> Any:
        return reduce(lambda a, b: call(operator.add, (a, b)), terms)

    if all(math.isnan(each) for each in values):
        return values[0]
    if not isinstance(values[0], int) or isinstance(values[0], bool):
        for power in (-1, -2, 1, 2):
            shares = [each / n**power for each, n in zip(of_points, points, strict=True)]
            if all(math.isclose(each, shares[0]) for each in shares) and of_batch[0] == of_batch[1]:
                return call(power_of, (known["points"], power, shares[0]))
        raise ValueError(
            f"export: expected a number that follows from the size of the grid, got {values}; compute it by tensors"
        )
    if len(set(of_points)) == 1:
        factor = (of_batch[1] - of_batch[0]) // (batches[1] - batches[0])
        return total(call(operator.mul, (known["batch"], factor)), values[0] - factor * batches[0])
    if of_batch[0] == of_batch[1] and len({a - _diagonal(n) for a, n in zip(of_points, points, strict=True)}) == 1:
        turned = total(call(operator.mul, (known["points"], _DIAGONAL[0])), _DIAGONAL[1] // 2)
        return total(call(operator.floordiv, (turned, _DIAGONAL[1])), values[0] - _diagonal(points[0]))
    by = 1 if of_batch[0] == of_batch[1] else batches[0]
    if by > 1 and of_batch[0] * batches[1] != of_batch[1] * batches[0]:
        raise ValueError(f"export: expected a multiple of the size of the batch, got {values}; compute examples alike")
    shares = _parabola(points, [Fraction(each, by) for each in of_points])
    whole = math.lcm(*(each.denominator for each in shares))
    powers = [1, known["points"], call(operator.mul, (known["points"], known["points"]))]
    terms = [call(operator.mul, (each, int(share * whole))) for each, share in zip(powers, shares, strict=True)]
    found = call(operator.floordiv, (total(*terms), whole))
    return found if by == 1 else call(operator.mul, (found, known["batch"]))


def power_of(n: int, power: int, factor: Tensor) -> Tensor:
    """``factor n^power`` as a tensor: as a number of ONNX it would be float32."""
    return factor * _whole(n, torch.float64) ** power


_DIAGONAL = (92682, 131072)
"""Their ratio is the root of a half: a wave of a grid of n points is not longer than n times it."""


def _diagonal(n: int) -> int:
    return (n * _DIAGONAL[0] + _DIAGONAL[1] // 2) // _DIAGONAL[1]


def _parabola(at: Sequence[int], values: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of 1, n and n^2 of the parabola through three values."""
    (a, b, c), (u, v, w) = at, values
    first = (v - u) / (b - a)
    second = ((w - v) / (c - b) - first) / (c - a)
    return [u - first * a + second * a * b, first - second * (a + b), second]


class RealParts(fx.Interpreter):
    """Runs a traced graph with pairs of real tensors in place of complex ones.

    The first run is to be with ordinary tensors: what depends on no argument is kept from it, and the matrices are.
    """

    def __init__(self, graph: fx.GraphModule):
        super().__init__(graph)
        self.kept: dict[Any, Any] = {}
        self.of_run: dict[Any, Any] = {}  # matrices, where the grid is free
        self.variable: set[fx.Node] = set()
        for node in graph.graph.nodes:
            spread = node.target == aten.expand.default  # as a constant it would be as large as what it is for
            if node.op == "placeholder" or spread or self.variable.intersection(node.all_input_nodes):
                self.variable.add(node)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Results for arguments, see `torch.fx.Interpreter.run`."""
        self.of_run.clear()
        return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node; as it was, where it depends on no argument."""
        if n in self.variable or n.op == "output":
            return super().run_node(n)
        return self._once(n, lambda: super(RealParts, self).run_node(n))

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def get_attr(self, target, args, kwargs):
        """A constant."""
        return _parts(super().get_attr(target, args, kwargs))

    def call_function(self, target, args, kwargs):
        """An operation, on pairs where it is one of complex numbers."""
        name = target.__name__.rpartition(".")[0] if isinstance(target, torch._ops.OpOverload) else ""
        kwargs = dict(kwargs)
        if target is power_of:
            args = (*args[:2], self._constant(args[2]))
        makes_complex = isinstance(kwargs.get("dtype"), torch.dtype) and kwargs["dtype"].is_complex
        if makes_complex:
            kwargs["dtype"] = torch.float64 if kwargs["dtype"] == torch.complex128 else torch.float32
        if name in _TRANSFORMS:
            return _TRANSFORMS[name](self, *args)
        args = tuple(_parts(each) if isinstance(each, complex) else each for each in args)
        flat = tree_flatten((args, kwargs))[0]
        if target is operator.getitem or not any(isinstance(each, Pair) for each in flat):
            if name in _OF_REAL:
                return _OF_REAL[name](*args, **kwargs)
            if name in _WITH_NUMBERS:
                args, kwargs, target = *self._in_double(args, kwargs), target.overloadpacket
                if "alpha" in kwargs:
                    args = args[0], args[1] * kwargs.pop("alpha")
            found = super().call_function(target, args, kwargs)
            return Pair(found, torch.zeros_like(found)) if makes_complex else found
        if name.endswith("_like") and kwargs.get("dtype") is not None and not makes_complex:  # a mask, say
            return super().call_function(target, _take(args, "real"), _take(kwargs, "real"))
        if name in _OF_PAIRS:
            return _OF_PAIRS[name](*args, **kwargs)
        if name not in _BY_PARTS:
            raise ValueError(f"export: {name or target} of complex numbers has no real form; write it with real ones")
        parts = [target(*_take(args, part), **_take(kwargs, part)) for part in ("real", "imag")]
        if isinstance(parts[0], Tensor):
            return Pair(*parts)
        return [Pair(*each) for each in zip(*parts, strict=True)]

    def _in_double(self, args: Any, kwargs: Any) -> tuple:
        """Numbers as tensors, of float64 beside tensors of that: ONNX would round them to float32, and 1e-300 to 0."""
        flat, form = tree_flatten((args, kwargs))
        kinds = [each.dtype for each in flat if isinstance(each, Tensor)]
        for place, each in enumerate(flat):
            if isinstance(each, torch.SymInt):
                flat[place] = _whole(each, kinds[0])
            elif isinstance(each, float) and torch.float64 in kinds:
                flat[place] = self._constant(each)
        return tree_unflatten(flat, form)

    def _constant(self, value: float) -> Tensor:
        return self._once(value, partial(torch.tensor, value, dtype=torch.float64))

    # Transforms ------------------------------------------------------------------------------------------------------

    def matrix(self, n: int, m: int, dtype: torch.dtype, back: Any = None, name: str = "") -> tuple[Tensor, Tensor]:
        """Cosine and sine of ``2 pi j k / n``, (n, m), for j < n and k < m, computed in float64.

        Where ``back`` is a factor, they are for the way back, (m, n), times that, and a wave stands for its conjugate.
        The factor has a name, since one that only a run knows cannot be told from others.
        """
        is_free = isinstance(n, torch.SymInt)
        kept, key = (self.of_run if is_free else self.kept), str((n, m, dtype, name))
        if key not in kept:
            points, waves = _whole(n, torch.int64), torch.arange(m)
            turned = (torch.outer(torch.arange(n), waves) % points).double() / points.double()
            angle = self._constant(2 * math.pi) * turned
            found = angle.cos(), angle.sin()
            if back is not None:
                alone = ((waves == 0) | (2 * waves == points)).double()
                found = tuple(((2 - alone) * back * each).mT for each in found)
            kept[key] = tuple(each.to(dtype) for each in found)
        return kept[key]

    def factor(self, scaling: int, sizes: list[int]) -> Any:
        """By which PyTorch multiplies a transform: 1, or for 1 over the root of its points, for 2 over their number."""
        if any(isinstance(each, torch.SymInt) for each in sizes):
            points = reduce(operator.mul, (_whole(each, torch.float64) for each in sizes))
            return [1, 1 / points.sqrt(), 1 / points][scaling]
        return math.prod(sizes) ** (-scaling / 2)

    def along(self, value: Any, dim: int, forward: bool) -> Pair:
        """Complex transform along a dimension, unscaled, of a pair or a real tensor."""
        real, imag = _pair(value).real, _pair(value).imag
        n, sign = real.shape[dim], 1 if forward else -1
        cosine, sine = self.matrix(n, n, real.dtype)
        found = Pair(_product(real, cosine, dim), -sign * _product(real, sine, dim))
        if not isinstance(value, Pair):
            return found
        turned = Pair(sign * _product(imag, sine, dim), _product(imag, cosine, dim))
        return Pair(found.real + turned.real, found.imag + turned.imag)

    def real_to_complex(self, value: Tensor, dims: list[int], scaling: int, onesided: bool) -> Pair:
        """``rfft`` along the last of some dimensions, complex transforms along the others."""
        last, sizes = dims[-1], [value.shape[dim] for dim in dims]
        n, waves = sizes[-1], sizes[-1] // 2 + 1 if onesided else sizes[-1]
        cosine, sine = self.matrix(n, waves, value.dtype)
        found = Pair(_product(value, cosine, last), -_product(value, sine, last))
        for dim in dims[:-1]:
            found = self.along(found, dim, forward=True)
        return _times(found, self.factor(scaling, sizes))

    def complex_to_complex(self, value: Pair, dims: list[int], scaling: int, forward: bool) -> Pair:
        """``fft`` or ``ifft`` along some dimensions."""
        factor = self.factor(scaling, [value.real.shape[dim] for dim in dims])
        for dim in dims:
            value = self.along(value, dim, forward)
        return _times(value, factor)

    def complex_to_real(self, value: Any, dims: list[int], scaling: int, n: int) -> Tensor:
        """``irfft`` along the last of some dimensions, where a wave stands for its conjugate, too."""
        last, dtype = dims[-1], value.real.dtype
        sizes = [*(value.real.shape[dim] for dim in dims[:-1]), n]
        factor = self.factor(scaling, sizes)
        for dim in dims[:-1]:
            value = self.along(value, dim, forward=False)
        cosine, sine = self.matrix(n, n // 2 + 1, dtype, factor, f"back {scaling} {sizes}")
        return _product(_pair(value).real, cosine, last) - _product(_pair(value).imag, sine, last)


def _whole(value: Any, dtype: torch.dtype) -> Tensor:
    """A whole number, which may be one that only a run knows, as a tensor."""
    return torch.scalar_tensor(value, dtype=dtype)


def _product(value: Tensor, matrix: Tensor, dim: int) -> Tensor:
    """Product with a matrix (n, m) along a dimension of n."""
    if dim % value.ndim == value.ndim - 1:
        return value @ matrix
    if dim % value.ndim == value.ndim - 2:
        return matrix.mT @ value
    return (value.movedim(dim, -1) @ matrix).movedim(-1, dim)


def _times(value: Pair, factor: Any) -> Pair:
    if isinstance(factor, Tensor):
        factor = factor.to(value.real.dtype)
    elif factor == 1:
        return value
    return Pair(value.real * factor, value.imag * factor)


def _parts(value: Any) -> Any:
    """Real and imaginary part of what is complex."""
    if isinstance(value, complex) or (isinstance(value, Tensor) and value.is_complex()):
        return Pair(value.real, value.imag)
    return value


def _take(values: Any, part: str) -> Any:
    flat, form = tree_flatten(values)
    return tree_unflatten([getattr(each, part) if isinstance(each, Pair) else each for each in flat], form)


# Of real numbers -----------------------------------------------------------------------------------------------------


def _frexp(x: Tensor) -> tuple[Tensor, Tensor]:
    exponent = torch.floor(torch.log2(x.abs().clamp(min=torch.finfo(x.dtype).tiny))) + 1
    return x / torch.exp2(exponent), exponent.to(torch.int32)


def _asinh(x: Tensor) -> Tensor:
    """ONNX Runtime has it in float32 only."""
    if x.dtype != torch.float64:
        return x.asinh()
    size = x.abs()
    return torch.where(x < 0, -1, 1) * torch.log(size + torch.sqrt(size * size + 1))


def _fftfreq(n: int, d: Any = 1.0, *, dtype: torch.dtype = torch.float32, **_: Any) -> Tensor:
    waves, points = torch.arange(n), torch.scalar_tensor(n, dtype=torch.int64)
    return torch.where(2 * waves >= points, waves - points, waves).to(dtype) / (points.to(dtype) * d)


_OF_REAL: dict[str, Callable[..., Any]] = {
    "fft_fftfreq": _fftfreq,
    "frexp": _frexp,
    "asinh": _asinh,
    "hypot": lambda a, b: _size(Pair(a, b)),
    "complex": Pair,
    "polar": lambda size, angle: Pair(size * angle.cos(), size * angle.sin()),
    "view_as_complex": lambda x: Pair(x.select(-1, 0), x.select(-1, 1)),
}

# Of pairs ------------------------------------------------------------------------------------------------------------


def _pair(value: Any) -> Pair:
    """What may be real as a pair."""
    if isinstance(value, Pair):
        return value
    return Pair(value, torch.zeros_like(value) if isinstance(value, Tensor) else 0)


def _add(a: Any, b: Any, *, alpha: Any = 1) -> Pair:
    a, b = _pair(a), _pair(b)
    return Pair(a.real + alpha * b.real, a.imag + alpha * b.imag)


def _multiply(a: Any, b: Any) -> Pair:
    if not isinstance(a, Pair):
        a, b = b, a
    if not isinstance(b, Pair):
        return Pair(a.real * b, a.imag * b)
    for one, other in ((a, b), (b, a)):
        if isinstance(one.real, float | int) and one.real == 0:  # 2 pi i, say
            return Pair(-one.imag * other.imag, one.imag * other.real)
    return Pair(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)


def _unit(a: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Parts over the larger of them, and that: squares of the parts neither overflow nor vanish."""
    largest = torch.maximum(a.real.abs(), a.imag.abs())
    divisor = torch.where(largest > 0, largest, 1)
    return a.real / divisor, a.imag / divisor, largest


def _size(a: Pair) -> Tensor:
    real, imag, largest = _unit(a)
    return torch.sqrt(real * real + imag * imag) * largest


def _inverse(a: Pair) -> Pair:
    real, imag, largest = _unit(a)
    square = (real * real + imag * imag) * largest
    return Pair(real / square, -imag / square)


def _divide(a: Any, b: Any) -> Pair:
    return _multiply(a, _inverse(b)) if isinstance(b, Pair) else Pair(a.real / b, a.imag / b)


def _power(a: Pair, exponent: int) -> Pair:
    if not isinstance(exponent, int) or exponent < 1:
        raise ValueError(f"export: expected a whole power of complex numbers, got {exponent}; use exp and log")
    found = a
    for _ in range(exponent - 1):
        found = _multiply(found, a)
    return found


def _exp(a: Pair) -> Pair:
    size = a.real.exp()
    return Pair(size * a.imag.cos(), size * a.imag.sin())


def _where(condition: Tensor, a: Any, b: Any) -> Pair:
    (ar, ai), (br, bi) = ((each.real, each.imag) for each in (_pair(a), _pair(b)))
    return Pair(torch.where(condition, ar, br), torch.where(condition, ai, bi))


def _masked_fill(a: Pair, mask: Tensor, value: Any) -> Pair:
    value = _pair(value)
    return Pair(a.real.masked_fill(mask, value.real), a.imag.masked_fill(mask, value.imag))


def _to_copy(a: Pair, *, dtype: torch.dtype | None = None, **_: Any) -> Pair:
    return a if dtype is None else Pair(a.real.to(dtype), a.imag.to(dtype))


def _put(scatter: Callable) -> Callable[..., Pair]:
    def put(a: Any, b: Any, *where: Any) -> Pair:
        a, b = _pair(a), _pair(b)
        return Pair(scatter(a.real, b.real, *where), scatter(a.imag, b.imag, *where))

    return put


_OF_PAIRS: dict[str, Callable[..., Any]] = {
    "add": _add,
    "sub": lambda a, b, *, alpha=1: _add(a, b, alpha=-alpha),
    "rsub": lambda a, b: _add(b, a, alpha=-1),
    "mul": _multiply,
    "div": _divide,
    "reciprocal": _inverse,
    "pow": _power,
    "abs": _size,
    "exp": _exp,
    "where": _where,
    "masked_fill": _masked_fill,
    "addcmul": lambda a, b, c, *, value=1: _add(a, _multiply(b, c), alpha=value),
    "eq": lambda a, b: (a.real == _pair(b).real) & (a.imag == _pair(b).imag),
    "ne": lambda a, b: (a.real != _pair(b).real) | (a.imag != _pair(b).imag),
    "real": lambda a: a.real,
    "imag": lambda a: a.imag,
    "view_as_real": lambda a: torch.stack([a.real, a.imag], dim=-1),
    "_conj": lambda a: Pair(a.real, -a.imag),
    "_conj_physical": lambda a: Pair(a.real, -a.imag),
    "resolve_conj": lambda a: a,
    "_to_copy": _to_copy,
    "select_scatter": _put(torch.select_scatter),
    "slice_scatter": _put(torch.slice_scatter),
    "copy": lambda a, b, *_: Pair(_pair(b).real.expand_as(a.real), _pair(b).imag.expand_as(a.imag)),
    "fill": lambda a, b: Pair(torch.full_like(a.real, _pair(b).real), torch.full_like(a.imag, _pair(b).imag)),
    "ones_like": lambda a, **_: Pair(torch.ones_like(a.real), torch.zeros_like(a.imag)),
    "sym_size": lambda a, dim: a.real.shape[dim],
    "_assert_tensor_metadata": lambda *_, **__: None,
}
"""Operations on complex numbers."""
_WITH_NUMBERS = frozenset(
    ("add", "sub", "mul", "div", "clamp", "masked_fill", "where", "lt", "gt", "le", "ge", "eq", "ne", "pow")
)
"""Operations of real tensors and numbers in which a number may be a tensor."""
_BY_PARTS = frozenset(
    (
        "alias", "cat", "clone", "constant_pad_nd", "detach", "expand", "flip", "index", "index_select", "mean", "neg",
        "lift_fresh_copy", "movedim", "narrow", "new_zeros", "pad", "permute", "reshape", "roll", "select", "slice",
        "split", "split_with_sizes", "squeeze", "stack", "sum", "t", "transpose", "unbind", "unsqueeze", "view",
        "zeros_like",        "_reshape_alias", "_unsafe_view",
    )
)  # fmt: skip
"""Operations that do to a complex tensor what they do to both of its parts."""
_TRANSFORMS: dict[str, Callable[..., Any]] = {
    "_fft_r2c": RealParts.real_to_complex,
    "_fft_c2c": RealParts.complex_to_complex,
    "_fft_c2r": RealParts.complex_to_real,
}
