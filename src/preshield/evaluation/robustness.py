"""Accuracy of a defended model under attacks that ignore the defence or go through it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._core.typing import Array
from .defended_model import DefendedModel
from .minimum_norm import Adversarials, minimum_norm_attack

__all__ = [
    "AttackedModel",
    "RobustnessRow",
    "attack",
    "compare",
    "robustness_table",
    "strongest",
]

_HEADINGS = ("Defence", "Clean", "Oblivious", "Adaptive", "Perturbation")


@dataclass(frozen=True, eq=False)
class AttackedModel:
    """A model, samples, and what an attack that knows the model made of them.

    Attributes
    ----------
    model : DefendedModel
        What was attacked.
    x, y : ndarray
        Clean samples and their labels.
    right : ndarray of bool, shape (N,)
        Which clean samples are classified correctly under every draw.
    adversarials : Adversarials
        The perturbed samples.
    """

    model: DefendedModel
    x: Array
    y: Array
    right: Array
    adversarials: Adversarials

    def accuracy(self, x: Array) -> float:
        """Return the share of correct predictions on `x`, perturbed or not, over all draws."""
        return float((self.model.predict(x) == self.y).mean())


@dataclass(frozen=True)
class RobustnessRow:
    """One line of the table.

    Attributes
    ----------
    defence : str
        What stands in front of the model.
    clean : float
        Accuracy on the samples as they are.
    oblivious : float
        Accuracy on examples made against the undefended model.
    adaptive : float
        Accuracy on examples made through the defence.
    perturbation : float or None
        How many times larger the adaptive perturbation had to be: the median L2 norm of the
        perturbations made through the defence over that of those made against the undefended
        model, both over the samples that are classified correctly with and without the defence.
        None if there are none, or if the attack failed for half of them.
    """

    defence: str
    clean: float
    oblivious: float
    adaptive: float
    perturbation: float | None


def attack(
    model: DefendedModel,
    x: Array,
    y: Array,
    *,
    max_steps: int = 100,
    on_step: Callable[[float], None] = lambda done: None,
) -> AttackedModel:
    """Attack a model through its defence with `minimum_norm_attack`, in steps of 0.1.

    Parameters
    ----------
    model : DefendedModel
        The model and what stands in front of it.
    x : ndarray of float32, shape (N, ...)
        Samples in [0, 1].
    y : ndarray of int64, shape (N,)
        Their labels.
    max_steps : int
        Steps after which a sample is given up.
    on_step : callable
        Called with the fraction of the work that is done.

    Returns
    -------
    AttackedModel
    """
    right = (model.predict(x) == y).all(axis=0)
    adversarials = minimum_norm_attack(
        x,
        y,
        model.margin,
        model.margin_and_gradient,
        step=0.1,
        max_steps=max_steps,
        on_step=on_step,
    )
    return AttackedModel(model, x, y, right, adversarials)


def strongest(attacks: Sequence[AttackedModel]) -> AttackedModel:
    """Keep the smallest perturbation that several attacks found for each sample.

    Parameters
    ----------
    attacks : sequence of AttackedModel
        Attacks on one defence, for example with each gradient that it offers.

    Returns
    -------
    AttackedModel
        The first, with the best of all perturbations.
    """
    norms = np.stack([a.adversarials.norms for a in attacks])
    best = norms.argmin(axis=0)
    x = np.stack([a.adversarials.x for a in attacks])[best, np.arange(len(best))]
    return replace(attacks[0], adversarials=Adversarials(x, norms.min(axis=0)))


def compare(defence: str, defended: AttackedModel, undefended: AttackedModel) -> RobustnessRow:
    """Set a defended model beside the undefended one.

    Parameters
    ----------
    defence : str
        Name of the row.
    defended, undefended : AttackedModel
        Attacks on the same samples. For the row of the undefended model, pass it twice.

    Returns
    -------
    RobustnessRow
    """
    both = defended.right & undefended.right
    norms = [np.median(a.adversarials.norms[both]) if both.any() else np.inf for a in (defended, undefended)]
    return RobustnessRow(
        defence=defence,
        clean=defended.accuracy(defended.x),
        oblivious=defended.accuracy(undefended.adversarials.x),
        adaptive=defended.accuracy(defended.adversarials.x),
        perturbation=float(norms[0] / norms[1]) if np.isfinite(norms).all() else None,
    )


def robustness_table(rows: list[RobustnessRow]) -> str:
    """Return a Markdown table whose columns line up as plain text too."""
    cells = [
        (
            row.defence,
            f"{row.clean:.2f}",
            f"{row.oblivious:.2f}",
            f"{row.adaptive:.2f}",
            "-" if row.perturbation is None else f"{row.perturbation:.1f}x",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *cells, strict=True)]
    name, *numbers = widths
    rule = [":" + "-" * (name - 1), *("-" * (width - 1) + ":" for width in numbers)]
    lines = [_HEADINGS, rule, *cells]
    return "".join(
        f"| {first:<{name}} | "
        + " | ".join(f"{cell:>{width}}" for cell, width in zip(rest, numbers, strict=True))
        + " |\n"
        for first, *rest in lines
    )
