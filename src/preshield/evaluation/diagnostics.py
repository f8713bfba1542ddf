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
from . import losses
from .attacks import Attacker
from .classifiers import are_probabilities, has_gradients
from .defended import DefendedModel
from .oracle import Oracle
from .perturbations import host
from .report import Diagnostic, RobustnessRow, Threat

__all__ = ["diagnose", "examine", "window"]

ATHALYE = "Athalye et al. 2018, section 3.1, arXiv:1802.00420"
CARLINI = "Carlini et al. 2019, arXiv:1902.06705"
COHEN = "Cohen et al. 2019, arXiv:1902.02918"
CROCE = "Croce et al. 2022, arXiv:2202.13711"
TRAMER = "Tramèr et al. 2020, arXiv:2002.08347"

EXAMINED = 32  # samples at the beginning of the data set that are looked at more closely within a bound
OF_MINIMUM = 8  # of them where the smallest perturbation is sought, which costs the whole budget for each
FEW = 0.05  # share of samples that may behave oddly by chance
HALF = 0.5
STRONGER = 0.95  # a second attack counts as stronger below this fraction of the first one's norm
OF_REPEATS, OF_EFFORT, OF_GRADIENTS, OF_CERTIFICATES = range(100, 104)  # what random numbers are for


def window(threat: Threat) -> int:
    """How many samples at the beginning of the data set are examined, if they are right."""
    return OF_MINIMUM if threat.minimum else EXAMINED


def examine(
    row: RobustnessRow,
    models: list[DefendedModel],
    attacker: Attacker,
    x: Array,
    y: Array,
    numbers: Array,
) -> dict[str, Array]:
    """Look closely at some samples; what comes out is a number for each, so that shards can be merged.

    Parameters
    ----------
    row : RobustnessRow
        The figures of these samples.
    models : list of DefendedModel
        The classifier behind the defence, once for each gradient.
    attacker : Attacker
        Who attacked it.
    x : ndarray, shape (n, ...)
        The samples.
    y, numbers : ndarray of int, shape (n,)
        Their labels, and their numbers in the data set.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        By what was looked at; not a number for samples that are wrong without an attack.
    """
    model, threat = models[0], attacker.threat
    found = {"number": numbers.astype(np.int64), "changed": _changed(model, x, numbers, attacker.seed)}
    if model.defence is None and hasattr(model.classifier, "certificates"):
        found["certified"] = _certified(model, x, y, numbers, attacker.seed)
    right = np.flatnonzero(row.always_right)
    if not row.white_box or not (threat.minimum or threat.eps) or not len(right):
        return found
    adaptive = row.columns["adaptive"]
    survived = (adaptive.outcomes[:, right] != 0).any(axis=0)
    examination = _Examination(
        models, attacker, x[right], y[right], numbers[right], adaptive.norms[right], survived
    )
    kinds: dict[str, Callable[[], Array]] = {}
    if attacker.factories is None:  # attacks of the user have bounds and steps of their own
        kinds |= {"unbounded": examination.unbounded, "effort": examination.effort}
    if has_gradients(model.classifier):
        kinds |= {
            "probabilities": examination.probabilities,
            "single step": examination.single_step,
            "useless": examination.useless,
            "rising": examination.rising,
        }
    for name, look in kinds.items():
        found[name] = np.full(len(x), np.nan)
        found[name][right] = look()
    return found


def _changed(model: DefendedModel, x: Array, numbers: Array, seed: int) -> Array:
    """Which samples get another label when they are predicted again, though nothing draws."""
    if model.stochastic or hasattr(model.classifier, "certificates"):  # which draws, and says how surely
        return np.zeros(len(x))
    points = model.array(x)
    labels = [model.labels(points, numbers, (seed, OF_REPEATS, k))[0] for k in range(3)]
    changed: Array = (labels[1] != labels[0]) | (labels[2] != labels[0])
    return changed.astype(np.float64)


def _certified(model: DefendedModel, x: Array, y: Array, numbers: Array, seed: int) -> Array:
    """Certified radius of each sample; 0 where the label is wrong."""
    with model.classifier.at(numbers, (seed, OF_CERTIFICATES)):
        labels, radii = model.classifier.certificates(model.array(x))
    certain: Array = np.where(labels == y, radii, 0.0)
    return certain


