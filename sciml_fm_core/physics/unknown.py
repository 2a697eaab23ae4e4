"""Fields whose equation nobody says: examples that were measured, or solved by another program."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .parameter import Parameter
from .system import System


class UnknownSystem(System):
    """What maps given input fields and scalars to given output fields; it has names, and nothing else is known of it.

    It is in no registry: an operator that was trained on its examples holds the names. Two of the same names are equal.

    >>> own = UnknownSystem(["permeability"], ["pressure"])
    >>> own == UnknownSystem(["permeability"], ["pressure"]), own.input_axes
    (True, 2)

    Args:
        inputs, outputs: names of the fields.
        coefficient_names: names of the scalars of an example.
    """

    label = "DATA"
    title = "Given fields"
    equation = r"\text{not known}"
    coefficient_names = ()
    dialled = Parameter("number", 0, 1)
    is_known = False

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], coefficient_names: Sequence[str] = ()):
        said = {"inputs": tuple(inputs), "outputs": tuple(outputs), "coefficient_names": tuple(coefficient_names)}
        self.__dict__ |= said | {"name": f"{', '.join([*inputs, *coefficient_names])} to {', '.join(outputs)}"}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnknownSystem) and other._names == self._names

    def __hash__(self) -> int:
        return hash(self._names)

    @property
    def _names(self) -> tuple:
        return self.inputs, self.outputs, self.coefficient_names

    def dial(self, source: Tensor, coefficients: Tensor) -> Tensor:
        """Zeros: nothing is varied."""
        return coefficients.new_zeros(coefficients.shape[:-1])

    def solve(self, source: Tensor, coefficients: Tensor) -> Tensor:
        """Refused: there is no equation."""
        raise ValueError("system: the equation of given fields is not known; compare with solutions that are given")
