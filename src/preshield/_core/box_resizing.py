"""A box of each image resized into a box of another one, and its transpose."""

from collections.abc import Callable

import numpy as np

from .cutting import Boxes
from .layout import saturated, working_dtype
from .threads import block_length, map_blocks
from .typing import Array, Dtype, Shape

__all__ = ["INTERPOLATIONS", "is_native", "resize_boxes", "resized_shape", "return_boxes", "whole"]

INTERPOLATIONS = ("nearest", "bilinear")
LONGEST = 1 << 15  # pixels a side, above which products of two of them leave 32 bits


def is_native(method: str, dtype: Dtype, *sizes: tuple[int, int]) -> bool:
    """Whether the arithmetic for arrays of any framework takes images of this type and these sizes."""
    rounded = dtype.kind != "f" and dtype.itemsize > 2  # by single precision
    return not (method == "bilinear" and rounded) and max(map(max, sizes)) < LONGEST


def whole(samples: int, size: tuple[int, int]) -> Boxes:
    """The boxes that hold all of each image."""
    height, width = size
    ends = (0, height, 0, width)
    return Boxes(*(np.full(samples, end) for end in ends))


def resized_shape(shape: Shape, size: tuple[int, int], axis: int) -> Shape:
    """The shape of images with their channels on `axis`, at another height and width."""
    return (*shape[:2], *size) if axis == 1 else (shape[0], *size, shape[3])


def resize_boxes(
    x: Array, source: Boxes, target: Boxes, size: tuple[int, int], method: str, *, axis: int
) -> Array:
    """Resize a box of each image into a box of an image of another size, which is zero elsewhere.

    Parameters
    ----------
    x : ndarray
        Images of any dtype with their channels on `axis`.
    source, target : Boxes
        One for each image.
    size : tuple of int
        Height and width of the result.
    method : {"nearest", "bilinear"}
        "nearest" copies the pixel that holds the upper left corner of the new one. "bilinear" aligns the
        middles of pixels, within the box; integers are rounded.
    axis : int
        1 or 3.

    Returns
    -------
    ndarray
        Of the dtype of `x`; but floating types of other than 16, 32 or 64 bits become `float64`.
    """
    from .kernels.box_resize import blend_boxes, copy_boxes

    out = np.empty(resized_shape(x.shape, size, axis), x.dtype.newbyteorder("="))
    old, new, step = _rows(source), _rows(target), _step(x, axis)
    if method == "nearest" and x.dtype.itemsize <= 8:
        same = out.dtype
        bits = np.dtype(f"u{same.itemsize}")

        def copy(made: Array, block: Array, owners: Array) -> None:
            block = np.ascontiguousarray(block, same)
            copy_boxes(made.view(bits), block.view(bits), owners, old, new, step)

        function: Callable[..., None] = copy
    else:
        exact = x.dtype.kind == "f" or x.dtype.itemsize <= 2
        dtype = working_dtype(x.dtype if exact else np.dtype(np.float64))
        kernel = copy_boxes if method == "nearest" else blend_boxes

        def blend(made: Array, block: Array, owners: Array) -> None:
            direct = made.dtype == dtype
            values = made if direct else np.empty(made.shape, dtype)
            kernel(values, np.ascontiguousarray(block, dtype), owners, old, new, step)
            if not direct:
                made[...] = values if made.dtype.kind == "f" else saturated(values, made.dtype)

        function = blend
    _spread(function, out, x, axis)
    return out


def return_boxes(
    grad: Array, source: Boxes, target: Boxes, size: tuple[int, int], method: str, *, axis: int
) -> Array:
    """The transpose of `resize_boxes`: gradients back to images of `size`, in their working dtype."""
    from .kernels import box_resize

    dtype = working_dtype(grad.dtype)
    out, old, new = np.zeros(resized_shape(grad.shape, size, axis), dtype), _rows(source), _rows(target)
    step, linear = _step(grad, axis), method == "bilinear"

    def pull(made: Array, block: Array, owners: Array) -> None:
        block = np.ascontiguousarray(block, dtype)
        box_resize.return_boxes(made, block, owners, old, new, step, linear)

    _spread(pull, out, grad, axis)
    return out


def _rows(boxes: Boxes) -> Array:
    return np.ascontiguousarray(np.stack(boxes, axis=1), np.int64)


def _step(x: Array, axis: int) -> int:
    """Distance between horizontal neighbours."""
    return 1 if axis == 1 else x.shape[3]


def _spread(function: Callable[..., None], out: Array, x: Array, axis: int) -> None:
    """Call `function` with planes to write, planes to read, and the numbers of their images."""
    if not out.size or not x.size:
        out[...] = 0
        return
    if axis == 1:
        owners = np.repeat(np.arange(len(x)), x.shape[1])
        planes = [a.reshape(-1, *a.shape[2:]) for a in (out, x)]
    else:
        owners, planes = np.arange(len(x)), [a.reshape(*a.shape[:2], -1) for a in (out, x)]
    made, given = planes

    def work(rows: slice) -> None:
        function(made[rows], given[rows], owners[rows])

    map_blocks(work, len(made), min(map(block_length, planes)))
