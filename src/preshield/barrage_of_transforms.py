"""A random selection of defences in a random order."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ._core.checks import check_integer
from ._core.draws import Draws
from ._core.errors import ArgumentError
from ._core.typing import Rng
from .random_stages import _RandomStages

__all__ = ["BarrageOfTransforms"]

PAPER = "https://doi.org/10.1109/CVPR.2019.00669"
ATTACKS = (
    (
        "Sitawarin, Golan-Strieb, Wagner 2022 (arXiv:2207.03574): stronger gradients than BPDA, and a loss "
        "averaged over transformations: accuracy 83% lower on Imagenette"
    ),
)


class BarrageOfTransforms(_RandomStages):
    """Pass each sample through a random selection of defences, in a random order [1]_.

    Parameters
    ----------
    defences : list of Preprocessor
        What is selected from, preshield's or ART's; each is applied whatever its own `apply_fit` and
        `apply_predict` say.
    count : int or tuple of int, optional
        How many of them a sample passes, or the least and the largest number, between which all are as
        likely. None stands for all of them, in a random order.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    rng : None, int or numpy.random.Generator, optional
        Source of all draws, those of the defences included. None leaves these to the defences, and takes its
        own draws from NumPy's global state.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if a defence changes shapes or labels, or mixes samples; if no domain
        is common to all.

    Notes
    -----
    Every sample has a selection and an order of its own. The authors select up to 10 of 10 groups of
    transformations, whose parameters are drawn as well, and train the network on them. Here a defence has the
    parameters that it is made with; one that draws its own, such as `CropRescale` or noise, goes on drawing.

    Domains, types and gradients are those of the defences: the gradient goes through what a sample has
    passed, at the points that the forward pass visited. `frozen` fixes all draws. On accelerators and in
    compiled programs each step computes every defence.

    References
    ----------
    .. [1] Raff, Sylvester, Forsyth, McLean. Barrage of Random Transforms for Adversarially Robust Defense.
       CVPR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import BarrageOfTransforms, CropRescale, FeatureSqueezing, GaussianBlur
    >>> some = [CropRescale(6), FeatureSqueezing((0, 1), bit_depth=3), GaussianBlur(3)]
    >>> x = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)
    >>> defended = BarrageOfTransforms(some, count=(1, 2), rng=0).transform(x)
    >>> defended.shape
    (4, 8, 8, 3)
    """

    def __init__(
        self,
        defences: list[Any] | tuple[Any, ...],
        count: int | tuple[int, int] | None = None,
        apply_fit: bool = True,
        apply_predict: bool = True,
        *,
        rng: Rng = None,
    ) -> None:
        super().__init__(defences, apply_fit, apply_predict, rng)
        self.count = count
        least, most = self._counts
        check_integer("count", least, 0, len(defences))
        check_integer("count", most, 0, len(defences))
        if least > most:
            raise ArgumentError(f"`count` must have its smaller number first, got {count!r}.")

    @property
    def paper(self) -> str:  # type: ignore[override]
        """The paper that proposed it, and those of the defences."""
        return f"{PAPER}, {self._papers}"

    @property
    def known_attacks(self) -> tuple[str, ...]:  # type: ignore[override]
        """Known attacks on it, and on the defences."""
        return (*ATTACKS, *self._attacks)

    @property
    def _counts(self) -> tuple[int, int]:
        """The least and the largest number of defences."""
        if isinstance(self.count, tuple | list):
            if len(self.count) != 2:
                raise ArgumentError(f"`count` must be one integer or a pair of them, got {self.count!r}.")
            return self.count[0], self.count[1]
        count: Any = len(self._stages) if self.count is None else self.count
        return count, count

    @property
    def _steps(self) -> int:
        return int(self._counts[1])

    @property
    def _plan(self) -> Callable[[Any, Draws], Any]:
        least, most = map(int, self._counts)
        return partial(_selected, stages=len(self._stages), least=least, most=most)


def _selected(samples: Any, rng: Draws, stages: int, least: int, most: int) -> Any:
    """Which stages each sample passes, in which order."""
    xp: Any = rng.xp
    order = xp.argsort(rng.random((samples, stages), "float32"), axis=1, stable=True)[:, :most]
    count = rng.integers(least, most + 1, (samples, 1))
    step = xp.argsort(xp.zeros_like(order), axis=1, stable=True)
    return xp.where(step < count, order, xp.full_like(order, -1))
