"""Purification by a diffusion model: noise is added, and taken away step by step."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from .._core.checks import (
    check_bool,
    check_clip_values,
    check_integer,
    check_layout,
    check_number,
    check_option,
    check_rng,
)
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.progress import progress_bar
from .._core.typing import Array, ClipValues, Rng, Shape
from .._core.unit_range import from_unit_range, range_of, to_unit_range
from ..neural.diffusion import Diffusion, Noise, respaced, schedule_of
from ..neural.diffusion_model import DiffusionModel
from ..neural.layers import framework_of
from ..preprocessor import Preprocessor

__all__ = ["DiffusionPurification"]

SAMPLERS = {"ddpm": 1.0, "ddim": 0.0}  # the share of noise that a step back adds anew


class DiffusionPurification(Preprocessor):
    """Add noise to each image and let a diffusion model of clean images take it away again [1]_.

    An attack drowns in the noise, and what the model makes of the rest is a clean image. Known as DiffPure.

    Parameters
    ----------
    clip_values : tuple, default (0.0, 1.0)
        `(minimum, maximum)` of the data: numbers, or arrays with one entry for each channel. Values outside
        are saturated, before and after.
    model : DiffusionModel, torch.nn.Module or pipeline of diffusers, optional
        Model of clean images in [-1, 1], of the size of `x`. A `DiffusionModel` that is not trained yet says
        what `fit` trains; None is the default one. Otherwise a torch module, such as a ``UNet2DModel`` of
        diffusers, which maps noisy images `(N, C, H, W)` and their timesteps `(N,)` to the noise, or a
        pipeline that holds such a module as ``unet``, and its ``scheduler``.
    t_star : float, default 0.1
        How far the noise goes, as a share of the timesteps of the model: above 0, and 1 at most. In the paper
        0.1 for CIFAR-10 (0.075 against L2 attacks) and 0.15 for ImageNet.
    steps : int, optional
        Evaluations of the network for each image, at evenly spaced timesteps. None takes all of them back
        from `t_star`, as in the paper: 100 with the defaults.
    sampler : {"ddpm", "ddim"}, default "ddpm"
        Whether each step back adds noise anew [2]_ or none [3]_.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    gradient : {"exact", "surrogate", "identity"}, default "exact"
        The backward pass: through all steps; through a way back of `surrogate_steps` from the same noise
        [4]_; or the identity.
    surrogate_steps : int, default 5
        Steps of the surrogate; not more than there are.
    schedule : {"linear", "cosine"}, array_like or object, optional
        Which share of the variance of an image is left after each timestep, for a module: a scheduler of
        diffusers, or any object with an array ``alphas_cumprod``, or that array; "linear" and "cosine" have
        1000 timesteps. A scheduler also says what the module predicts: "epsilon", "v_prediction" or "sample".
    rng : None, int or numpy.random.Generator, optional
        Source of the noise. None takes it from NumPy's global state.
    batch_size : int, default 128
        Images that the network is given at once, at most.
    verbose : bool, default False
        Whether to show progress bars.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)`.
    layout : {"NHWC", "NCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, the model is not trained, its images are of another size than those of
        `x`, there are fewer timesteps up to `t_star` than `steps`, or the model returns something else than
        finite numbers in the shape of its images.

    Notes
    -----
    Images `(N, H, W, C)`; `float32`. The network runs in torch where its weights lie and in their floating
    type, as in prediction, whichever framework the batch comes from; a batch on a device passes through the
    host. Of outputs with twice the channels, as of networks that learn variances, the first half counts. A
    scheduler gives its shares alone: the steps are those of `sampler`, with the smaller of the two variances
    of [2]_ and without clipping in between.

    The noise of an image depends on the seed and on the number of the image alone, not on the batch, the
    device or the layout; that of a timestep is the same for any `steps`. The network may round differently in
    a batch of another size.

    The exact gradient is that of the whole, the two saturations included. It keeps one image for each step
    and the activations of the network for one step at a time, which it computes again: with the result that
    was there before, three forward passes and one backward pass through all steps. The surrogate has the
    derivatives of its shorter way back at the same image and noise; the saturation of the result is taken for
    the identity.

    ``fit(x)`` trains the model, unless there is a trained one; keywords go to `DiffusionModel.fit`. The
    result is in ``model_``.

    References
    ----------
    .. [1] Nie, Guo, Huang, Xiao, Vahdat, Anandkumar. Diffusion Models for Adversarial Purification. ICML
       2022. arXiv:2205.07460
    .. [2] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020. arXiv:2006.11239
    .. [3] Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR 2021. arXiv:2010.02502
    .. [4] Lee, Kim. Robust Evaluation of Diffusion-Based Adversarial Purification. ICCV 2023.
       arXiv:2303.09051

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch")
    >>> import numpy as np
    >>> from preshield import DiffusionModel, DiffusionPurification
    >>> x = np.zeros((8, 4, 4, 1), dtype=np.float32)
    >>> x[:, :, 2:] = 1  # each image: the left half black, the right half white
    >>> model = DiffusionModel(width=8, timesteps=20).fit(x, epochs=100, learning_rate=2e-2)
    >>> attacked = x[:1].copy()
    >>> attacked[0, 0, 0] = 1
    >>> DiffusionPurification(model=model, t_star=0.5, rng=0).transform(attacked)[0, 0, :, 0].round()
    array([0., 0., 1., 1.], dtype=float32)
    """

    domains = ("image",)
    stochastic = True
    gradient_kind = "exact"
    gradients = ("identity", "surrogate", "exact")
    output_dtype = "float32"
    paper = "arXiv:2205.07460"
    known_attacks = (
        (
            "Lee and Kim 2023 (arXiv:2303.09051): PGD and averaged gradients of fewer steps, CIFAR-10 "
            "accuracy 47% at L-inf 0.031, where its own paper has 71%"
        ),
        (
            "Kang, Song, Li 2023 (arXiv:2311.16124), DiffAttack: losses at steps in between, accuracy lower "
            "by more than 20% on CIFAR-10 and 10% on ImageNet"
        ),
        "Kassis, Hengartner, Yu 2024 (arXiv:2411.16598): with right gradients and several tries it collapses",
    )

    model_: Any = None

    def __init__(
        self,
        clip_values: ClipValues = (0.0, 1.0),
        model: Any = None,
        t_star: float = 0.1,
        steps: int | None = None,
        sampler: str = "ddpm",
        apply_fit: bool = False,
        apply_predict: bool = True,
        *,
        gradient: str = "exact",
        surrogate_steps: int = 5,
        schedule: Any = None,
        rng: Rng = None,
        batch_size: int = 128,
        verbose: bool = False,
        channels_first: bool = False,
        layout: str | None = None,
    ) -> None:
        check_clip_values(clip_values)
        _check_model(model, schedule)
        check_number("t_star", t_star, 0, 1)
        if not t_star:
            raise ArgumentError(f"`t_star` must be above 0, got {t_star!r}.")
        if steps is not None:
            check_integer("steps", steps, 1)
        check_option("sampler", sampler, tuple(SAMPLERS))
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, verbose=verbose)
        check_option("gradient", gradient, self.gradients)
        check_integer("surrogate_steps", surrogate_steps, 1)
        check_rng(rng)
        check_integer("batch_size", batch_size, 1)
        check_bool(channels_first=channels_first)
        check_layout(layout, channels_first, self.domains)
        self.clip_values = clip_values
        self.model = model
        self.t_star = t_star
        self.steps = steps
        self.sampler = sampler
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.gradient = gradient
        self.surrogate_steps = surrogate_steps
        self.schedule = schedule
        self.rng = rng
        self.batch_size = batch_size
        self.verbose = verbose
        self.channels_first = channels_first
        self.layout = layout

    def _draw(self, x: Array, rng: Draws) -> Draws:
        alphas = schedule_of(self._network()[1])
        return rng.reserve(_block(x.shape) * (self._last(alphas) + 1))

    def _transform(self, x: Array, draw: Draws) -> Array:
        diffusion, images = self._diffusion(x), self._as_seen(x)
        steps = self._steps(diffusion)
        out = np.empty(images.shape, np.float32)
        name = type(self).__name__
        with progress_bar(total=len(x) * len(steps), desc=name, disable=not self.verbose) as bar:
            for rows in self._batches(x):
                eta, noise = SAMPLERS[self.sampler], _noise(draw, rows, images.shape)
                for step, state in enumerate(diffusion.states(images[rows], steps, noise, eta=eta)):
                    last = state
                    bar.update(len(state) if step else 0)  # noise comes first
                out[rows] = last.cpu().numpy()
        return self._as_given(_finite(out), x)

    def _gradient(self, x: Array, grad: Array, draw: Draws) -> Array:
        if self.gradient == "identity":
            return grad
        diffusion, images = self._diffusion(x), self._as_seen(x)
        steps, axis = self._steps(diffusion), self._channel_axis(x.ndim)
        exact = self.gradient == "exact"
        if not exact:
            steps = respaced(steps[0], min(int(self.surrogate_steps), len(steps)))
        low, span = range_of(x, self.clip_values, axis=axis)
        given = np.moveaxis(grad * (span / 2), axis, 1)
        pulled = np.empty(images.shape, np.float64)
        for rows in self._batches(x):

            def unsaturated(found: Array, rows: slice = rows) -> Array:
                return np.where(abs(found) <= 1, given[rows], 0) if exact else given[rows]

            pulled[rows] = diffusion.pull_back(
                images[rows],
                steps,
                _noise(draw, rows, images.shape),
                unsaturated,
                eta=SAMPLERS[self.sampler],
            )
        pulled = np.moveaxis(_finite(pulled), 1, axis) * (2 / span)
        share = (x.astype(low.dtype, copy=False) - low) / span
        return np.where((share >= 0) & (share <= 1), pulled, 0)

    def _fit(self, x: Array, y: Array | None, **options: Any) -> None:
        model = self.model
        if self._learns:
            model = copy.deepcopy(model) or DiffusionModel()
            images = to_unit_range(x, self.clip_values, axis=self._channel_axis(x.ndim))
            model.fit(images, **{"verbose": self.verbose, **options})
        elif options:
            name = next(iter(options))
            raise ArgumentError(
                f"fit() got an unexpected keyword argument {name!r}: `model` is trained already."
            )
        else:
            self._diffusion(x)
        self.model_ = model

    @property
    def _learns(self) -> bool:
        return self.model is None or (isinstance(self.model, DiffusionModel) and not self.model.is_fitted)

    def _network(self) -> tuple[Any, Any]:
        """The torch module and its schedule."""
        model = self.model_ if self._learns else self.model
        if model is None:
            raise ArgumentError(
                "This DiffusionPurification has no trained model yet: call fit(x) with clean training images "
                "first, or pass a trained `model`."
            )
        if isinstance(model, DiffusionModel):
            return model.network, model
        return _module(model), self.schedule if self.schedule is not None else model.scheduler

    def _diffusion(self, x: Array) -> Diffusion:
        """The model, if it takes images of the size of `x`."""
        network, schedule = self._network()
        axis = self._channel_axis(x.ndim)
        height, width, channels = np.moveaxis(np.empty((1, *x.shape[1:]), bool), axis, -1).shape[1:]
        found = dict(zip(("height", "width", "channels"), (height, width, channels), strict=True))
        known = _known_size(network, schedule)
        if any(known[name] not in (None, size) for name, size in found.items()):
            wanted = ", ".join(f"{name} {size}" for name, size in known.items() if size is not None)
            given = ", ".join(f"{name} {size}" for name, size in found.items())
            raise ArgumentError(
                f"`x` must hold images of the size that `model` knows, {wanted}, got {given}; resize them "
                "before, or give a model of images like these."
            )
        return Diffusion(network, schedule)

    def _last(self, alphas: Array) -> int:
        """The timestep up to which noise is added."""
        return max(1, round(float(self.t_star) * len(alphas))) - 1

    def _steps(self, diffusion: Diffusion) -> list[int]:
        last = self._last(diffusion.alphas)
        steps = last + 1 if self.steps is None else int(self.steps)
        if steps > last + 1:
            raise ArgumentError(
                f"`steps` must be at most the number of timesteps up to `t_star`, {last + 1} of "
                f"{len(diffusion.alphas)}, got {steps}; pass steps=None for all of them."
            )
        return respaced(last, steps)

    def _batches(self, x: Array) -> Iterator[slice]:
        size = int(self.batch_size)
        return (slice(i, i + size) for i in range(0, len(x) if x.size else 0, size))

    def _as_seen(self, x: Array) -> Array:
        """Images `(N, C, H, W)` in [-1, 1]."""
        images = to_unit_range(x, self.clip_values, axis=self._channel_axis(x.ndim))
        return 2 * np.moveaxis(images, -1, 1) - 1

    def _as_given(self, images: Array, x: Array) -> Array:
        """Images of the model in the range and the layout of `x`."""
        images = np.moveaxis(np.clip((images + 1) / 2, 0, 1), 1, -1)
        return from_unit_range(images, x, self.clip_values, axis=self._channel_axis(x.ndim))


def _check_model(model: Any, schedule: Any) -> None:
    """Refuse what is no model, and a schedule that is missing or one too many."""
    if schedule is not None:
        schedule_of(schedule)
    if model is None or isinstance(model, DiffusionModel):
        if schedule is not None:
            raise ArgumentError(
                "`schedule` must be None, because a DiffusionModel has its own, got "
                f"{schedule!r}; pass model=DiffusionModel(schedule=...)."
            )
        return
    _module(model)
    if schedule is None:
        if not hasattr(model, "scheduler"):
            raise ArgumentError(
                "`schedule` must be given with a torch module: the scheduler that it was trained with, or "
                "'linear' or 'cosine' if it knows 1000 timesteps of noise."
            )
        schedule_of(model.scheduler)


def _module(model: Any) -> Any:
    """The torch module that a model is, or a pipeline holds."""
    for module in (model, getattr(model, "unet", None)):
        with suppress(TypeError):
            if framework_of(module) == "torch":
                return module
    raise ArgumentError(
        "`model` must be None, a DiffusionModel, a torch module or a pipeline of diffusers, got an object of "
        f"type {type(model).__name__}."
    )


def _known_size(network: Any, schedule: Any) -> dict[str, int | None]:
    """Height, width and channels of the images that a model knows, as far as it says."""
    if isinstance(schedule, DiffusionModel):
        size: Shape = schedule.input_shape or ()
        return dict(zip(("height", "width", "channels"), size, strict=True))
    config = getattr(network, "config", None)
    side = getattr(config, "sample_size", None)
    height, width = side if isinstance(side, tuple | list) else (side, side)
    return {"height": height, "width": width, "channels": getattr(config, "in_channels", None)}


def _block(shape: Shape) -> int:
    """Words of a sample for noise of its size; even."""
    values = int(np.prod(shape[1:]))
    return values + values % 2


def _noise(draw: Draws, rows: slice, shape: Shape) -> Noise:
    """Blocks of normals for some images of a batch `(N, C, H, W)`."""
    index = draw.index[rows]

    def noise(block: int) -> Array:
        part = Draws(draw.key, index, draw.first + block * _block(shape))
        made: Array = part.standard_normal((len(index), *shape[1:]), np.float32)
        return made

    return noise


def _finite(images: Array) -> Array:
    if not np.isfinite(images).all():
        raise ArgumentError(
            f"`model` must return finite numbers, got {int((~np.isfinite(images)).sum())} values that are "
            "NaN or infinite after the last step; is `schedule` the one that it was trained with?"
        )
    return images