@dataclass(frozen=True, eq=False)
class _Examination:
    """Some samples that are right, and what was found for them; each method returns one number for each."""

    models: list[DefendedModel]
    attacker: Attacker
    x: Array
    y: Array
    numbers: Array
    norms: Array
    survived: Array

    def unbounded(self) -> Array:
        """Whether they keep their label however far they are moved."""
        if self.attacker.threat.minimum:
            return np.isinf(self.norms).astype(np.float64)
        moved = self.attacker.unbounded().white_box(self.models, self.x, self.y, self.numbers).x
        return (self._oracle(OF_EFFORT).margin(self.models[0].array(moved), self._rows) >= 0).astype(
            np.float64
        )

    def effort(self) -> Array:
        """What twice the gradients find through the first: the norm, or the share of draws still right."""
        budget = 2 * self.attacker.budget_of(0, len(self.models))
        harder = replace(self.attacker, budget=budget, seed=self.attacker.seed + 1)
        if self.attacker.threat.minimum:
            return harder.white_box(self.models[:1], self.x, self.y, self.numbers).norms
        share = np.zeros(len(self.x))  # what is broken stays broken
        if (some := np.flatnonzero(self.survived)).size:
            numbers, y = self.numbers[some], self.y[some]
            points = self.models[0].array(harder.white_box(self.models[:1], self.x[some], y, numbers).x)
            labels = self.models[0].labels(points, numbers, (self.attacker.seed, OF_EFFORT))
            share[some] = (labels == y).mean(axis=0)
        return share

    def probabilities(self) -> Array:
        """Whether the outputs of an undefended model are probabilities."""
        model = self.models[0]
        if model.defence is not None:
            return np.zeros(len(self.x))
        outputs = model.outputs(model.array(self.x), self.numbers, (self.attacker.seed, OF_GRADIENTS))
        return np.full(len(self.x), float(are_probabilities(outputs)))

    def single_step(self) -> Array:
        """Whether one step along the gradient succeeds with less than the attack, or where that failed."""
        threat = self.attacker.threat
        bounds = np.full(len(self.x), threat.eps if threat.eps is not None else np.inf)
        if threat.minimum:
            tried = np.where(np.isfinite(self.norms), STRONGER * self.norms, np.minimum(bounds, self._far))
        else:
            tried = bounds
        oracle = self._oracle(OF_GRADIENTS, 0)
        moved = self.attacker.single_step(oracle, tried)
        beaten: Array = (oracle.margin(moved, self._rows) < 0) & (tried > 0)
        return beaten.astype(np.float64)

    def useless(self) -> Array:
        """Whether every gradient is zero or not finite."""
        useless = np.ones(len(self.x), bool)
        for place, model in enumerate(self.models):
            oracle = self._oracle(OF_GRADIENTS, 1, place, model=model)
            gradient = host(oracle.look(oracle.x, self._rows, losses.cross_entropy).gradient)
            rows = gradient.reshape(len(gradient), -1)
            useless &= ~np.isfinite(rows).all(axis=1) | (rows == 0).all(axis=1)
        return useless.astype(np.float64)

    def rising(self) -> Array:
        """Whether the margin does not fall along any gradient, over a part of the way to the boundary."""
        far = self._far / 2.5
        lengths = np.minimum(np.where((self.norms > 0) & np.isfinite(self.norms), self.norms / 2, far), far)
        rising = np.ones(len(self.x), bool)
        for place, model in enumerate(self.models):
            oracle = self._oracle(OF_GRADIENTS, 2, place, model=model)
            moved = self.attacker.single_step(oracle, lengths)
            rising &= oracle.mean_margin(moved, self._rows) >= oracle.mean_margin(oracle.x, self._rows)
        return rising.astype(np.float64)

    @property
    def _far(self) -> Array:
        """A twentieth of the diagonal of the range."""
        return np.full(len(self.x), self.attacker.threat.diagonal(self.x[0].size) / 20)

    @property
    def _rows(self) -> Array:
        return np.arange(len(self.x))

    def _oracle(self, *purpose: int, model: DefendedModel | None = None) -> Oracle:
        return self.attacker.oracle(model or self.models[0], self.x, self.y, self.numbers, *purpose)


