"""The preprocessing of a model in two parts: what comes before a defence, and what comes after it.

A defence works on pixels, in the size that the model sees. So the resize and the crop of a model come before
it, and the normalisation after it.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.checks import check_values
from .._core.errors import ArgumentError, noted
from .._core.layout import FEW_CHANNELS
from .._core.pictures import is_picture, plain
from .._core.tensors import framework, to_numpy
from .._core.typing import Array

__all__ = ["Geometry", "Normalisation", "Preprocessing", "joined", "split", "stacked"]

# Transforms of torchvision and timm that draw nothing, and make one picture or tensor of one picture
GEOMETRY = {
    "CenterCrop",
    "CenterCropOrPad",
    "ConvertImageDtype",
    "Grayscale",
    "Lambda",
    "MaybePILToTensor",
    "MaybeToTensor",
    "PILToTensor",
    "Pad",
    "Resize",
    "ResizeKeepRatio",
    "ToDtype",
    "ToImage",
    "ToPILImage",
    "ToTensor",
    "TrimBorder",
}
NOTHING = {"Identity", "ToPureTensor"}
RANDOM = ("random_scale_prob", "random_aspect_prob")  # of `ResizeKeepRatio`, which may draw
LEVELS = 255
PROBES = ((64, 48), (48, 64))  # sizes of pictures
REMEDY = (
    "pass the transform that the model was tested with, such as `weights.transforms()` of torchvision or "
    "`timm.data.create_transform(**timm.data.resolve_model_data_config(model))`"
)


class Normalisation:
    """Subtract the mean of each channel and divide by its standard deviation, in any framework.

    Parameters
    ----------
    mean, std : sequence of float
        One for each channel, or one for all.
    scale : float, default 1.0
        Factor of the pixels before that.
    channels_first : bool, default True
        Where the channels of a batch are if its shape leaves this open.
    """

    def __init__(self, mean: Any, std: Any, *, scale: float = 1.0, channels_first: bool = True) -> None:
        self.mean, self.std = (np.asarray(to_numpy(v), np.float64).reshape(-1) for v in (mean, std))
        self.scale = float(scale)
        self.channels_first = channels_first

    def __call__(self, x: Any) -> Any:
        """Pixels (N, C, H, W) or (N, H, W, C), normalised, as part of the same graph."""
        count = max(len(self.mean), len(self.std))
        shape: tuple[int, ...] = (-1,)
        if count > 1:
            axes = (-3, -1) if self.channels_first else (-1, -3)
            axis = next((axis for axis in axes if len(x.shape) > 2 and x.shape[axis] == count), None)
            if axis is None:
                raise ArgumentError(
                    f"`preprocess` normalises {count} channels, and the model is given samples of shape "
                    f"{tuple(x.shape[1:])}; pass images (N, {count}, H, W) or (N, H, W, {count})."
                )
            shape = (-1, 1, 1) if axis == -3 else shape
        mean, std = (_like(x, values.reshape(shape)) for values in (self.mean, self.std))
        return ((x if self.scale == 1 else x * self.scale) - mean) / std


class Geometry:
    """The resize and the crop of a model: a picture becomes pixels in [0, 1].

    Parameters
    ----------
    transform : callable
        Maps an RGB image of Pillow to what an array can be made of: `(C, H, W)` in [0, 1].
    channels_first : bool, default True
        Whether the result is `(C, H, W)`, or `(H, W, C)`.
    """

    def __init__(self, transform: Callable[[Any], Any], *, channels_first: bool = True) -> None:
        self._transform = transform
        self.channels_first = channels_first

    @property
    def sizes(self) -> set[tuple[int, ...]]:
        """Shapes of what it makes of a wide and of a high picture: one, if it brings all to one size."""
        from PIL import Image

        return {self(Image.new("RGB", size)).shape for size in PROBES}

    def check_size(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that are no pictures and have not the size of the model either."""
        if shape not in (sizes := self.sizes) and len(sizes) == 1:
            raise ArgumentError(
                "`x` must hold pictures, of Pillow or of uint8, which are brought to the shape "
                f"{sizes.pop()}, or pixels of that shape in [0, 1], got samples of shape {shape}; pass the "
                "pictures."
            )

    def __call__(self, picture: Any) -> Array:
        """Pixels of a picture.

        Parameters
        ----------
        picture : PIL.Image.Image or ndarray of uint8
            An image of Pillow, or its values (H, W), (H, W, C) or (C, H, W).

        Returns
        -------
        ndarray of float32, shape (C, H, W) or (H, W, C)
            In [0, 1].

        Raises
        ------
        ArgumentError
            If it is no picture, or the transform does not make pixels of it.
        """
        with noted("Raised by `preprocess` when it was called with a picture."):
            made = self._transform(_rgb(picture))
        pixels = np.asarray(to_numpy(made))
        if pixels.ndim != 3 or pixels.dtype.kind != "f":
            raise ArgumentError(
                "`preprocess` must turn a picture into one tensor (C, H, W) of floating numbers before it "
                f"normalises, got shape {pixels.shape} of {pixels.dtype}; {REMEDY}."
            )
        check_values("preprocess", pixels)
        low, high = float(pixels.min()), float(pixels.max())
        if low < -0.5 or high > 1.5:  # interpolation of floating numbers overshoots by less
            raise ArgumentError(
                "`preprocess` must turn a picture into pixels in [0, 1] before it normalises, got values "
                f"from {low:.4g} to {high:.4g}; {REMEDY}."
            )
        pixels = pixels.astype(np.float32).clip(0, 1)
        return pixels if self.channels_first else np.moveaxis(pixels, 0, -1)


