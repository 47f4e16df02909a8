"""The ``reduction`` of a loss: its mean, or the sum and the count that the mean is made of."""

from collections.abc import Callable
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from torch import Tensor

from semiseg.contracts.training import SumCount

Reduction = Literal["mean", "sum_count"]

P = ParamSpec("P")
Mean = TypeVar("Mean", covariant=True)
Parts = TypeVar("Parts", covariant=True)


class Reducible(Protocol[P, Mean, Parts]):
    """A loss whose result depends on the keyword ``reduction``."""

    @overload
    def __call__(self, *args: Any, reduction: Literal["sum_count"], **kwargs: Any) -> Parts: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Mean: ...


def reducible(
    mean: type[Mean], parts: type[Parts]
) -> Callable[[Callable[P, Any]], Reducible[P, Mean, Parts]]:
    """Return a decorator that says what a loss returns for both reductions; it leaves the function as it is.

    Args:
        mean: type of the result for ``"mean"``.
        parts: type of the result for ``"sum_count"``.
    """
    return lambda loss: cast(Any, loss)


def reduced(parts: SumCount, reduction: Reduction) -> Tensor | SumCount:
    """Return the mean or its parts."""
    return parts.mean if reduction == "mean" else parts