def diagnose(row: RobustnessRow, threat: Threat) -> list[Diagnostic]:
    """Run every check that applies.

    Parameters
    ----------
    row : RobustnessRow
        The figures, and what a closer look at some samples found.
    threat : Threat
        What the attacker could do.

    Returns
    -------
    list of Diagnostic
        The checks that fired.
    """
    checks: list[Callable[[RobustnessRow, Threat], Found]] = [_repeatable, _optimises, _certificates]
    if row.white_box and (threat.minimum or threat.eps):
        checks += [
            _black_box,
            _noise,
            _unbounded,
            _more_effort,
            _few_draws,
            _softmax,
            _single_step,
            _gradients,
        ]
        checks += [_differences]
    return [Diagnostic(row.name, *found) for check in checks if (found := check(row, threat))]


Found = tuple[str, str, str] | None  # name of the check, message, source


def _share(row: RobustnessRow, name: str) -> float:
    """Share of the examined samples of which something is true; 0 if it was not looked at."""
    values = row.evidence.get(name, np.zeros(0))
    values = values[~np.isnan(values)]
    return float((values > 0).mean()) if len(values) else 0.0


def _repeatable(row: RobustnessRow, threat: Threat) -> Found:
    if not _share(row, "changed"):
        return None
    message = (
        "the same samples got other labels when they were predicted again, though nothing declares itself "
        "stochastic. A defence that says stochastic = True and draws in _draw is attacked over many draws."
    )
    return "results change between runs", message, CARLINI


def _optimises(row: RobustnessRow, threat: Threat) -> Found:
    if row.defence is None or not row.defence.optimises_at_test_time:
        return None
    message = (
        "the defence runs an optimiser for every prediction, and no gradient is computed through it. Attacks "
        "on the optimiser itself may be stronger than the figures show."
    )
    return "optimises at test time", message, CROCE


def _certificates(row: RobustnessRow, threat: Threat) -> Found:
    """Whether a sample was broken within its certified radius: the L2 norm is at most the L1 norm."""
    if "certified" not in row.evidence or threat.norm == "linf":
        return None
    places, radii = row.examined, row.evidence["certified"]
    broken = np.zeros(len(places), bool)
    for column in row.columns.values():
        wrong = (column.outcomes[:, places] == 0).mean(axis=0) > HALF
        broken |= wrong & (column.norms[places] < radii)
    if not broken.any():
        return None
    message = (
        f"{broken.sum()} of {len(places)} samples were broken within their certified radius, which a proof "
        "excludes. Look for a model that draws, for noise that is clipped, or for a sum that overflows."
    )
    return "certificate broken", message, COHEN


def _softmax(row: RobustnessRow, threat: Threat) -> Found:
    if _share(row, "probabilities") < 1:
        return None
    message = (
        "the outputs are probabilities. Where the classifier is sure, their gradient vanishes in single "
        "precision; give the logits."
    )
    return "softmax instead of logits", message, CARLINI


def _black_box(row: RobustnessRow, threat: Threat) -> Found:
    """Whether attacks that know nothing of the defence's gradient do what the adaptive one does not."""
    adaptive = row.columns["adaptive"]
    beaten_by: dict[str, Array] = {}
    for name in ("oblivious", "transfer", "shared", "black-box"):
        if name in row.columns:
            other = row.columns[name]
            beaten = (other.outcomes == 0).all(axis=0)
            if threat.minimum:
                beaten &= other.norms < STRONGER * adaptive.norms
            else:
                beaten &= (adaptive.outcomes != 0).any(axis=0)
            beaten_by[name] = beaten
    name = max(beaten_by, key=lambda name: beaten_by[name].sum(), default="")
    # Within a bound, a single sample shows that the attack was too weak; draws and norms vary by chance.
    least = FEW if threat.minimum or len(adaptive.outcomes) > 1 else 0.0
    if not name or beaten_by[name].mean() <= least:
        return None
    beaten = beaten_by[name]
    message = (
        f"the {name} attack broke {beaten.sum()} of {len(beaten)} samples, which the adaptive attack did not "
        "break or not with as little. Its gradients mislead, or its budget is too small: look for a better "
        "backward pass, or raise budget."
    )
    return "black-box beats white-box", message, f"{ATHALYE}; {CARLINI}"


def _noise(row: RobustnessRow, threat: Threat) -> Found:
    right = row.always_right
    if "noise" not in row.columns or not right.any():
        return None
    noise = (row.columns["noise"].outcomes[:, right] == 0).mean()
    attack = (row.columns["adaptive"].outcomes[:, right] == 0).mean()
    if noise <= (HALF if threat.minimum else attack + FEW):
        return None
    message = (
        f"random noise of the same norm breaks {noise:.0%} of the samples that are right, the attack "
        f"{attack:.0%}: its direction is no better than chance."
    )
    return "noise beats the attack", message, f"{ATHALYE}; {CARLINI}"


