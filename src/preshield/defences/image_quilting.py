"""Image quilting."""

import numpy as np

from .._core.checks import check_bool, check_clip_values, check_integer, check_layout, check_rng, check_values
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.layout import from_frames, to_frames
from .._core.patches import PatchDatabase, cut_patches, places
from .._core.tensors import to_numpy
from .._core.typing import Array, ClipValues, Rng, Shape
from ..preprocessor import Preprocessor

__all__ = ["ImageQuilting"]


class ImageQuilting(Preprocessor):
    """Put each image together anew, from patches of clean images that are like its own [1]_.

    `fit` cuts the patches from clean images. For each place of a grid one of the nearest patches is drawn,
    and laid over those beside it, cut where the two differ least [2]_.

    Parameters
    ----------
    clip_values : tuple
        `(minimum, maximum)` of the data: numbers, or one for each channel. Nothing is clipped; data that are
        far from it are warned of.
    patch_size : int, default 5
        Side of a patch, in pixels.
    overlap : int, default 2
        Rows and columns that neighbouring patches share; 0 lays them side by side.
    neighbours : int, default 10
        Among how many of the nearest patches one is drawn, all as likely.
    max_patches : int, default 100000
        How many patches `fit` keeps; the authors keep a million.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)`.
    apply_fit : bool, default True
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    patches : array_like, shape (M, patch_size, patch_size, C), optional
        Patches of clean images, channels last, in place of those that `fit` cuts.
    rng : None, int or numpy.random.Generator, optional
        Source of the draws, those of `fit` included. None takes them from NumPy's global state.
    layout : {"NHWC", "NCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule; if there are no patches yet, fewer of them than `neighbours`, or
        patches with other channels; if the batch is not one of images, or a patch is larger than they are.

    Notes
    -----
    Images `(N, H, W, C)`; floating types are kept, and integers become `float32`. Distances are Euclidean, in
    the units of the data, over all channels. The last patches of rows and columns lie at the border, with a
    larger overlap. The patches are kept in single precision, in a k-d tree that takes 12 bytes for each of
    their values: 90 MB for 100,000 of 5 x 5 pixels with three channels. A larger database finds nearer
    patches, and takes longer.

    The authors cut overlaps by a minimum graph cut of both sides at once. Here the path of least error is
    found for each side by dynamic programming, as in [2]_; where both meet, a pixel is new if it lies behind
    both.

    The derivative is 0 almost everywhere. The identity stands in for it, with which [3]_ broke the defence.

    References
    ----------
    .. [1] Guo, Rana, Cisse, van der Maaten. Countering Adversarial Images using Input Transformations.
       ICLR 2018. arXiv:1711.00117
    .. [2] Efros, Freeman. Image Quilting for Texture Synthesis and Transfer. SIGGRAPH 2001.
       doi:10.1145/383259.383296
    .. [3] Athalye, Carlini, Wagner. Obfuscated Gradients Give a False Sense of Security. ICML 2018.
       arXiv:1802.00420

    Examples
    --------
    Of black and white patches, noise leaves those that are nearer:

    >>> import numpy as np
    >>> from preshield import ImageQuilting
    >>> patches = np.stack([np.zeros((2, 2, 1)), np.ones((2, 2, 1))])
    >>> noisy = np.array([[0.1, 0.0, 0.9, 1.0], [0.2, 0.3, 0.8, 0.6]])[None, :, :, None]
    >>> quilting = ImageQuilting((0, 1), patch_size=2, overlap=0, neighbours=1, patches=patches)
    >>> quilting.transform(noisy)[0, :, :, 0]
    array([[0., 0., 1., 1.],
           [0., 0., 1., 1.]])
    """

    domains = ("image",)
    stochastic = True
    paper = "arXiv:1711.00117"
    known_attacks = (
        (
            "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): BPDA and expectation over the draws, ImageNet "
            "accuracy 0%"
        ),
    )
    _learned: PatchDatabase | None = None
    _given = PatchDatabase(None)

    def __init__(
        self,
        clip_values: ClipValues,
        patch_size: int = 5,
        overlap: int = 2,
        neighbours: int = 10,
        max_patches: int = 100_000,
        channels_first: bool = False,
        apply_fit: bool = True,
        apply_predict: bool = True,
        *,
        patches: Array | None = None,
        rng: Rng = None,
        layout: str | None = None,
    ) -> None:
        check_clip_values(clip_values)
        check_integer("patch_size", patch_size, 1)
        check_integer("overlap", overlap, 0, int(patch_size) - 1)
        check_integer("neighbours", neighbours, 1)
        check_integer("max_patches", max_patches, int(neighbours))
        check_bool(channels_first=channels_first, apply_fit=apply_fit, apply_predict=apply_predict)
        check_rng(rng)
        check_layout(layout, channels_first, self.domains)
        self.clip_values = clip_values
        self.patch_size = patch_size
        self.overlap = overlap
        self.neighbours = neighbours
        self.max_patches = max_patches
        self.channels_first = channels_first
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.patches = patches
        self.rng = rng
        self.layout = layout
        if patches is not None:
            given = to_numpy(patches)
            check_values("patches", given)
            if given.ndim != 4 or given.shape[1:3] != (patch_size, patch_size) or len(given) < neighbours:
                raise ArgumentError(
                    f"`patches` must be at least {neighbours} (`neighbours`) patches of shape "
                    f"({patch_size}, {patch_size}, C), got an array of shape {given.shape}; pass fewer "
                    "neighbours, or another `patch_size`."
                )
            self._given = PatchDatabase(patches)
            self._is_fitted = True

    def _fit(self, x: Array, y: Array | None) -> None:
        images, size = self._frames(x), int(self.patch_size)
        self._check_size(images.shape)
        total = len(images) * (images.shape[1] - size + 1) * (images.shape[2] - size + 1)
        if total < self.neighbours:
            raise ArgumentError(
                f"`x` must hold at least {self.neighbours} patches (`neighbours`) of {size} x {size} pixels, "
                f"got {total} in images of shape {x.shape}; pass more images, or fewer neighbours."
            )
        seed = self._own_stream().next()
        self._learned = PatchDatabase(cut_patches(images, size, int(self.max_patches), seed))

    def _draw(self, x: Array, rng: Draws) -> Array:
        """For each place, the rank of the neighbour."""
        shape = self._frames_shape(tuple(x.shape))
        self._check_size(shape)
        tops, lefts = self._grid(shape)
        ranks: Array = rng.integers(0, int(self.neighbours), (x.shape[0], len(tops), len(lefts)))
        return ranks

    def _transform(self, x: Array, draw: Array) -> Array:
        from .._core.kernels.quilting import lay_patches

        images, database, size = self._frames(x), self._database(x.shape), int(self.patch_size)
        out = np.empty(images.shape, np.float64 if x.dtype == np.float64 else np.float32)
        (tops, lefts), count = self._grid(images.shape), int(self.neighbours)
        steps = np.arange(size)
        for n, image in enumerate(images):  # whose patches take several times its memory
            rows, columns = (np.add.outer(starts, steps) for starts in (tops, lefts))
            queries = image[rows[:, None, :, None], columns[None, :, None, :]]
            queries = queries.reshape(-1, *queries.shape[2:])
            chosen = database.nearest(queries, count, draw[n].reshape(-1)).reshape(1, len(tops), len(lefts))
            lay_patches(out[n : n + 1], database.patches, chosen, tops, lefts)
        return from_frames(out[:, None], 4, axis=self._channel_axis(4))

    def _database(self, shape: Shape) -> PatchDatabase:
        """The patches, if they suit a batch."""
        database = self._learned
        if database is None and self.patches is not None:
            if self._given.source is not self.patches:  # set since
                self._given = PatchDatabase(self.patches)
            database = self._given
        if database is None:
            raise ArgumentError(
                f"{self!r} must have patches before it is applied; call fit(x) with clean images, or pass "
                "`patches`."
            )
        wanted = (int(self.patch_size),) * 2 + (shape[self._channel_axis(4)],)
        count, *held = database.patches.shape
        if tuple(held) != wanted or count < self.neighbours:
            raise ArgumentError(
                f"`x` of shape {shape} needs at least {self.neighbours} patches of shape {wanted}, and there "
                f"are {count} of shape {tuple(held)}; call fit(x) with clean images of this kind."
            )
        return database

    def _check_size(self, shape: Shape) -> None:
        """Refuse images `(N, H, W, C)` that hold no patch."""
        if min(shape[1:3]) < self.patch_size:
            raise ArgumentError(
                f"`patch_size` must be at most the smaller side of an image, got {self.patch_size} for "
                f"images of {shape[1]} x {shape[2]} pixels."
            )

    def _grid(self, shape: Shape) -> tuple[Array, Array]:
        """First rows and first columns of the patches of images `(N, H, W, C)`."""
        size, step = int(self.patch_size), int(self.patch_size) - int(self.overlap)
        return places(shape[1], size, step), places(shape[2], size, step)

    def _frames(self, x: Array) -> Array:
        """View of images as `(N, H, W, C)`."""
        return to_frames(x, axis=self._channel_axis(4))[:, 0]

    def _frames_shape(self, shape: Shape) -> Shape:
        axis = self._channel_axis(4)
        return (*shape[:axis], *shape[axis + 1 :], shape[axis])
