"""Systems: what is solved.

A system names its fields and coefficients and what is varied, and says how examples are drawn and solved. A subclass
that has a `name` registers itself in `SYSTEMS`. Those that are solved by a Fourier symbol, as all of arXiv:2306.00258
are, derive from `spectral_system.SpectralSystem`.
"""

from __future__ import annotations

import re
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from sciml_fm_core.eager import known_values

from .examples import Examples
from .parameter import Parameter
from .probe import check_equation
from .sources import draw_amplitudes, normalize, render
from .spectral import broadcast_shapes, check_finite, check_tensor
from .symmetries import ELEMENTS, Geometry, turned_field

SYSTEMS: dict[str, System] = {}
"""The known systems by name: each subclass of `System` that declares a name registers itself."""

VARIANTS: dict[str, Callable[[System], System]] = {}
"""What makes another system of one, by what follows a label or name: ``SYS-1-DIRICHLET``, see `reflection`."""

PRETRAINING = "pre-training"
"""Name of the shift that is none: the range of the dial that operators are pre-trained on."""


class System(ABC):
    """A problem on the periodic unit square: from input fields and coefficients to output fields.

    A subclass declares the class attributes below and implements `solve`. Where the dial is no coefficient of that name
    it implements `dial` and `coefficients` too; where its inputs are no sums of Gaussians, `draw`; where one can be
    evaluated, a `residual`. One that has a Fourier symbol derives from `SpectralSystem`, which solves it.

    A system with one input field takes it as a ``source`` (..., ny, nx), one with p > 1 takes (..., p, ny, nx), in the
    order of `inputs`; and so for the solution and `outputs`.

    >>> import torch
    >>> from sciml_fm_core import Parameter, Task
    >>> class Product(System):
    ...     name, label, equation, coefficient_names = "product", "PROD", "u = c a b", ("c",)
    ...     inputs, dialled = ("a", "b"), Parameter("c", 1, 2)
    ...     def solve(self, source, coefficients):
    ...         return coefficients[..., 0, None, None] * source.prod(dim=-3)
    >>> examples = Task.parse("PROD(1,2)").sample(4, (12, 9), torch.Generator().manual_seed(0))
    >>> examples.source.shape, examples.solution.shape
    (torch.Size([4, 2, 12, 9]), torch.Size([4, 12, 9]))
    >>> del SYSTEMS["product"]
    """

    name: ClassVar[str]
    """Key in `SYSTEMS`."""
    label: ClassVar[str]
    """Label used in task names: ``SYS-1(1,5)``."""
    title: ClassVar[str] = ""
    """Name for a reader; the name itself where empty."""
    equation: ClassVar[str]
    """The equation solved, in LaTeX."""
    inputs: ClassVar[tuple[str, ...]] = ("source",)
    """Names of the input fields, in the order of files and tensors."""
    outputs: ClassVar[tuple[str, ...]] = ("solution",)
    """Names of the output fields."""
    coefficient_names: ClassVar[tuple[str, ...]]
    """Names of the coefficients, which are numbers; may be empty."""
    dialled: ClassVar[Parameter]
    """The physical parameter that tasks vary."""
    shifts: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType({})
    """Named ranges of the dial: ``pre-training``, then downstream ones, such as ``medium``. An equation that operators
    are to meet untrained has no ``pre-training``."""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    """What else fixes the coefficients, each drawn uniformly in its range."""
    constants: ClassVar[Mapping[str, float]] = MappingProxyType({})
    """Coefficients that are the same in every example, by name."""
    above_zero: ClassVar[tuple[str, ...]] = ()
    """Names of the coefficients that have to be above 0."""
    zero_mean: ClassVar[bool] = False
    """True when L annihilates constants: the source must have zero mean, the solution is given zero mean."""
    max_solution: ClassVar[float | None] = None
    """Rule of the paper's sampler: redraw an example while ``max |u|`` exceeds this; never applied by `solve`."""
    geometry: ClassVar[Geometry | None] = None
    """How coefficients and fields turn with the square, see `turned`; where None, only the identity is a symmetry."""
    kept_by: ClassVar[tuple[int, ...]] = tuple(range(ELEMENTS))
    """The elements of the square's symmetries that keep the form of an equation with a geometry."""
    is_known: ClassVar[bool] = True
    """Whether there is an equation, and not only examples, see `unknown.UnknownSystem`."""
    declared: ClassVar[tuple[str, ...]] = ("label", "equation", "coefficient_names", "dialled", "solve")
    """Names of the class attributes, and at last the method, that a subclass has to give."""

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "symbol" in cls.__dict__ and "symbol" not in cls.declared:
            raise TypeError(
                f"system {cls.__name__}: it gives a Fourier symbol; derive it from SpectralSystem, not System"
            )
        if "name" in cls.__dict__:
            _register(cls)

    @abstractmethod
    def solve(self, source: Tensor, coefficients: Tensor) -> Tensor:
        """Solution, in the dtype of the source, of input fields and coefficients (..., c); leading shapes broadcast."""

    def draw(self, dial: Tensor, parameters: Tensor, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Random input fields; sums of Gaussians as in the paper, each independent of the others and of the dial.

        Args:
            dial: value of the dialled parameter of each example, shape (count,), float64.
            parameters: values of `parameters`, shape (count, len(self.parameters)).
            grid: points (ny, nx).
            generator: the only source of randomness, on the device of the other arguments.

        Returns:
            Shape (count, ny, nx), or (count, p, ny, nx) of p > 1 `inputs`, in float32 or float64.
        """
        count, fields = len(dial), len(self.inputs)
        amplitudes = draw_amplitudes(torch.full((count * fields,), 0.5), generator).double()
        source = normalize(render(amplitudes, grid), zero_mean=self.zero_mean)
        return source.view(count, *([fields] if fields > 1 else []), *grid)

    def varied(self, source: Tensor, dial: Tensor) -> Tensor:
        """Input fields (..., p, ny, nx) like these at other values of the dial, shape (...)."""
        return source.expand(*dial.shape, *source.shape[-self.input_axes :])

    def on_square(self, source: Tensor, coefficients: Tensor, side: float) -> tuple[Tensor, Tensor]:
        """Input fields and coefficients of the same equation on a square of a side, in coordinates of the unit square.

        There ``-div(K grad u) = f`` reads ``-div(K / side^2 grad u) = f``.

        Raises:
            ValueError: if a system does not say it.
        """
        raise ValueError(f"system {self.name}: known on the unit square only; implement on_square")

    def residual(self, solution: Tensor, source: Tensor, coefficients: Tensor) -> Tensor:
        """Signed residual of the equation, zero of the exact solution.

        Raises:
            ValueError: where none can be evaluated.
        """
        raise ValueError(f"system {self.name}: no residual is known; compare with solutions, or implement residual")

    def dial(self, source: Tensor, coefficients: Tensor) -> Tensor:
        """Value of the dialled parameter, shape (...), of sources (..., n, n) with coefficients (..., c)."""
        return coefficients[..., self.coefficient_names.index(self.dial_name)]

    def coefficients(self, dial: Tensor, source: Tensor, parameters: Tensor) -> Tensor:
        """Coefficients (..., c) that give the asked dial values: by name, the dial, a parameter or a constant.

        Args:
            dial: value of the dialled parameter, shape (...).
            source: sources (..., n, n); used only where the dial depends on the solution.
            parameters: values of `parameters`, shape (..., len(self.parameters)).
        """
        known = {name: torch.full_like(dial, value) for name, value in self.constants.items()}
        known |= {p.name: parameters[..., i] for i, p in enumerate(self.parameters)} | {self.dial_name: dial}
        return torch.stack([known[name] for name in self.coefficient_names], dim=-1)

    def check_coefficients(self, coefficients: Tensor) -> None:
        """Raise ValueError when the operator is not defined for these coefficients: those `above_zero` have to be."""
        places = [self.coefficient_names.index(name) for name in self.above_zero]
        if places and not (coefficients[..., places] > 0).all():
            wanted = " and ".join(f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in self.above_zero)
            raise ValueError(f"coefficients: {self.name} expects {wanted} above 0")

    # What people are told -------------------------------------------------------------------------------------------

    @property
    def dial_name(self) -> str:
        """Name of the dialled parameter."""
        return self.dialled.name

    def equation_with(self, coefficients: Mapping[str, float]) -> str:
        """The equation with the values of its coefficients, in LaTeX."""
        names = {name: name.replace("_", r"\_") for name in coefficients}
        values = r",\; ".join(rf"\mathrm{{{names[name]}}} = {value:.4g}" for name, value in coefficients.items())
        return rf"{self.equation},\quad {values}" if values else self.equation

    # What a neural operator sees ------------------------------------------------------------------------------------

    @property
    def shared_names(self) -> tuple[str, ...]:
        """Names of the channels that stand for the coefficients in a model of several systems."""
        return self.coefficient_names

    def shared(self, coefficients: Tensor) -> Tensor:
        """Coefficients as the channels `shared_names`, shape (..., len(shared_names))."""
        return coefficients

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the dimensionless `features`."""
        return self.coefficient_names

    def features(self, coefficients: Tensor) -> Tensor:
        """Dimensionless numbers that fix the solution up to `scale`, shape (..., len(feature_names))."""
        return coefficients

    def scale(self, coefficients: Tensor) -> Tensor:
        """Typical size of a source over that of its solution, shape (...), where it is known; else 1."""
        return coefficients.new_ones(coefficients.shape[:-1])

    # Symmetries -----------------------------------------------------------------------------------------------------

    @property
    def symmetries(self) -> Tensor:
        """The elements of the square's symmetries that keep the form of the equation, see `physics.symmetries`."""
        return torch.tensor((0,) if self.geometry is None else self.kept_by, device="cpu")

    def turned(self, coefficients: Tensor, elements: Tensor) -> Tensor:
        """Coefficients (..., c) of the equation that turned fields solve, for elements that broadcast to (...).

        Raises:
            ValueError: on an element that is not among the `symmetries`.
        """
        if self.geometry is None:
            if elements.any():
                raise ValueError(f"{self.name}: expected the identity, 0; declare its geometry to turn it")
            return coefficients
        return self.geometry.turned(coefficients, elements, self.coefficient_names)

    def turned_examples(self, examples: Examples, elements: Tensor) -> Examples:
        """Solved examples, each turned by its own element (shape (count,)); the dial is the same.

        >>> poisson = SYSTEMS["poisson"]
        >>> wave = torch.cos(2 * torch.pi * torch.arange(8) / 8).expand(1, 8, 8)
        >>> coefficients = torch.tensor([[0.02, 0.01, 0.005]])
        >>> examples = Examples(wave, coefficients, poisson.solve(wave, coefficients), torch.ones(1))
        >>> turned = poisson.turned_examples(examples, torch.tensor([1]))  # x and y are exchanged
        >>> torch.allclose(turned.solution, poisson.solve(turned.source, turned.coefficients))
        True
        """
        return Examples(
            self.turned_fields(examples.source, elements, self.inputs),
            self.turned(examples.coefficients, elements),
            self.turned_fields(examples.solution, elements, self.outputs),
            examples.dial,
        )

    def turned_fields(self, fields: Tensor, elements: Tensor, names: tuple[str, ...]) -> Tensor:
        """Fields of these names, `inputs` or `outputs`, turned by elements (...), components of vectors included."""
        if len(names) == 1:
            return turned_field(fields, elements)
        turned = turned_field(fields, elements[..., None])
        if self.geometry is None:
            return turned
        return self.geometry.turned(turned.movedim(-3, -1), elements[..., None, None], names).movedim(-1, -3)

    # Shared by all systems ------------------------------------------------------------------------------------------

    @property
    def input_axes(self) -> int:
        """Axes of the input fields of one example: 2, or 3 where there are several."""
        return 2 + (len(self.inputs) > 1)

    @property
    def output_axes(self) -> int:
        """Axes of the output fields of one example."""
        return 2 + (len(self.outputs) > 1)

    def check(self, source: Tensor, coefficients: Tensor) -> None:
        """Raise ValueError on wrong shapes, non-finite values or coefficients that the equation is not defined for."""
        check_equation(self)
        check_tensor(source, "source")
        fields, ends = len(self.inputs), source.shape[-self.input_axes :]
        if len(ends) < self.input_axes or (fields > 1 and ends[0] != fields):
            raise ValueError(
                f"source: {self.name} expects {'a field (..., ny, nx)' if fields == 1 else f'(..., {fields}, ny, nx)'} "
                f"of {' '.join(self.inputs)}, got {tuple(source.shape)}"
            )
        if not source.is_floating_point():
            raise ValueError(f"source: expected a floating-point tensor, got {source.dtype}; pass source.float()")
        check_finite(source, "source")
        check_tensor(coefficients, "coefficients")
        count = len(self.coefficient_names)
        if coefficients.ndim < 1 or coefficients.shape[-1] != count:
            raise ValueError(
                f"coefficients: {self.name} expects shape (..., {count}) for {' '.join(self.coefficient_names)}, "
                f"got {tuple(coefficients.shape)}"
            )
        try:
            broadcast_shapes(source.shape[: -self.input_axes], coefficients.shape[:-1])
        except ValueError as error:
            raise ValueError(f"source and coefficients: {error}") from None
        check_finite(coefficients, "coefficients")
        if count and (values := known_values(coefficients)) is not None:
            self.check_coefficients(values)

    def check_mean(self, source: Tensor) -> None:  # noqa: B027 - most take any source
        """Raise ValueError where a source must have zero mean and has not."""

    def bad_row(self, coefficients: Tensor) -> tuple[int, str] | None:
        """The first of many rows (count, c) that `check_coefficients` turns away, and why."""
        try:
            self.check_coefficients(coefficients)
            return None
        except ValueError as error:
            for number, row in enumerate(coefficients):
                try:
                    self.check_coefficients(row)
                except ValueError:
                    return number, str(error)
            raise


def _register(cls: type[System]) -> None:
    """Check what a system declares, and enter it under its name.

    Raises:
        TypeError: if it lacks a declaration, or one is of no use.
    """
    where = f"system {cls.__name__}"
    missing = [
        name for name in cls.declared
        if getattr(cls, name, None) is None or getattr(getattr(cls, name), "__isabstractmethod__", False)
    ]  # fmt: skip
    if missing:
        *attributes, method = cls.declared
        raise TypeError(
            f"{where}: expected the class attributes {', '.join(attributes)} and a method {method}; "
            f"missing: {', '.join(missing)}"
        )
    if not re.fullmatch(r"[A-Za-z][\w-]*", cls.label) or not re.fullmatch(r"[A-Za-z][\w-]*", cls.name):
        raise TypeError(f"{where}: expected name and label of letters, digits, _ and -, got {cls.name!r} {cls.label!r}")
    for attribute in ("coefficient_names", "inputs", "outputs"):
        names = getattr(cls, attribute)
        if isinstance(names, str) or len(set(names)) < len(names):
            raise TypeError(f"{where}: expected {attribute} as a tuple of different names, got {names!r}")
    for shift, ends in cls.shifts.items():
        if not (len(ends) == 2 and ends[0] < ends[1]):
            raise TypeError(f"{where}: expected the shift {shift} as (low, high) with low < high, got {ends!r}")
    named = {*cls.coefficient_names, *cls.inputs, *cls.outputs}
    if cls.geometry is not None and (unknown := set(cls.geometry.names) - named):
        raise TypeError(
            f"{where}: its geometry names {', '.join(sorted(unknown))}, which is no coefficient and no field; "
            "correct it"
        )
    if cls.coefficients is System.coefficients:
        known = {*cls.constants, *(p.name for p in cls.parameters), cls.dialled.name}
        if lost := [name for name in cls.coefficient_names if name not in known]:
            raise TypeError(
                f"{where}: {', '.join(lost)} is neither the dial, a parameter nor a constant; "
                "declare it, or implement coefficients(dial, source, parameters)"
            )
    if cls.dial is System.dial and cls.dialled.name not in cls.coefficient_names:
        raise TypeError(
            f"{where}: the dial {cls.dialled.name!r} is no coefficient; implement dial(source, coefficients)"
        )
    for other in SYSTEMS.values():
        same = (type(other).__module__, type(other).__qualname__) == (cls.__module__, cls.__qualname__)  # run again
        if not same and {cls.name.lower(), cls.label.lower()} & {other.name.lower(), other.label.lower()}:
            raise TypeError(
                f"{where}: {cls.name} or {cls.label} is taken by {type(other).__name__}; choose another name"
            )
    SYSTEMS[cls.name] = cls()


def find_system(name: str) -> System:
    """System by its name (``poisson``) or label (``SYS-1``).

    >>> find_system("SYS-3").title
    'Helmholtz'
    >>> find_system("SYS-3-DIRICHLET").title
    'Helmholtz, u = 0 on the boundary'

    Raises:
        ValueError: if there is none, or no such variant of it.
    """
    asked = name.strip().lower()
    for system in SYSTEMS.values():
        for known in (system.name.lower(), system.label.lower()):
            if asked == known:
                return system
            if asked.startswith(f"{known}-") and asked.removeprefix(f"{known}-") in VARIANTS:
                return VARIANTS[asked.removeprefix(f"{known}-")](system)
    known = ", ".join(f"{system.name} ({system.label})" for system in SYSTEMS.values())
    raise ValueError(f"system: expected one of {known}, got {reprlib.repr(name)}")
