"""One call that attacks a model through its defences and reports what is left."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._core.checks import check_bool, check_integer, check_number, check_option
from .._core.errors import ArgumentError
from .._core.optional import require
from .report import RobustnessReport, Threat
from .subjects import (
    as_factories,
    as_labels,
    as_samples,
    as_subjects,
    check_columns,
    head_of,
    named_classifier,
    range_of,
)

if TYPE_CHECKING:
    from .run import Run

__all__ = ["evaluate", "prepared"]

THREATS = ("l2-minimum", "linf", "l2")
BUDGET = 50
MAX_SEED = 2**32 - 1  # of NumPy's global generator, from which the attacks of ART draw


def evaluate(
    classifier: Any,
    x: Any,
    y: Any,
    defences: Any,
    *,
    threat: str = "l2-minimum",
    eps: float | None = None,
    attacks: Any = None,
    eot: int = 16,
    seed: int = 0,
    batch_size: int = 128,
    budget: int | None = None,
    verbose: bool = True,
    surrogate: Any = None,
    clip_values: tuple[float, float] | None = None,
    columns: Sequence[str] | None = None,
) -> RobustnessReport:
    """Attack a classifier without and through each defence, and report what is left.

    Parameters
    ----------
    classifier : object
        An ART classifier, a Keras model, a torch module; or anything with `predict_proba` or `predict`, or a
        callable, which gives scores `(N, K)` or labels `(N,)`, -1 for a rejected sample. Without gradients
        the black-box attack stands in for the adaptive one, and the report says so. A torch module gets
        samples in its own floating type. Scores may be an entry or attribute `logits`, `scores` or `out` of
        what a model returns, its only entry, or the first element of a tuple.
    x : array_like, shape (N, ...)
        Samples: images, clips, waveforms or features; a memory-mapped array is read one batch at a time.
    y : array_like, shape (N,) or (N, K)
        Labels: indices, one-hot rows, or probabilities with one largest entry in each row.
    defences : Preprocessor, or list or dict of them
        What to evaluate; `Chain` and `MajorityVote` too. In a dict, names of the rows; a value may be
        `(defence, classifier)` where a defence needs a classifier of its own. The undefended classifier is
        always evaluated.
    threat : {"l2-minimum", "linf", "l2"}
        The smallest L2 perturbation that changes the prediction, or any up to `eps`.
    eps : float, optional
        Bound of the perturbation. For "l2-minimum", bound of the black-box attack; by default twice the
        median of the smallest perturbations of the undefended classifier. Where no white-box attack finds
        them, without gradients or without the columns "oblivious" and "adaptive", it is the range of the
        values times sqrt(D) / 20, for samples of D values.
    attacks : sequence or dict of callables, optional
        White-box attacks instead of the default one. Each makes an ART attack for a classifier: a class such
        as `DeepFool`, or a function of the classifier. The best of them counts for each sample.
    eot : int, default 16
        Draws of a stochastic defence over which gradients are averaged and predictions repeated.
    seed : int, default 0
        Seed of all that is random; with `attacks` at most 2**32 - 1.
    batch_size : int, default 128
        Samples that are attacked at once.
    budget : int, default 50
        Steps of the white-box attack; the black-box attack has four queries for each.
    verbose : bool, default True
        Show a progress bar.
    surrogate : object, optional
        A classifier like `classifier`, for the column "transfer".
    clip_values : tuple of float, optional
        Smallest and largest value of a sample. By default those of an ART classifier, or else the first of
        (0, 1), (-1, 1) and (0, 255) that holds all of `x`.
    columns : sequence of str, optional
        Which columns to evaluate beside "clean", of "noise", "oblivious", "transfer", "black-box" and
        "adaptive"; all by default.

    Returns
    -------
    RobustnessReport
        Prints as a table; shows itself in a notebook; `to_html()` writes everything in one file. After
        Ctrl-C, the rows that were finished.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, or a defence hands the classifier a shape that it cannot take; before
        any attack runs. What a model or a defence raises itself comes through as it is, with a note.
    ImportError
        If ART is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import FeatureSqueezing, evaluate
    >>> x, y = np.random.default_rng(0).random((20, 4), dtype=np.float32), np.arange(20) % 2
    >>> x[:, 0] = 0.2 + 0.6 * y
    >>> def classifier(x):
    ...     return np.stack([0.5 - x[:, 0], x[:, 0] - 0.5], axis=1)
    >>> report = evaluate(classifier, x, y, [FeatureSqueezing((0, 1), 1)], verbose=False)
    >>> report["FeatureSqueezing"].columns["clean"].accuracy
    1.0
    """
    check_bool(verbose=verbose)
    run = prepared(
        classifier,
        x,
        y,
        defences,
        threat=threat,
        eps=eps,
        attacks=attacks,
        eot=eot,
        seed=seed,
        batch_size=batch_size,
        budget=budget,
        surrogate=surrogate,
        clip_values=clip_values,
        columns=columns,
    )
    run.execute(verbose=verbose)
    return run.report(defences, type(classifier).__name__)


def prepared(
    classifier: Any,
    x: Any,
    y: Any,
    defences: Any,
    *,
    threat: str,
    eps: float | None,
    attacks: Any,
    eot: int,
    seed: int,
    batch_size: int,
    budget: int | None,
    surrogate: Any,
    clip_values: tuple[float, float] | None,
    columns: Sequence[str] | None,
) -> "Run":
    """Check the arguments of `evaluate`, and return the work that they ask for."""
    with warnings.catch_warnings():  # ART says what it does not find
        warnings.filterwarnings("ignore", "PyTorch not found|IProgress not found")
        require("art", extra="art")
        from .attacks import Attacker
        from .run import Run

    check_option("threat", threat, THREATS)
    check_integer("eot", eot, 1)
    check_integer("seed", seed, 0, None if attacks is None else MAX_SEED)
    check_integer("batch_size", batch_size, 1)
    if budget is not None:
        check_integer("budget", budget, 1)
    if eps is not None:
        check_number("eps", eps, 0)
    elif threat != "l2-minimum":
        raise ArgumentError(
            f"`eps` must be given with threat={threat!r}: the bound of the perturbation, got None."
        )
    names = check_columns(columns, surrogate)
    x, y = as_samples(x), as_labels(y)
    if len(x) != len(y):
        raise ArgumentError(f"`y` must hold one label for each of the {len(x)} samples of `x`, got {len(y)}.")
    low, high = range_of(clip_values, classifier, x)
    return Run(
        x,
        y,
        as_subjects(classifier, defences, x, y),
        None if surrogate is None else named_classifier(surrogate, head_of(x), y, "surrogate"),
        attacker=Attacker(
            threat=Threat(threat, None if eps is None else float(eps), (low, high)),
            budget=int(budget or BUDGET),
            factories=as_factories(attacks),
            seed=int(seed),
        ),
        eot=int(eot),
        batch_size=int(batch_size),
        columns=names,
    )
