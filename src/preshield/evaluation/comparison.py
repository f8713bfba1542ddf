"""Figures sample by sample, and class by class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from .._core.text import printable
from .._core.typing import Array
from .documents import aligned
from .metrics import interval

__all__ = ["Comparison", "Comparisons", "PerClass"]


@dataclass(frozen=True)
class Comparison:
    """Two accuracies over the same samples.

    Attributes
    ----------
    names : tuple of str
        What is compared.
    accuracy : tuple of float
        Share of the samples that are right in each.
    first_only, second_only : int
        Samples that are right in one of them alone.
    p_value : float
        Of the exact test of McNemar 1947 (doi:10.1007/BF02295996): how likely two equally good rows would
        differ on these samples by as much, or more.
    """

    names: tuple[str, str]
    accuracy: tuple[float, float]
    first_only: int
    second_only: int
    p_value: float

    @classmethod
    def of(cls, first: str, first_right: Array, second: str, second_right: Array) -> Self:
        """Compare two masks of right samples, shape (N,)."""
        from scipy.stats import binomtest  # SciPy takes as long to load as the rest of the package

        ahead, behind = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
        p_value = float(binomtest(ahead, ahead + behind).pvalue) if ahead + behind else 1.0
        accuracy = float(first_right.mean()), float(second_right.mean())
        return cls((first, second), accuracy, ahead, behind, p_value)

    def __str__(self) -> str:
        """One sentence."""
        return printable(
            f"{self.names[0]} {self.accuracy[0]:.2f}, {self.names[1]} {self.accuracy[1]:.2f}: "
            f"{self.first_only} samples are right in the first alone, {self.second_only} in the second alone "
            f"(McNemar, p = {self.p_value:.2g})."
        )


class Comparisons(dict[str, Comparison]):
    """Comparisons by the name of the row; they print as a table."""

    def __str__(self) -> str:
        """The table with aligned columns."""
        head = ("Defence", "First", "Second", "First alone", "Second alone", "p (McNemar)")
        lines = [
            (
                name,
                *(f"{value:.2f}" for value in found.accuracy),
                str(found.first_only),
                str(found.second_only),
                f"{found.p_value:.2g}",
            )
            for name, found in self.items()
        ]
        return aligned([head, *lines])

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class PerClass:
    """Accuracies of each class.

    Attributes
    ----------
    classes : tuple of int
        The classes that occur.
    samples : tuple of int
        How many samples each has.
    accuracy : dict of str to tuple of float
        By column, one value for each class; "worst case" is the last.
    """

    classes: tuple[int, ...]
    samples: tuple[int, ...]
    accuracy: dict[str, tuple[float, ...]]

    @classmethod
    def of(cls, labels: Array, correct: Mapping[str, Array]) -> Self:
        """Average shares of right draws, shape (N,), over each class."""
        classes, samples = np.unique(labels, return_counts=True)
        accuracy = {
            name: tuple(float(right[labels == label].mean()) for label in classes)
            for name, right in correct.items()
        }
        return cls(tuple(map(int, classes)), tuple(map(int, samples)), accuracy)

    def __str__(self) -> str:
        """The table with aligned columns; brackets hold the 95% interval of the last one (Wilson)."""
        head = ("Class", "Samples", *(name.capitalize() for name in self.accuracy))
        lines = []
        for place, (label, samples) in enumerate(zip(self.classes, self.samples, strict=True)):
            values = [values[place] for values in self.accuracy.values()]
            low, high = interval(values[-1], samples)
            figures = [f"{value:.2f}" for value in values]
            figures[-1] += f" [{low:.2f}, {high:.2f}]"
            lines.append((str(label), str(samples), *figures))
        return aligned([head, *lines])

    __repr__ = __str__
