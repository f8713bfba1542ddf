"""Accuracy against what an attacker is given."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._core.checks import check_number, check_option
from .._core.errors import ArgumentError
from .classifiers import takes_channels_first
from .evaluate import evaluate, prepared
from .preprocessed import preprocessing_of
from .report import Curve, RobustnessRow
from .sources import samples_of

if TYPE_CHECKING:
    from .attacks import Made

__all__ = ["curve"]

PARAMETERS = ("eps", "budget", "eot")


def curve(
    classifier: Any, x: Any, y: Any, defences: Any, parameter: str, values: Sequence[float], **options: Any
) -> Curve:
    """Evaluate the worst case of the oblivious and the adaptive attack for several bounds, budgets or draws.

    Parameters
    ----------
    classifier, x, y, defences
        See `evaluate`.
    parameter : {"eps", "budget", "eot"}
        What to vary: the bound of the perturbation, the gradients of the attack, or the draws that it
        averages.
    values : sequence of float
        Values of it.
    **options
        Other arguments of `evaluate`. With `parameter="eps"` the threat is "linf" unless `threat` says
        otherwise; for a smallest perturbation one evaluation gives the accuracy at every bound.

    Returns
    -------
    Curve
        With one line for each row; `plots.curve` draws it. ``dataclasses.replace(report, curves=(curve,))``
        puts it into a report. After Ctrl-C, the values that were finished.

    Raises
    ------
    ValueError
        If `parameter` is none of these, or there are no values.

    Notes
    -----
    There are no diagnostics: `evaluate` makes them for one value. With `parameter="eot"`, an undefended
    classifier that draws nothing is attacked once.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import FeatureSqueezing, curve
    >>> x, y = np.full((4, 3), 0.25, dtype=np.float32), np.arange(4) % 2
    >>> x[y == 1] += 0.5
    >>> def classifier(x):
    ...     return np.stack([1 - x.mean(axis=1), x.mean(axis=1)], axis=1)
    >>> found = curve(classifier, x, y, {}, "eps", [0, 1], columns=["black-box"], verbose=False)
    >>> found.accuracy["none"]
    (1.0, 0.0)
    """
    check_option("parameter", parameter, PARAMETERS)
    values = tuple(values)
    if not values:
        raise ArgumentError("`values` must hold at least one value, got none.")
    options.setdefault("columns", ("oblivious", "adaptive"))
    if parameter == "eps":
        options.setdefault("threat", "linf")
    reading = {"channels_first": takes_channels_first(classifier), "verbose": options.get("verbose", True)}
    parts = preprocessing_of(classifier, options.get("preprocess"), x)
    with samples_of(x, y, fields=options.pop("fields", None), geometry=parts.geometry, **reading) as (
        samples,
        labels,
    ):
        if parameter == "eps" and str(options["threat"]).endswith("-minimum"):
            for value in values:
                check_number("eps", value, 0)
            report = evaluate(classifier, samples, labels, defences, **options)
            accuracy = {row.name: tuple(map(row.accuracy_at, values)) for row in report.rows}
            return Curve(parameter, values, accuracy, "worst case")
        signature = inspect.signature(evaluate)
        made: dict[tuple[str, int], Made] | None = {} if parameter == "eot" else None
        found: list[tuple[RobustnessRow, ...]] = []
        for value in values:
            given = signature.bind(classifier, samples, labels, defences, **{**options, parameter: value})
            given.apply_defaults()
            del given.arguments["fields"]
            given.arguments["preprocess"] = parts.normalise
            run = prepared(**given.arguments)
            run.plan.diagnosed, run.plan.made = False, made  # nobody would see the diagnostics
            try:
                report = run.report(defences, "", verbose=given.arguments["verbose"])
            except KeyboardInterrupt:
                break
            if not report.complete:
                break
            found.append(report.rows)
    if not found:
        raise KeyboardInterrupt
    accuracy = {rows[0].name: tuple(row.worst_case for row in rows) for rows in zip(*found, strict=True)}
    return Curve(parameter, values[: len(found)], accuracy, "worst case")
