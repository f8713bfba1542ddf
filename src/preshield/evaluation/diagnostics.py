"""Signs that an attack was weaker than it could be, after the checklists of the field.

References
----------
.. [1] Athalye, Carlini, Wagner. Obfuscated Gradients Give a False Sense of Security. ICML 2018.
   arXiv:1802.00420
.. [2] Carlini et al. On Evaluating Adversarial Robustness. 2019. arXiv:1902.06705
.. [3] Tramer, Carlini, Brendel, Madry. On Adaptive Attacks to Adversarial Example Defenses. NeurIPS 2020.
   arXiv:2002.08347
.. [4] Croce et al. Evaluating the Adversarial Robustness of Adaptive Test-time Defenses. ICML 2022.
   arXiv:2202.13711
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .._core.typing import Array
from .attacks import Attacker
from .classifiers import are_probabilities, has_gradients
from .estimator import DefendedClassifier
from .minimum_norm import ENOUGH_STEPS
from .report import Diagnostic, RobustnessRow

__all__ = ["Evidence", "diagnose"]

ATHALYE = "Athalye et al. 2018, section 3.1, arXiv:1802.00420"
CARLINI = "Carlini et al. 2019, arXiv:1902.06705"
CROCE = "Croce et al. 2022, arXiv:2202.13711"
TRAMER = "Tramèr et al. 2020, arXiv:2002.08347"

FEW = 0.05  # share of samples that may behave oddly by chance
HALF = 0.5
STRONGER = 0.9  # a second attack counts as stronger below this fraction of the first one's norm


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the checks look at.

    Attributes
    ----------
    row : RobustnessRow
        The figures.
    models : list of DefendedClassifier
        The classifier behind the defence, once for each gradient.
    attacker : Attacker
        Who attacked it.
    x, y : ndarray
        Some samples that are right, shape (n, ...), and their labels.
    numbers : ndarray of int, shape (n,)
        Their numbers in the columns of the row.
    white : bool
        Whether there was a white-box attack.
    repeated : bool
        Whether predictions that should repeat did.
    """

    row: RobustnessRow
    models: list[DefendedClassifier]
    attacker: Attacker
    x: Array
    y: Array
    numbers: Array
    white: bool
    repeated: bool


def diagnose(evidence: Evidence) -> list[Diagnostic]:
    """Run every check that applies.

    Parameters
    ----------
    evidence : Evidence
        A row and what it was made from.

    Returns
    -------
    list of Diagnostic
        The checks that fired.
    """
    checks: list[Callable[[Evidence], Found]] = [_repeatable, _optimises]
    if evidence.white and evidence.attacker.threat.eps:
        checks += [_black_box, _noise]
        if len(evidence.x):
            if evidence.attacker.factories is None:  # attacks of the user have bounds and steps of their own
                checks += [_unbounded, _more_effort, _few_draws]
            if has_gradients(evidence.models[0].classifier):
                checks += [_softmax, _single_step, _gradients, _differences]
    return [Diagnostic(evidence.row.name, *found) for check in checks if (found := check(evidence))]


Found = tuple[str, str, str] | None  # name of the check, message, source


def _repeatable(e: Evidence) -> Found:
    if e.repeated:
        return None
    message = (
        "the same samples got other labels when they were predicted again, though nothing declares itself "
        "stochastic. A defence that says stochastic = True and draws in _draw is attacked over many draws."
    )
    return "results change between runs", message, CARLINI


def _optimises(e: Evidence) -> Found:
    if e.row.defence is None or not e.row.defence.optimises_at_test_time:
        return None
    message = (
        "the defence runs an optimiser for every prediction, and no gradient is computed through it. Attacks "
        "on the optimiser itself may be stronger than the figures show."
    )
    return "optimises at test time", message, CROCE


def _softmax(e: Evidence) -> Found:
    model = e.models[0]
    if model.defence is not None or not are_probabilities(model.outputs(e.x)):
        return None
    message = (
        "the outputs are probabilities. Where the classifier is sure, their gradient vanishes in single "
        "precision; give the logits."
    )
    return "softmax instead of logits", message, CARLINI


def _black_box(e: Evidence) -> Found:
    """Whether attacks that know nothing of the defence's gradient do what the adaptive one does not."""
    adaptive = e.row.columns["adaptive"]
    shares: dict[str, float] = {}
    for name in ("oblivious", "transfer", "black-box"):
        if name in e.row.columns:
            other = e.row.columns[name]
            beaten = (other.outcomes == 0).all(axis=0)
            if e.attacker.threat.minimum:
                beaten &= other.norms < STRONGER * adaptive.norms
            else:
                beaten &= (adaptive.outcomes != 0).any(axis=0)
            shares[name] = float(beaten.mean())
    name = max(shares, key=lambda name: shares[name], default="")
    if not name or shares[name] <= FEW:
        return None
    message = (
        f"the {name} attack broke {shares[name]:.0%} of the samples, which the adaptive attack did not break "
        "or not with as little. Its gradients mislead: look for a better backward pass."
    )
    return "black-box beats white-box", message, f"{ATHALYE}; {CARLINI}"


def _noise(e: Evidence) -> Found:
    right = e.row.always_right
    if "noise" not in e.row.columns or not right.any():
        return None
    noise = (e.row.columns["noise"].outcomes[:, right] == 0).mean()
    attack = (e.row.columns["adaptive"].outcomes[:, right] == 0).mean()
    if noise <= (HALF if e.attacker.threat.minimum else attack + FEW):
        return None
    message = (
        f"random noise of the same norm breaks {noise:.0%} of the samples that are right, the attack "
        f"{attack:.0%}: its direction is no better than chance."
    )
    return "noise beats the attack", message, f"{ATHALYE}; {CARLINI}"


