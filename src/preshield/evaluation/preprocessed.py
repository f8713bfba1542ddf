"""The preprocessing of a classifier around its defences."""

from collections.abc import Callable
from typing import Any

from .._core.errors import ArgumentError
from .._core.layout import FEW_CHANNELS
from ..neural.preprocessing import Geometry, Normalisation, Preprocessing, joined, split
from ..neural.pretrained import PretrainedModel
from .classifiers import is_a, takes_channels_first

__all__ = ["check_pixels", "name_of", "names_of", "preprocessing_of", "with_normalisation"]


def preprocessing_of(classifier: Any, preprocess: Any, x: Any) -> Preprocessing:
    """What comes before the defences of a classifier, in its layout, and what comes after them.

    Parameters
    ----------
    classifier : object
        A model, or a `PretrainedModel`, which normalises itself.
    preprocess : object
        As `split` takes it.
    x : object
        The samples.

    Returns
    -------
    Preprocessing
    """
    if isinstance(classifier, PretrainedModel):
        if preprocess is not None:
            raise ArgumentError(
                f"`preprocess` must be left out for {classifier.name!r}, which brings its own, got "
                f"{preprocess!r}."
            )
        return Preprocessing(Geometry(classifier.geometry))
    parts = split(preprocess)
    if parts.geometry is not None:
        parts.geometry.channels_first = _channels_first(classifier, x)
    return parts


def with_normalisation(model: Any, normalise: Callable[[Any], Any] | None, shape: tuple[int, ...]) -> Any:
    """A model that normalises samples of this shape; one that brings its own normalisation stays as it is."""
    return model if isinstance(model, PretrainedModel) else joined(model, normalise, shape)


def check_pixels(classifier: Any, normalise: Any, low: float, high: float) -> None:
    """Refuse a range of the samples that is not the one from which the model normalises."""
    if not isinstance(classifier, PretrainedModel) and not isinstance(normalise, Normalisation):
        return
    if low < 0 or high > 1:
        remedy = f"pass x / {high:g}" if low == 0 else "bring them into it"
        raise ArgumentError(
            f"`x` must hold pixels in [0, 1] for a model that normalises them itself, got the range "
            f"({low:g}, {high:g}); {remedy}, or pass pictures of Pillow or uint8 with a transform for them."
        )


def name_of(classifier: Any) -> str:
    """What a report calls a classifier."""
    return classifier.name if isinstance(classifier, PretrainedModel) else type(classifier).__name__


def names_of(classifier: Any) -> tuple[str, ...]:
    """Names of the classes that a classifier knows; empty if it knows none."""
    return (classifier.class_names or ()) if isinstance(classifier, PretrainedModel) else ()


def _channels_first(model: Any, x: Any) -> bool:
    """Whether a model takes images as (C, H, W); a function takes them as they are given."""
    if is_a(model, "keras", "Model"):
        import keras

        return bool(keras.config.image_data_format() == "channels_first")
    shape = tuple(getattr(x, "shape", ()))
    last = len(shape) == 4 and shape[-1] in FEW_CHANNELS and shape[1] not in FEW_CHANNELS
    return takes_channels_first(model) or not last
