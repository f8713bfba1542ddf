"""A model behind a defence, as an attacker sees it who knows both."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np

from .._core.typing import Array
from ..preprocessor import Preprocessor

__all__ = ["DefendedModel", "Model"]


class Model(Protocol):
    """What the evaluation asks of a classifier."""

    def logits(self, x: Array) -> Array:
        """Return the logits, shape (N, K)."""

    def margin_and_gradient(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return the margin of `y` over the best other class, shape (N,), and its gradient."""


class DefendedModel:
    """A classifier whose inputs pass through a defence.

    Gradients are those of the model at the transformed sample, pulled back through the defence with
    its own `estimate_gradient`: exact where the defence is differentiable, the backward pass
    differentiable approximation (BPDA) [1]_ where it is not. For a stochastic defence they are
    averaged over several draws (expectation over transformation, EOT).

    Parameters
    ----------
    model : Model
        The classifier.
    defence : Preprocessor, optional
        What stands in front of it; nothing if omitted.
    draws : int
        Draws of a stochastic defence per evaluation. Others are evaluated once.
    seed : int
        Seed of these draws. Each evaluation makes new ones.

    References
    ----------
    .. [1] Athalye, Carlini, Wagner. Obfuscated Gradients Give a False Sense of Security. ICML 2018.
       arXiv:1802.00420
    """

    def __init__(
        self, model: Model, defence: Preprocessor | None = None, *, draws: int = 8, seed: int = 0
    ) -> None:
        self.model = model
        self.defence = defence
        self.draws = draws if defence is not None and defence.stochastic else 1
        self._rng = np.random.default_rng(seed)

    def view(self, x: Array) -> tuple[Array, Array]:
        """Return what the model receives under one draw, and its logits, shape (N, K)."""
        with self._one_draw():
            seen = self._transform(x)
        return seen, self.model.logits(seen)

    def predict(self, x: Array) -> Array:
        """Return the class predicted for each sample under each draw, shape (draws, N)."""
        return np.stack([self.view(x)[1].argmax(axis=1) for _ in range(self.draws)])

    def margin(self, x: Array, y: Array) -> Array:
        """Return the largest margin of `y` over twice the draws, shape (N,).

        It is negative only if every draw is wrong; the first draw that is right decides.
        """
        largest, undecided = np.full(len(x), -np.inf), np.arange(len(x))
        for _ in range(2 * self.draws if self.draws > 1 else 1):
            logits = self.view(x[undecided])[1]
            own = np.arange(logits.shape[1]) == y[undecided, None]
            margin = logits[own] - np.where(own, -np.inf, logits).max(axis=1)
            largest[undecided] = np.maximum(largest[undecided], margin)
            undecided = undecided[margin < 0]
            if not len(undecided):
                break
        return largest

    def margin_and_gradient(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return the largest margin over the draws, and the gradient averaged over them."""
        margins, gradients = [], []
        for _ in range(self.draws):
            with self._one_draw():
                margin, gradient = self.model.margin_and_gradient(self._transform(x), y)
                gradients.append(self._pull_back(x, gradient))
            margins.append(margin)
        return np.stack(margins).max(axis=0), np.mean(gradients, axis=0)

    def _one_draw(self) -> AbstractContextManager[object]:
        """Make the defence repeat one draw within a `with` block."""
        seed = int(self._rng.integers(2**31))
        if self.defence is None or not self.defence.stochastic:
            return nullcontext()
        return self.defence.frozen(seed)

    def _transform(self, x: Array) -> Array:
        return x if self.defence is None else self.defence.transform(x)

    def _pull_back(self, x: Array, gradient: Array) -> Array:
        return gradient if self.defence is None else self.defence.estimate_gradient(x, gradient)
