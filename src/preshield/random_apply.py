"""Defences that are applied by chance."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ._core.checks import check_bool, check_number
from ._core.draws import Draws
from ._core.typing import Rng
from .preprocessor import Preprocessor
from .random_stages import _RandomStages

__all__ = ["RandomApply"]


class RandomApply(_RandomStages):
    """Apply each of some defences to a sample with some probability.

    Parameters
    ----------
    defences : Preprocessor or list of Preprocessor
        One, or several that are drawn independently of one another, preshield's or ART's. Each is applied
        whatever its own `apply_fit` and `apply_predict` say.
    probability : float, default 0.5
        With which a sample passes each of them.
    random_order : bool, default False
        Whether those that a sample passes come in a random order, for each sample another.
    apply_fit : bool, default False
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
    The facts are those of the defences, but that it is stochastic. A sample that passes one has the draw that
    it would have there alone, and the gradient goes through those that it has passed, at the points that the
    forward pass visited. `frozen` fixes all draws. All samples come in the dtype that a `Chain` of the
    defences would return.

    An attacker should average the gradient over draws (`eot` of `evaluate`). What is applied by chance is no
    stronger than what the strongest attack on all outcomes at once leaves.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import FeatureSqueezing, RandomApply
    >>> x = np.full((6, 1), 0.3, dtype=np.float32)
    >>> RandomApply(FeatureSqueezing((0, 1), bit_depth=1), 0.5, rng=0).transform(x).ravel()
    array([0. , 0.3, 0.3, 0. , 0. , 0.3], dtype=float32)
    """

    def __init__(
        self,
        defences: Any,
        probability: float = 0.5,
        random_order: bool = False,
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        rng: Rng = None,
    ) -> None:
        check_number("probability", probability, 0, 1)
        check_bool(random_order=random_order)
        super().__init__(_listed(defences), apply_fit, apply_predict, rng)
        self.probability = probability
        self.random_order = random_order

    @property
    def paper(self) -> str:  # type: ignore[override]
        """Papers of the defences."""
        return self._papers

    @property
    def known_attacks(self) -> tuple[str, ...]:  # type: ignore[override]
        """Known attacks on the defences."""
        return self._attacks

    @property
    def _plan(self) -> Callable[[Any, Draws], Any]:
        return partial(
            _by_chance,
            stages=self._steps,
            probability=float(self.probability),
            random_order=bool(self.random_order),
        )

    def _candidates(self, step: int) -> range:
        return range(self._steps) if self.random_order else range(step, step + 1)


def _by_chance(samples: Any, rng: Draws, stages: int, probability: float, random_order: bool) -> Any:
    """Which stages each sample passes, in which order."""
    xp: Any = rng.xp
    words = rng.random((samples, 2 * stages), "float32")
    places = words[:, stages:] if random_order else xp.zeros_like(words[:, stages:])
    order = xp.argsort(places, axis=1, stable=True)
    return xp.where(words[:, :stages] < probability, order, xp.full_like(order, -1))


def _listed(defences: Any) -> Any:
    return [defences] if isinstance(defences, Preprocessor) else defences
