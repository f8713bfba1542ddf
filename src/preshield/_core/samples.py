"""One sample, as data pipelines hold it: the batch axis added and taken away, and images of Pillow."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from .errors import ArgumentError
from .layout import LARGE, as_array
from .tensors import framework
from .typing import ClipValues, Defence, Shape

__all__ = ["check_keeps_samples", "drawing", "leaves", "sample_axes", "transform_one"]

COLOURS = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3}  # of the modes of Pillow; alpha comes after them
LEVELS = 255


def transform_one(defence: Defence, x: Any, index: Any = None) -> Any:
    """Apply `defence` to one sample of any framework, or to an image of Pillow."""
    check_keeps_samples(defence, "`transform_one`")
    images = sys.modules.get("PIL.Image")
    if images is not None and isinstance(x, images.Image):
        return _transform_image(defence, x, index)
    kind = framework(x)
    if kind == "tensorflow":
        tf = sys.modules["tensorflow"]
        axes = sample_axes(defence.domains)
        if x.shape.rank is None and len(axes) == 1:  # as the decoders of a tf.data pipeline leave it
            x = tf.ensure_shape(x, [None] * axes.pop())
        if x.shape.rank is not None:
            _check_sample(defence, tuple(x.shape))
        return defence.transform(tf.expand_dims(x, 0), index=index)[0]
    if kind == "numpy":
        x = as_array(x)
    _check_sample(defence, tuple(x.shape))
    return defence.transform(x[None], index=index)[0]


def sample_axes(domains: tuple[str, ...]) -> set[int]:
    """How many axes a sample may have.

    A defence of images and videos takes one image: a video, which has as many axes as a batch of images,
    goes in a batch.
    """
    axes = {"image": {3}, "video": set() if "image" in domains else {4}, "audio": {1, 2}, "features": {1}}
    return set().union(*(axes.get(domain, set()) for domain in domains))


def leaves(defence: Defence) -> Iterator[Defence]:
    """The stages of a chain, of those within it too; else the defence itself."""
    if not defence._stages:
        yield defence
    for stage in defence._stages:
        yield from leaves(stage)


def drawing(defence: Defence) -> Iterator[Defence]:
    """Those with a random stream of their own: the defence, its stages, and those within them."""
    if defence._owns_stream:
        yield defence
    for stage in defence._stages:
        yield from drawing(stage)


def check_keeps_samples(defence: Defence, what: str) -> None:
    """Refuse a defence that needs labels, or has more or fewer samples after it."""
    if defence.domains == ("labels",) or defence._changes_labels or not _keeps_their_number(defence):
        raise ArgumentError(
            f"{what} takes a defence that changes neither labels nor the number of samples, got {defence!r}; "
            "call that with a batch and its labels: defence(x, y)."
        )


def _keeps_their_number(defence: Defence) -> bool:
    counts = []
    for axes in sample_axes(defence.domains):
        with suppress(TypeError, ValueError):  # a shape that it does not take says nothing
            counts.append(defence._output_shape((64,) * (axes + 1))[0])
    return all(count == 64 for count in counts)


def _check_sample(defence: Defence, shape: tuple[int | None, ...]) -> None:
    axes = sample_axes(defence.domains)
    channels_first = _channels_first(defence)
    if len(shape) in axes:
        if len(shape) == 2 and set(defence.domains) == {"audio"}:
            channels, length = shape if channels_first else shape[::-1]
            stated = bool(_stated(defence, "channels_first"))  # a filter says it by its axis of time
            if stated and None not in (channels, length) and channels > length:  # type: ignore[operator]
                raise ArgumentError(
                    f"`x` of shape {shape} would be one recording of {channels} channels and {length} values "
                    f"with channels_first={channels_first}; pass channels_first={not channels_first}, or a "
                    "batch of recordings to `transform`."
                )
        if len(shape) == 3 and None not in shape:
            _check_image(defence, shape, channels_first)  # type: ignore[arg-type]
        return
    names = {3: "an image (C, H, W)" if channels_first else "an image (H, W, C)"}
    names |= {4: "a video", 1: "a recording (length,)" if "features" not in defence.domains else "a vector"}
    names |= {2: "a recording (C, length)" if channels_first else "a recording (length, C)"}
    wanted = " or ".join(names[n] for n in sorted(axes, reverse=True))
    hint = "pass a batch to `transform`"
    if len(shape) == 2 and 3 in axes:
        hint = f"a grey image needs an axis of channels: {'x[None]' if channels_first else 'x[..., None]'}"
    elif len(shape) == 4 and "video" in defence.domains:
        hint += ", and one video as transform(x[None])[0]"
    raise ArgumentError(f"`x` must be one sample, {wanted}, got shape {shape}; {hint}.")


def _check_image(defence: Defence, shape: Shape, channels_first: bool) -> None:
    """Refuse what plainly has another layout, or is a batch of grey images without their axis of channels."""
    defence._check_layout((1, *shape), name="x")
    channels = shape[0 if channels_first else -1]
    in_doubt = any(leaf._axes[0] is not None and leaf.layout is None for leaf in leaves(defence))
    if in_doubt and channels >= LARGE:
        layout = "NCHW" if channels_first else "NHWC"
        raise ArgumentError(
            f"`x` of shape {shape} would be one image of {channels} channels; pass a batch of grey images to "
            f"`transform` as {'x[:, None]' if channels_first else 'x[..., None]'}, or layout={layout!r} if "
            f"there are indeed {channels} channels."
        )


# Images of Pillow, which hold 8 bits and have the channels last


def _transform_image(defence: Defence, image: Any, index: Any) -> Any:
    colours = COLOURS.get(image.mode)
    if "image" not in defence.domains:
        raise ArgumentError(
            f"`x` must not be an image: {type(defence).__name__} is for {' or '.join(defence.domains)}."
        )
    if colours is None:
        raise ArgumentError(
            f"`x` must be an image of mode {', '.join(COLOURS)}, got mode {image.mode!r}; {_remedy(image)}."
        )
    levels = np.asarray(image).reshape(image.height, image.width, len(image.getbands()))
    pixels, alpha = levels[..., :colours], levels[..., colours:]
    channels_first = _channels_first(defence)
    low, high = (np.asarray(bound, dtype=np.float32) for bound in _range(defence))
    span = high - low
    x = np.moveaxis(pixels, -1, 0) if channels_first else pixels
    shape = defence._output_shape((1, *x.shape))[1:]
    if len(shape) != 3 or shape[0 if channels_first else -1] != colours or (alpha.size and shape != x.shape):
        remedy = f'leave its alpha out with x.convert("{image.mode[:-1]}"), or ' if alpha.size else ""
        raise ArgumentError(
            f"`x` must stay an image, got one of shape {x.shape} that {type(defence).__name__} turns into "
            f"{shape}; {remedy}pass numpy.asarray(x), scaled to {_range(defence)}."
        )
    out = defence.transform((low + x * span / LEVELS)[None], index=index)[0]
    out = np.rint((out - low) * LEVELS / span).clip(0, LEVELS).astype(np.uint8)
    out = np.moveaxis(out, 0, -1) if channels_first else out
    if alpha.size:
        out = np.concatenate([out, alpha], axis=-1)
    return sys.modules["PIL.Image"].fromarray(out[..., 0] if image.mode == "L" else out)


def _remedy(image: Any) -> str:
    """What to do with an image of a mode that has no 8 bits for each of grey or red, green and blue."""
    if image.mode.startswith(("I", "F")):  # conversion would cut off what lies above 255
        return "pass numpy.asarray(x)[..., None], scaled to the range of the defence"
    return 'convert it first, for example with x.convert("RGB")'


def _range(defence: Defence) -> ClipValues:
    """The range that a defence states, else [0, 1]."""
    stated = _stated(defence, "clip_values")
    if any(not _same(other, stated[0]) for other in stated):
        raise ArgumentError(
            f"`x` must be an array for stages of different ranges, {', '.join(map(repr, stated))}, got an "
            "image of Pillow; pass numpy.asarray(x) in the units of the first stage."
        )
    return stated[0] if stated else (0.0, 1.0)


def _same(a: ClipValues, b: ClipValues) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _channels_first(defence: Defence) -> bool:
    """Where the channels are; last if that makes no difference."""
    stated = _stated(defence, "channels_first")
    if any(other != stated[0] for other in stated):
        raise ArgumentError(
            f"`channels_first` must be the same in all stages, got {', '.join(map(repr, stated))}."
        )
    return bool(stated and stated[0])


def _stated(defence: Defence, name: str) -> list[Any]:
    values = [getattr(leaf, name, None) for leaf in leaves(defence)]
    return [value for value in values if value is not None]