def _single_step(e: Evidence) -> Found:
    model, adaptive = e.models[0], e.row.columns["adaptive"]
    norms = np.full(len(e.x), e.attacker.threat.eps)
    if e.attacker.threat.minimum:
        found = adaptive.norms[e.numbers]
        norms = np.where(np.isfinite(found), STRONGER * found, norms)
        failed = norms > 0
    else:
        failed = (adaptive.outcomes[:, e.numbers] != 0).any(axis=0)
    moved = e.attacker.single_step(model, e.x, e.y, norms)
    beaten = float(((model.margin(moved, e.y) < 0) & failed).mean())
    if beaten <= 2 * FEW:
        return None
    message = (
        f"one step along the gradient breaks {beaten:.0%} of the examined samples, which the iterative "
        "attack did not break or not with as little: the loss is rugged, or the steps are too long."
    )
    return "a single step beats the iterative attack", message, f"{ATHALYE}; {CARLINI}"


def _unbounded(e: Evidence) -> Found:
    if e.attacker.threat.minimum:
        left = float(np.isinf(e.row.columns["adaptive"].norms).mean())
    else:
        moved = e.attacker.unbounded().white_box(e.models, e.x, e.y).x
        left = float((e.models[0].margin(moved, e.y) >= 0).mean())
    if left <= FEW:
        return None
    message = (
        f"{left:.0%} of the samples keep their label however far they are moved. Any classifier can be "
        "fooled by that much: the attack is at fault, not the defence at work."
    )
    return "an unbounded attack does not reach zero", message, f"{ATHALYE}; {CARLINI}"


def _more_effort(e: Evidence) -> Found:
    """Whether twice the steps, over twice the draws of a stochastic defence, find more."""
    adaptive, (model, *_) = e.row.columns["adaptive"], e.models
    ended = e.attacker.threat.minimum and e.attacker.budget >= ENOUGH_STEPS
    if ended and np.isfinite(adaptive.norms[e.numbers]).all():
        return None  # by itself, with steps to spare
    models = [model.with_draws(2 * model.draws) for model in e.models]
    found = replace(e.attacker, budget=2 * e.attacker.budget).white_box(models, e.x, e.y)
    if e.attacker.threat.minimum:
        before, after = np.median(adaptive.norms[e.numbers]), np.median(found.norms)
        helps, what = after < STRONGER * before, "median norm"
    else:
        before = (adaptive.outcomes[:, e.numbers] == 1).mean()
        after = (model.labels(found.x) == e.y).mean()
        helps, what = after < before - 2 * FEW, "accuracy"
    if not helps:
        return None
    random = models[0].draws > 1
    twice, cure = ("steps and draws", "budget and eot") if random else ("steps", "budget")
    message = (
        f"twice the {twice} take the {what} of {len(e.x)} samples from {before:.3g} to {after:.3g}. Raise "
        f"{cure} until it stays."
    )
    return "more iterations still help", message, f"{CARLINI}; {TRAMER}"


def _few_draws(e: Evidence) -> Found:
    """Whether the smallest perturbations, wrong on every draw that the attack made, are right on others."""
    adaptive = e.row.columns["adaptive"]
    found = np.isfinite(adaptive.norms) & e.row.always_right
    if not e.attacker.threat.minimum or not found.any():
        return None
    right = (adaptive.outcomes[:, found] == 1).mean()
    if right <= HALF / 2:
        return None
    message = (
        f"the adaptive examples are right on {right:.0%} of fresh draws, though they were wrong on all that "
        "the attack looked at. Raise eot until they stay wrong."
    )
    return "too few draws", message, f"{ATHALYE}; {TRAMER}"


def _gradients(e: Evidence) -> Found:
    useless = np.ones(len(e.x), bool)
    for model in e.models:
        gradient = model.margin_and_gradient(e.x, e.y)[1].reshape(len(e.x), -1)
        useless &= ~np.isfinite(gradient).all(axis=1) | (gradient == 0).all(axis=1)
    if useless.mean() <= FEW:
        return None
    message = (
        f"{useless.mean():.0%} of the examined samples have a gradient that is zero or not finite. What "
        "shatters, saturates or detaches it must be approximated in the backward pass."
    )
    return "zero or non-finite gradients", message, f"{ATHALYE}; {TRAMER}"


def _differences(e: Evidence) -> Found:
    """Whether the margin falls along the gradient, over a part of the way to the boundary."""
    low, high = e.attacker.threat.clip_values
    far = (high - low) * (1.0 if e.attacker.threat.norm == "linf" else e.x[0].size ** 0.5) / 50
    norms = e.row.columns["adaptive"].norms[e.numbers]
    length = np.minimum(np.where(norms > 0, norms / 2, far), far)
    rising = np.ones(len(e.x), bool)
    for model in e.models:
        moved = e.attacker.single_step(model, e.x, e.y, length)
        rising &= model.mean_margin(moved, e.y) >= model.mean_margin(e.x, e.y)
    if rising.mean() <= HALF:
        return None
    message = (
        f"for {rising.mean():.0%} of the examined samples the margin does not fall when they move along the "
        "gradient estimate. Look for one that predicts what the defence does."
    )
    return "gradient far from finite differences", message, f"{ATHALYE}; {TRAMER}"
