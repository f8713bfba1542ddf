"""A batch under attack: what an attack can ask of the defended classifier, and what it draws."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from .._core.draws import Draws
from .._core.typing import Array, Seed
from .losses import Loss
from .perturbations import places, take

if TYPE_CHECKING:
    from .defended import DefendedModel

__all__ = ["Look", "Oracle"]

OF_LOOK, OF_ATTACK, OF_MARGIN = range(3)  # what draws are for


class Look(NamedTuple):
    """What a forward and a backward pass tell about `n` points.

    Attributes
    ----------
    margin : ndarray of float, shape (n,)
        By how much the label exceeds the best other class, at the draw of a stochastic defence where that is
        largest: negative where every draw is wrong.
    mean : ndarray of float, shape (n,)
        The same, averaged over the draws.
    scores : ndarray of float, shape (n, K)
        Logits or log-probabilities, averaged over the draws.
    values : ndarray of float, shape (n,)
        The loss that was asked for, averaged over the draws.
    factors : ndarray of float, shape (n,)
        What `gradient` must be multiplied by to be the gradient: that of a model which is sure of itself
        would not fit its floating type.
    gradient : array, like the points
        Gradient of the loss, averaged over the draws, but for that factor.
    """

    margin: Array
    mean: Array
    scores: Array
    values: Array
    factors: Array
    gradient: Any


class Oracle:
    """Samples, their labels and numbers, behind a defended classifier.

    What is drawn for a sample, by the defence or by the attack, depends on the seed, on the number of the
    sample in the data set and on how often it was asked before: not on the batch that it is in.

    Parameters
    ----------
    model : DefendedModel
        The classifier behind its defence.
    x : array, shape (N, ...)
        Samples, as `model.array` returns them.
    y : ndarray of int, shape (N,)
        Labels.
    numbers : ndarray of int, shape (N,)
        Numbers of the samples in the data set.
    seed : tuple of int
        Seed of all that is random.

    Attributes
    ----------
    forward, backward : ndarray of int, shape (N,)
        Passes of the classifier that each sample has cost.
    """

    def __init__(
        self, model: "DefendedModel", x: Any, y: Array, numbers: Array, seed: tuple[int, ...]
    ) -> None:
        self.model = model
        self.x, self.y, self.numbers = x, y, np.asarray(numbers, np.uint32)
        self.clip_values = model.clip_values
        self.nb_classes = model.nb_classes
        self.stochastic = model.stochastic
        self.forward, self.backward = np.zeros(len(x), np.int64), np.zeros(len(x), np.int64)
        self._seed = seed
        self._asked = np.zeros((3, len(x)), np.int64)

    def __len__(self) -> int:
        return len(self.y)

    def look(self, points: Any, rows: Array, loss: Loss, targets: Array | None = None) -> Look:
        """Margin, scores and the gradient of a loss at `points`, perturbed samples of these rows.

        One pass forward and one backward for each draw. `targets` are those of the loss, shape (n,).
        """
        self.forward[rows] += self.model.draws
        self.backward[rows] += self.model.draws
        parts, seen = [], []
        for some, seed in self._addresses(rows, OF_LOOK):
            of, aims = rows[some], None if targets is None else targets[some]
            parts.append(self.model.look(take(points, some), self.y[of], loss, aims, self.numbers[of], seed))
            seen.append(some)
        if len(parts) == 1:
            return parts[0]
        order, xp = np.unique(np.concatenate(seen), return_index=True)[1], array_namespace(points)
        *small, gradients = zip(*parts, strict=True)
        joined = (np.concatenate(values)[order] for values in small)
        return Look._make((*joined, take(xp.concat(list(gradients)), order)))

    def margin(self, points: Any, rows: Array) -> Array:
        """Largest margin over twice the draws at `points`, shape (n,): negative if every draw is wrong.

        The first draw that is right decides.
        """
        return self._margins("margin", points, rows)

    def mean_margin(self, points: Any, rows: Array) -> Array:
        """Margin at `points`, averaged over the draws."""
        return self._margins("mean_margin", points, rows)

    def median_margin(self, points: Any, rows: Array) -> Array:
        """Median margin at `points` over twice the draws: negative if most of them are wrong."""
        return self._margins("median_margin", points, rows)

    def random(self, rows: Array) -> Any:
        """Uniform numbers on [0, 1), like the samples of these rows."""
        return self._drawn(rows, lambda draws, shape: draws.random(shape, np.float32))

    def standard_normal(self, rows: Array) -> Any:
        """Normal numbers, like the samples of these rows."""
        return self._drawn(rows, lambda draws, shape: draws.standard_normal(shape, np.float32))

    def seed(self) -> int:
        """A seed for an attack that draws for each sample by its number itself."""
        return int(key((*self._seed, OF_ATTACK), 1)[0])

    def _margins(self, kind: str, points: Any, rows: Array) -> Array:
        margins = np.empty(len(rows))
        for some, seed in self._addresses(rows, OF_MARGIN):
            of = rows[some]
            margins[some], passes = getattr(self.model, kind)(
                take(points, some), self.y[of], self.numbers[of], seed
            )
            self.forward[of] += passes
        return margins

    def _drawn(self, rows: Array, draw: Callable[[Draws, Any], Array]) -> Any:
        values = np.empty((len(rows), *self.x.shape[1:]), np.float32)
        for some, seed in self._addresses(rows, OF_ATTACK):
            draws = Draws(key(seed), self.numbers[rows[some]])
            values[some] = draw(draws, values[some].shape)
        xp = array_namespace(self.x)
        return xp.asarray(values, dtype=self.x.dtype, device=device(self.x))

    def _addresses(self, rows: Array, purpose: int) -> Iterator[tuple[Array, tuple[int, ...]]]:
        """Rows that have been asked equally often, and the seed of what they draw next.

        Margins are counted from the last look on: rows of which some margins were asked are in step again at
        the next look, and go through the model together.
        """
        counted = [OF_LOOK, OF_MARGIN] if purpose == OF_MARGIN else [purpose]
        asked = self._asked[counted][:, rows]
        self._asked[purpose, rows] += 1
        if purpose == OF_LOOK:
            self._asked[OF_MARGIN, rows] = 0
        for times in np.unique(asked, axis=1).T:
            some = places((asked == times[:, None]).all(axis=0), self.x)
            yield some, (*self._seed, purpose, *times.tolist())


def key(seed: tuple[int, ...], words: int = 2) -> Seed:
    """So many words from the parts of a seed."""
    return np.random.SeedSequence(seed).generate_state(words).astype(np.uint32, copy=False)
