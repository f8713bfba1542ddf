"""Tasks made of photographs that come with scikit-image and scikit-learn."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .._core.optional import require
from .._core.typing import Array
from ..neural.imagenet import imagenet_classes, imagenet_picture

__all__ = ["CropTask", "bundled_photographs", "cut_crops", "photographs_of_imagenet"]

_TILE = 64  # pixels; a tile is either all training or all test
_CROP = 32
_STRIDE = 8  # between crops within a tile: 25 crops
_FLAT = 0.03  # a crop with a smaller standard deviation shows sky or background only

# Name of the file, which ships in the wheel, and the function of skimage.data that reads it.
_SKIMAGE = {
    "astronaut": "astronaut",
    "coffee": "coffee",
    "chelsea": "chelsea",
    "rocket": "rocket",
    "retina": "retina",
    "ihc": "immunohistochemistry",
    "hubble_deep_field": "hubble_deep_field",
    "motorcycle_left": "stereo_motorcycle",
}
_SKLEARN = ("china", "flower")
# A class of ImageNet, and where in the photograph it shows best: across, down, and enlarged.
_OF_IMAGENET = {
    "chelsea": ("Egyptian cat", (0.25, 0.5), 1.0),
    "coffee": ("espresso", (0.5, 0.5), 1.0),
    "motorcycle_left": ("moped", (0.5, 0.5), 0.9),
    "china": ("palace", (0.25, 0.0), 1.6),
}


@dataclass(frozen=True, eq=False)
class CropTask:
    """Crops of photographs; the class of a crop is the photograph that it was cut from.

    Attributes
    ----------
    x_train, x_test : ndarray of float32, shape (N, 32, 32, 3)
        Crops in [0, 1]. No pixel is in both.
    y_train, y_test : ndarray of int64, shape (N,)
        Indices into `class_names`.
    class_names : tuple of str
        One name per photograph.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    class_names: tuple[str, ...]


def bundled_photographs() -> dict[str, Array]:
    """Read ten colour photographs from the installed packages; nothing is downloaded.

    Returns
    -------
    dict of str to ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    ImportError
        If scikit-image or scikit-learn is missing.
    """
    data = require("skimage.data", extra="demo")
    datasets = require("sklearn.datasets", extra="demo")
    photographs = {}
    for name, reader in _SKIMAGE.items():
        image = getattr(data, reader)()
        photographs[name] = image[0] if isinstance(image, tuple) else image  # a stereo pair: left
    for name in _SKLEARN:
        photographs[name] = datasets.load_sample_image(f"{name}.jpg")
    return photographs


def photographs_of_imagenet() -> tuple[Array, Array]:
    """Read photographs of things that are classes of ImageNet.

    Returns
    -------
    x : ndarray of float32, shape (4, 3, 224, 224)
        Pictures in [0, 1].
    y : ndarray of int64, shape (4,)
        Indices into `imagenet_classes()`.

    Raises
    ------
    ImportError
        If scikit-image or scikit-learn is missing.
    """
    image = require("PIL.Image", extra="demo")
    photographs = bundled_photographs()
    indices = {name: index for index, (_, name) in enumerate(imagenet_classes())}
    pictures = [
        imagenet_picture(image.fromarray(photographs[name]), place=place, zoom=zoom)
        for name, (_, place, zoom) in _OF_IMAGENET.items()
    ]
    return np.stack(pictures), np.array([indices[what] for what, *_ in _OF_IMAGENET.values()])


def cut_crops(
    photographs: Mapping[str, Array], *, train_per_class: int = 150, test_per_class: int = 15
) -> CropTask:
    """Cut photographs into a training set and a test set that share no pixel.

    Each photograph is halved in size and divided into tiles of 64 x 64 pixels. Tiles whose row and
    column are both odd (counted from zero) are the test set. From each tile come crops of 32 x 32
    pixels every 8 pixels; crops with a standard deviation below 0.03 are left out. Of the crops of
    a photograph an evenly spaced choice is kept, so that a large photograph does not outweigh the
    others.

    Parameters
    ----------
    photographs : mapping of str to ndarray of uint8, shape (H, W, 3)
        The classes.
    train_per_class, test_per_class : int
        The most crops that one photograph gives to each set.

    Returns
    -------
    CropTask

    Raises
    ------
    ValueError
        If a photograph has no crop in one of the two sets.
    """
    crops: dict[bool, list[Array]] = {False: [], True: []}
    labels: dict[bool, list[int]] = {False: [], True: []}
    for label, (name, photograph) in enumerate(photographs.items()):
        tiles = _tiles(_halve(photograph))
        for test, limit in ((False, train_per_class), (True, test_per_class)):
            mine = [crop for is_test, tile in tiles if is_test == test for crop in _crops(tile)]
            if not mine:
                raise ValueError(
                    f"photograph {name!r} of shape {photograph.shape} gives no crop to the "
                    f"{'test' if test else 'training'} set; each side must have at least "
                    f"{4 * _TILE} pixels and some contrast"
                )
            chosen = np.linspace(0, len(mine) - 1, min(limit, len(mine))).round().astype(int)
            crops[test] += [mine[index] for index in chosen]
            labels[test] += [label] * len(chosen)
    return CropTask(
        x_train=np.stack(crops[False]),
        y_train=np.array(labels[False]),
        x_test=np.stack(crops[True]),
        y_test=np.array(labels[True]),
        class_names=tuple(photographs),
    )


def _halve(photograph: Array) -> Array:
    """Average each 2 x 2 block; the result is float32 in [0, 1]."""
    height, width = photograph.shape[0] // 2, photograph.shape[1] // 2
    blocks = photograph[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    halved: Array = (blocks.mean(axis=(1, 3)) / 255).astype(np.float32)
    return halved


def _tiles(image: Array) -> list[tuple[bool, Array]]:
    """Whole tiles in reading order, and whether each belongs to the test set."""
    return [
        (
            row % 2 == 1 and column % 2 == 1,
            image[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE],
        )
        for row in range(image.shape[0] // _TILE)
        for column in range(image.shape[1] // _TILE)
    ]


def _crops(tile: Array) -> list[Array]:
    """Crops that lie within the tile and are not flat."""
    starts = range(0, _TILE - _CROP + 1, _STRIDE)
    crops = [tile[i : i + _CROP, j : j + _CROP] for i in starts for j in starts]
    return [crop for crop in crops if crop.std() >= _FLAT]
