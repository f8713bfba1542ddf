"""Patches of images, and those of a database that are nearest to them."""

from typing import Any

import numpy as np

from .tensors import to_numpy
from .threads import map_blocks
from .typing import Array, Seed

__all__ = ["PatchDatabase", "cut_patches", "places"]

QUERIES = 1 << 10  # that a thread asks at once


class PatchDatabase:
    """Clean patches, and a tree in which their neighbours are found.

    Parameters
    ----------
    source : array_like, shape (M, size, size, C)
        Kept as it is; the tree is made when it is first needed, and left out of pickles.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._found: tuple[Array, Array, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "_found": None}

    @property
    def patches(self) -> Array:
        """In single precision, C-contiguous."""
        return self._held()[0]

    def nearest(self, queries: Array, count: int, ranks: Array) -> Array:
        """The number of one of the nearest patches for each query.

        Parameters
        ----------
        queries : ndarray, shape (Q, size, size, C)
            Finite numbers.
        count : int
            How many neighbours are looked for, in Euclidean distance.
        ranks : ndarray of int, shape (Q,)
            Which of them to return, from 0, the nearest one, to below `count`.
        """
        _, axes, tree = self._held()
        flat, out = queries.reshape(len(queries), -1) @ axes, np.empty(len(queries), np.int64)

        def work(rows: slice) -> None:
            numbers = np.asarray(tree.query(flat[rows], k=range(1, count + 1))[1])
            out[rows] = np.take_along_axis(numbers, ranks[rows, None], axis=1)[:, 0]

        map_blocks(work, len(flat), QUERIES)
        return out

    def _held(self) -> tuple[Array, Array, Any]:
        """The patches, their principal axes, and a tree along these.

        Distances are the same along any axes, but most of the variance of images is in a few of these: a tree
        finds neighbours 6 to 9 times as fast.
        """
        found = self._found
        if found is None:
            from scipy.spatial import cKDTree

            patches = np.ascontiguousarray(to_numpy(self.source), np.float32)
            flat = patches.reshape(len(patches), -1).astype(np.float64)
            _, axes = np.linalg.eigh(flat.T @ flat)
            found = self._found = patches, axes, cKDTree(flat @ axes)
        return found


def places(side: int, size: int, step: int) -> Array:
    """Where patches along one axis begin: a step apart, and the last one at the border."""
    starts = np.arange(0, side - size + 1, step)
    return starts if starts[-1] == side - size else np.append(starts, side - size)


def cut_patches(images: Array, size: int, most: int, seed: Seed) -> Array:
    """Patches of images `(N, H, W, C)`, each at another place, `most` of them or all that there are.

    The places, counted through all images, fall into as many equal shares as there are patches, and each
    share draws one of them: so memory holds no more than the patches.
    """
    count, height, width = len(images), images.shape[1] - size + 1, images.shape[2] - size + 1
    total = count * height * width
    chosen = np.arange(total)
    if total > most:
        ends = np.arange(most + 1) * total // most
        chosen = np.random.default_rng(seed).integers(ends[:-1], ends[1:])
    image, row, column = np.unravel_index(chosen, (count, height, width))
    out = np.empty((len(chosen), size, size, images.shape[3]), np.float32)
    for i in range(size):
        for j in range(size):
            out[:, i, j] = images[image, row + i, column + j]
    return out