@dataclass(frozen=True)
class Preprocessing:
    """What a model needs around a defence.

    Attributes
    ----------
    geometry : Geometry or None
        Comes before the defence.
    normalise : callable or None
        Comes after it: maps a batch of the model's framework to another, and is differentiable.
    """

    geometry: Geometry | None = None
    normalise: Callable[[Any], Any] | None = None


def split(preprocess: Any) -> Preprocessing:
    """Take the preprocessing of a model apart.

    Parameters
    ----------
    preprocess : object
        `weights.transforms()` of torchvision; a `Compose` of torchvision, such as timm's transforms; an image
        processor of transformers; any other callable is a normalisation of batches.

    Returns
    -------
    Preprocessing

    Raises
    ------
    ArgumentError
        If it is none of these, draws, or changes the geometry after it has normalised.
    """
    if preprocess is None:
        return Preprocessing()
    preprocess = getattr(preprocess, "image_processor", preprocess)  # of a model of pictures and texts
    if hasattr(preprocess, "do_normalize") and hasattr(preprocess, "image_mean"):
        return _of_processor(preprocess)
    library, _, path = type(preprocess).__module__.partition(".")
    name = type(preprocess).__name__
    if library == "torchvision" and path == "transforms._presets":
        return _of_preset(preprocess)
    if library in ("torchvision", "timm") and path.startswith(("transforms", "data")):
        return _of_steps(preprocess.transforms if name == "Compose" else [preprocess])
    if not callable(preprocess):
        raise ArgumentError(
            "`preprocess` must be a function of batches, a transform of torchvision or timm, or an image "
            f"processor of transformers, got {preprocess!r}."
        )
    return Preprocessing(None, preprocess)


def joined(model: Any, normalise: Callable[[Any], Any] | None, sample: Sequence[int]) -> Any:
    """A model that normalises what it is given: a torch module, a Keras model or a function, as `model` is.

    Parameters
    ----------
    model : object
        What normalised samples are for.
    normalise : callable or None
        Maps a batch of the framework to another.
    sample : sequence of int
        Shape of one sample.

    Returns
    -------
    object
        `model` itself if there is nothing to do.
    """
    if normalise is None:
        return model
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(model, keras.Model):
        if isinstance(normalise, Normalisation):
            normalise = copy(normalise)
            normalise.channels_first = keras.config.image_data_format() == "channels_first"
        entry = keras.Input(tuple(sample))
        return keras.Model(entry, model(keras.layers.Lambda(normalise)(entry), training=False))
    if torch is not None and isinstance(model, torch.nn.Module):
        from .normalised_module import NormalisedModule

        return NormalisedModule(model, normalise)
    if not callable(model) or hasattr(model, "predict") or hasattr(model, "predict_proba"):
        raise ArgumentError(
            "`preprocess` is for a torch module, a Keras model or a function, got a classifier of type "
            f"{type(model).__module__}.{type(model).__name__}; let it preprocess its samples itself."
        )
    return _Composed(model, normalise)


def stacked(samples: Iterable[Array]) -> Array:
    """Pixels of several pictures as one batch."""
    made = list(samples)
    shapes = sorted({pixels.shape for pixels in made})
    if len(shapes) > 1:
        raise ArgumentError(
            f"`preprocess` must bring all pictures to one size, got {shapes[0]} and {shapes[1]}; add a crop "
            "to the transform."
        )
    return np.stack(made)


class _Composed:
    """A function of what another one returns; a class, so that workers can be sent it."""

    def __init__(self, model: Callable[[Any], Any], normalise: Callable[[Any], Any]) -> None:
        self.model, self.normalise = model, normalise

    def __call__(self, x: Any) -> Any:
        return self.model(self.normalise(x))


