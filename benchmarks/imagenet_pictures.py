"""Pictures for a network of ImageNet, from installed packages; nothing is downloaded."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from preshield.evaluation.photographs import bundled_photographs
from preshield.neural.imagenet import imagenet_classes, imagenet_picture

__all__ = ["SURE", "VIEWS_EACH", "photographs", "pictures"]

SURE = 0.5  # confidence in the true class from which a view is taken
VIEWS_EACH = 5  # the most of one photograph
PLACES = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))  # across, down
ZOOMS = (1.0, 1.25)

# What photographs of scikit-image show that plainly is a class of ImageNet.
SEEN = {
    "chelsea": "Egyptian cat",
    "coffee": "espresso",
    "motorcycle_left": "moped",
}


def photographs() -> list[tuple[str, Any, int]]:
    """Name, picture and class of each photograph: those of foolbox by the label in the name of their file."""
    package = find_spec("foolbox")  # its pictures are files; nothing of it need be imported
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The pictures are those of foolbox: pip install --no-deps foolbox==3.3.4.")
    folder = Path(package.origin).parent / "data"
    found = [
        (path.stem, Image.open(path).convert("RGB"), int(re.findall(r"\d+", path.stem)[-1]))
        for path in sorted(folder.glob("imagenet_*.jpg"))
    ]
    indices = {name: index for index, (_, name) in enumerate(imagenet_classes())}
    bundled = bundled_photographs()
    return found + [(name, Image.fromarray(bundled[name]), indices[what]) for name, what in SEEN.items()]


def pictures(confidences: Callable[[Any], Any]) -> tuple[Any, Any, list[str]]:
    """Choose views of the photographs of whose class a network is sure.

    The views of a photograph are its centre and its four corners, each once as large as the network is meant
    to be used and once enlarged. Taken are the first five, in this order, in which the confidence in the true
    class is at least a half.

    Parameters
    ----------
    confidences : callable
        Maps pictures (N, 3, 224, 224) in [0, 1] to the probabilities of the classes (N, K).

    Returns
    -------
    x : ndarray of float32, shape (N, 3, 224, 224)
        In [0, 1]. The views of one photograph are far apart, so that any few in a row are of several.
    y : ndarray of int64, shape (N,)
    names : list of str
        The photograph of each view.
    """
    taken = []
    for name, photograph, y in photographs():
        views = np.stack(
            [imagenet_picture(photograph, place=place, zoom=zoom) for zoom in ZOOMS for place in PLACES]
        )
        sure = [view for view, all_of in zip(views, confidences(views), strict=True) if all_of[y] >= SURE]
        taken += [(rank, name, view, y) for rank, view in enumerate(sure[:VIEWS_EACH])]
    taken.sort(key=lambda one: one[0])
    _, names, x, y = zip(*taken, strict=True)
    return np.stack(x), np.array(y), list(names)
