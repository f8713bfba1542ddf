"""What the tests of plots share: axes, images and a report that no evaluation made."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")  # here, for all who import this

from matplotlib.figure import Figure

from preshield.evaluation.report import Column, RobustnessReport, RobustnessRow, Threat

IMAGES = np.linspace(0, 1, 2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
IMAGES.flags.writeable = False


def subplots(*shape):
    return Figure().subplots(*shape, squeeze=False)


def shown(ax):
    """Pixels of the image in some axes."""
    return np.asarray(ax.images[0].get_array())


def report(*, minimum=True, images=False, curves=(), pictures=None):
    """An undefended model, a defence that only looks good, and one that has no gradients."""
    if images:
        pictures = {"clean": IMAGES[:1], "attacked": IMAGES[:1] ** 2, "labels": np.array([7])}
        pictures |= {"predicted": np.array([7]), "confidence": np.array([0.95])}
    pictures = pictures or {}
    made = {"defended": 2, "attacked": 4, "received": 8}
    own = {name: pictures["attacked"] / divisor for name, divisor in made.items()} if pictures else {}
    predicted = {"predicted": np.array([[1, 0]]), "confidence": np.array([[0.8, np.nan]])} if images else {}
    columns = [
        {"clean": 0.9, "noise": 0.88, "adaptive": 0.0},
        {"clean": 0.85, "noise": 0.84, "oblivious": 0.6, "adaptive": 0.1},
        {"clean": 0.8, "noise": 0.8, "oblivious": 0.7, "black-box": 0.3},
    ]
    names = ["undefended", "JpegCompression, quality=50, subsampling 2", "median"]
    rows = [
        RobustnessRow(
            name,
            None,
            {key: column(accuracy, norms=1.0 + k) for key, accuracy in accuracies.items()},
            0.001,
            pictures=predicted if k == 0 else own | predicted,
        )
        for k, (name, accuracies) in enumerate(zip(names, columns, strict=True))
    ]
    threat = Threat("l2-minimum" if minimum else "linf", None if minimum else 0.1, (0.0, 1.0))
    return RobustnessReport(threat, tuple(rows), (), tuple(curves), {}, {}, pictures)


def column(accuracy, norms=1.0):
    outcomes = (np.arange(100) < round(100 * accuracy)).astype(np.int8)[None]
    return Column(outcomes, np.full(100, norms), "made up", 1.0)