def _of_preset(preset: Any) -> Preprocessing:
    if type(preset).__name__ != "ImageClassification":
        raise ArgumentError(
            "`preprocess` must be the transform of a classifier of images, got "
            f"{type(preset).__name__}() of torchvision."
        )
    pixels = copy(preset)  # which normalises by nothing, so that what remains is its own geometry
    pixels.mean, pixels.std = [0.0] * len(preset.mean), [1.0] * len(preset.std)
    return Preprocessing(Geometry(pixels), Normalisation(preset.mean, preset.std))


def _of_steps(steps: Sequence[Any]) -> Preprocessing:
    """The two parts of a `Compose`: what precedes the first `Normalize`, and the rest."""
    flat = [step for step in _flat(steps) if type(step).__name__ not in NOTHING]
    place = next((i for i, step in enumerate(flat) if _is_normalize(step)), len(flat))
    before, after = flat[:place], flat[place:]
    for step in before:
        ours = type(step).__module__.partition(".")[0] in ("torchvision", "timm")
        if ours and (type(step).__name__ not in GEOMETRY or any(getattr(step, key, 0) for key in RANDOM)):
            raise ArgumentError(
                f"`preprocess` must give a picture the same pixels each time, got {step!r}, which is for "
                f"training or for several pictures; {REMEDY}."
            )
    for step in after:
        if not _is_normalize(step):
            raise ArgumentError(
                "`preprocess` must end with its normalisation, because the defence comes before that and "
                f"after the geometry, got {step!r} behind it; put it before Normalize, or into the model."
            )
    normalisations = [Normalisation(step.mean, step.std) for step in after]
    several = _Several(normalisations) if after else None
    return Preprocessing(
        Geometry(_Several(before)) if before else None,
        normalisations[0] if len(normalisations) == 1 else several,
    )


class _Several:
    """Functions one after the other."""

    def __init__(self, functions: Sequence[Callable[[Any], Any]]) -> None:
        self._functions = tuple(functions)

    def __call__(self, x: Any) -> Any:
        for function in self._functions:
            x = function(x)
        return x


def _of_processor(processor: Any) -> Preprocessing:
    """Those of an image processor of transformers, which scales by 1/255 unless it says otherwise."""
    if getattr(processor, "rescale_offset", False):
        raise ArgumentError(
            f"`preprocess` must scale pixels by a factor alone, got {type(processor).__name__} with "
            "rescale_offset=True; pass a function that normalises batches in [0, 1], and resized pictures."
        )

    def pixels(picture: Any) -> Any:
        made = processor(
            images=picture,
            do_rescale=True,
            rescale_factor=1 / LEVELS,
            do_normalize=False,
            return_tensors="pt",
        )["pixel_values"]
        return made[0] if len(made) == 1 else made

    scale = LEVELS * processor.rescale_factor if processor.do_rescale else LEVELS
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    return Preprocessing(
        Geometry(pixels), Normalisation(mean, std, scale=1.0 if np.isclose(scale, 1, 1e-9) else scale)
    )


def _flat(steps: Sequence[Any]) -> list[Any]:
    """Transforms, those of a `Compose` or `Sequential` within too."""
    nested = [
        list(getattr(step, "transforms", step)) if type(step).__name__ in ("Compose", "Sequential") else None
        for step in steps
    ]
    return [
        leaf
        for step, inner in zip(steps, nested, strict=True)
        for leaf in ([step] if inner is None else _flat(inner))
    ]


def _is_normalize(step: Any) -> bool:
    return type(step).__name__ == "Normalize" and hasattr(step, "mean") and hasattr(step, "std")


def _rgb(picture: Any) -> Any:
    """A picture as an RGB image of Pillow."""
    from PIL import Image

    if not is_picture(picture):
        levels = np.asarray(to_numpy(picture))
        if levels.ndim == 3 and levels.shape[-1] not in FEW_CHANNELS and levels.shape[0] in FEW_CHANNELS:
            levels = np.moveaxis(levels, 0, -1)
        if levels.ndim == 3 and levels.shape[-1] == 1:
            levels = levels[..., 0]
        if levels.dtype != np.uint8 or (levels.ndim != 2 and levels.shape[2:] != (3,)):
            raise ArgumentError(
                "`preprocess` resizes pictures: images of Pillow, or arrays (H, W, 3) of uint8, got one of "
                f"shape {levels.shape} of {levels.dtype}; pass the pictures, or pixels in the size of the "
                "model with a function that normalises them as `preprocess`."
            )
        picture = Image.fromarray(levels)
    return plain(picture).convert("RGB")


def _like(x: Any, values: Array) -> Any:
    """Numbers in the framework, in the type and on the device of a tensor."""
    kind = framework(x)
    if kind == "torch":
        return sys.modules["torch"].as_tensor(values, dtype=x.dtype, device=x.device)
    if kind == "tensorflow":
        return sys.modules["tensorflow"].constant(values, x.dtype)
    return values.astype(x.dtype)