def _single_step(row: RobustnessRow, threat: Threat) -> Found:
    beaten = row.evidence.get("single step", np.zeros(0)) > 0
    if not threat.minimum and len(beaten):
        outcomes = row.columns["adaptive"].outcomes[:, row.examined]
        beaten &= (outcomes != 0).any(axis=0)
    share = beaten.sum() / max(1, int(row.always_right[row.examined].sum()))
    if share <= 2 * FEW:
        return None
    message = (
        f"one step along the gradient breaks {share:.0%} of the examined samples, which the iterative "
        "attack did not break or not with as little: the loss is rugged, or the steps are too long."
    )
    return "a single step beats the iterative attack", message, f"{ATHALYE}; {CARLINI}"


def _unbounded(row: RobustnessRow, threat: Threat) -> Found:
    left = _share(row, "unbounded")
    if threat.minimum:
        left = float(np.isinf(row.columns["adaptive"].norms).mean()) if "unbounded" in row.evidence else 0.0
    if left <= FEW:
        return None
    message = (
        f"{left:.0%} of the samples keep their label however far they are moved. Any classifier can be "
        "fooled by that much: the attack is at fault, not the defence at work."
    )
    return "an unbounded attack does not reach zero", message, f"{ATHALYE}; {CARLINI}"


def _more_effort(row: RobustnessRow, threat: Threat) -> Found:
    """Whether twice the gradients find more."""
    adaptive, after = row.columns["adaptive"], row.evidence.get("effort", np.zeros(0))
    looked = ~np.isnan(after)
    if not looked.any():
        return None
    numbers = row.examined[looked]
    draws = len(adaptive.outcomes)
    if threat.minimum:
        norms = adaptive.norms[numbers]  # those behind draws vary by chance
        least = after[looked] if draws > 1 else np.minimum(norms, after[looked])
        before, now = np.median(norms), np.median(least)
        helps, what = now < STRONGER * before, "median norm"
    else:
        shares = (adaptive.outcomes[:, numbers] == 1).mean(axis=0)
        before, now = shares.mean(), np.minimum(shares, after[looked]).mean()
        # Of one draw, a single sample is enough; shares of draws vary by chance.
        helps, what = now < before - (2 * FEW if draws > 1 else 0.0), "accuracy"
        now = now if draws == 1 else after[looked].mean()
        helps = helps and now < before
    if not helps:
        return None
    message = (
        f"twice the gradients take the {what} of {len(numbers)} samples from {before:.3g} to {now:.3g}. "
        "Raise budget until it stays."
    )
    return "more iterations still help", message, f"{CARLINI}; {TRAMER}"


def _few_draws(row: RobustnessRow, threat: Threat) -> Found:
    """Whether the smallest perturbations, wrong on every draw that the attack made, are right on others."""
    adaptive = row.columns["adaptive"]
    found = np.isfinite(adaptive.norms) & row.always_right
    if not threat.minimum or "effort" not in row.evidence or not found.any():
        return None
    right = (adaptive.outcomes[:, found] == 1).mean()
    if right <= HALF / 2:
        return None
    message = (
        f"the adaptive examples are right on {right:.0%} of fresh draws, though they were wrong on all that "
        "the attack looked at. Raise eot until they stay wrong."
    )
    return "too few draws", message, f"{ATHALYE}; {TRAMER}"


def _gradients(row: RobustnessRow, threat: Threat) -> Found:
    share = _share(row, "useless")
    if share <= FEW:
        return None
    message = (
        f"{share:.0%} of the examined samples have a gradient that is zero or not finite. What "
        "shatters, saturates or detaches it must be approximated in the backward pass."
    )
    return "zero or non-finite gradients", message, f"{ATHALYE}; {TRAMER}"


def _differences(row: RobustnessRow, threat: Threat) -> Found:
    """Whether the margin falls along the gradient, over a part of the way to the boundary."""
    share = _share(row, "rising")
    if share <= HALF:
        return None
    message = (
        f"for {share:.0%} of the examined samples the margin does not fall when they move along the "
        "gradient estimate. Look for one that predicts what the defence does."
    )
    return "gradient far from finite differences", message, f"{ATHALYE}; {TRAMER}"
