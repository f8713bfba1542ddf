"""Padding to squares: where, with what, and the targets of detectors."""

import numpy as np
import pytest

from preshield import ImageSquarePad

MODES = ["constant", "edge", "linear_ramp", "maximum", "mean", "median", "minimum"]
MODES += ["reflect", "symmetric", "wrap"]


@pytest.mark.parametrize(
    ("height", "width", "margins"),
    [
        (5, 2, ((0, 0), (1, 2))),  # three columns: one on the left, two on the right
        (2, 6, ((2, 2), (0, 0))),
        (3, 4, ((0, 1), (0, 0))),
        (4, 4, ((0, 0), (0, 0))),
    ],
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels_first", [False, True])
def test_numpy_pads_alike(height, width, margins, mode, channels_first):
    x = np.random.default_rng(0).random((3, height, width, 2))
    expected = np.stack([np.pad(image, [*margins, (0, 0)], mode) for image in x])
    given = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if channels_first else x
    out = ImageSquarePad(channels_first, pad_mode=mode).transform(given)
    np.testing.assert_allclose(np.moveaxis(out, 1, -1) if channels_first else out, expected, rtol=1e-12)


OPTIONS = [
    *[(mode, {}) for mode in MODES],
    *[(mode, {"stat_length": 2}) for mode in ("maximum", "mean", "median", "minimum")],
    *[(mode, {"reflect_type": "odd"}) for mode in ("reflect", "symmetric")],
    ("linear_ramp", {"end_values": 3.0}),
    ("maximum", {"stat_length": ((1, 2), (2, 1), (1, 1))}),
    ("mean", {"stat_length": ((1, 2), (2, 1), (1, 1))}),
]


@pytest.mark.parametrize(("mode", "kwargs"), OPTIONS)
@pytest.mark.parametrize("shape", [(2, 7, 3, 2), (2, 3, 8, 2)])
def test_the_gradient_agrees_with_finite_differences(mode, shape, kwargs):
    rng = np.random.default_rng(0)
    x, direction = rng.random(shape), rng.standard_normal(shape)
    pad = ImageSquarePad(pad_mode=mode, pad_kwargs=kwargs)
    step = 1e-7
    change = (pad.transform(x + step * direction) - pad.transform(x - step * direction)) / (2 * step)
    grad = rng.standard_normal(change.shape)
    pulled = pad.estimate_gradient(x, grad)
    np.testing.assert_allclose((pulled * direction).sum(), (grad * change).sum(), rtol=1e-6)


def test_the_gradient_of_constants_is_cut_to_the_image():
    grad = np.random.default_rng(0).random((2, 6, 6, 1))
    pulled = ImageSquarePad(pad_kwargs={"constant_values": 5}).estimate_gradient(np.zeros((2, 6, 3, 1)), grad)
    np.testing.assert_array_equal(pulled, grad[:, :, 1:4])


@pytest.mark.parametrize(
    ("mode", "same_as", "kwargs"),
    [
        ("replicate", "edge", {}),
        ("circular", "wrap", {}),
        ("CONSTANT", "constant", {}),
        ("REFLECT", "reflect", {}),
        ("SYMMETRIC", "symmetric", {}),
        ("constant", "constant", {"value": 0.25}),
    ],
)
def test_names_of_torch_and_tensorflow(mode, same_as, kwargs):
    x = np.random.default_rng(0).random((2, 5, 3, 2))
    expected = ImageSquarePad(pad_mode=same_as, pad_kwargs={"constant_values": 0.25} if kwargs else None)
    out = ImageSquarePad(pad_mode=mode, pad_kwargs=kwargs).transform(x)
    np.testing.assert_array_equal(out, expected.transform(x))
    if kwargs:
        assert out[0, 0, 0, 0] == 0.25


@pytest.mark.parametrize("channels_first", [False, True])
def test_constants_for_height_width_and_channels(channels_first):
    kwargs = {"constant_values": ((1, 2), (3, 4), (5, 6))}
    tall, wide = np.zeros((1, 4, 2, 1)), np.zeros((1, 2, 4, 1))
    tall, wide = (np.moveaxis(x, -1, 1) if channels_first else x for x in (tall, wide))
    pad = ImageSquarePad(channels_first, pad_kwargs=kwargs)
    np.testing.assert_array_equal(pad.transform(tall).reshape(4, 4), [[3, 0, 0, 4]] * 4)
    np.testing.assert_array_equal(pad.transform(wide).reshape(4, 4), np.transpose([[1, 0, 0, 2]] * 4))


def test_integers_stay_and_limits_apply_to_all():
    x = np.array([[10, 200]], np.uint8).T[None, :, :, None]  # 2 x 1
    pad = ImageSquarePad(pad_kwargs={"constant_values": 3}, clip_values=(20.5, 100.0))
    out = pad.transform(x)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out[0, ..., 0], [[20, 20], [100, 20]])  # 20.5, to the even one
    grad = pad.estimate_gradient(x.astype(float) / 4, np.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(grad.ravel(), [0, 1])


def test_images_of_different_sizes():
    images = [np.ones((4, 2, 1)), np.ones((1, 3, 1), np.float32)]
    out = ImageSquarePad().transform(images)
    assert [image.shape for image in out] == [(4, 4, 1), (3, 3, 1)]
    assert [image.dtype for image in out] == [np.float64, np.float32]
    pulled = ImageSquarePad(pad_mode="edge").estimate_gradient(
        images, [np.ones((4, 4, 1)), np.ones((3, 3, 1))]
    )
    assert [g.sum() for g in pulled] == [16, 9]


def test_empty_batches_and_images():
    assert ImageSquarePad().transform(np.zeros((0, 5, 4, 1))).shape == (0, 5, 5, 1)
    with pytest.raises(ValueError, match="`x` must have at least one pixel in each image"):
        ImageSquarePad().transform(np.zeros((1, 0, 4, 1)))


@pytest.mark.parametrize(
    ("size", "boxes", "where"),
    [
        ((6, 3), [[2, 2, 3, 4]], np.s_[2:4, 2:3]),  # one column on the left
        ((3, 7), [[1, 4, 2, 5]], np.s_[4:5, 1:2]),  # two rows above
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_boxes_and_masks_move_with_the_image(size, boxes, where, dtype):
    x, masks = np.zeros((1, *size, 3)), np.zeros((1, *size), bool)
    given = {(6, 3): [1, 2, 2, 4], (3, 7): [1, 2, 2, 3]}[size]
    rows, columns = slice(given[1], given[3]), slice(given[0], given[2])
    x[0, rows, columns], masks[0, rows, columns] = 1, True
    y = [{"boxes": np.array([given], dtype), "labels": np.array([1]), "masks": masks}]
    out, (moved,) = ImageSquarePad(label_type="object_detection")(x, y)
    np.testing.assert_array_equal(moved["boxes"], boxes)
    assert moved["boxes"].dtype == dtype
    expected = np.zeros((1, max(size), max(size)), bool)
    expected[0][where] = True
    np.testing.assert_array_equal(moved["masks"], expected)
    np.testing.assert_array_equal(out[..., 0], expected)
    np.testing.assert_array_equal(y[0]["boxes"], [given])


@pytest.mark.parametrize("axes", [(), (2,), (2, 1), (2, 1, 3)])
def test_masks_have_any_axes_before_height_and_width(axes):
    masks = np.ones((*axes, 2, 4), bool)
    y = [{"boxes": np.zeros((0, 4)), "masks": masks}]
    _, (moved,) = ImageSquarePad(label_type="object_detection")(np.zeros((1, 2, 4, 3)), y)
    expected = np.zeros((*axes, 4, 4), bool)
    expected[..., 1:3, :] = True  # a row above and one below
    np.testing.assert_array_equal(moved["masks"], expected)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pad_mode": "empty"}, "`pad_mode` must be one of 'circular', 'constant', .* got 'empty'"),
        ({"pad_mode": 3}, "`pad_mode` must be one of .* got 3"),
        (
            {"pad_kwargs": {"colour": 1}},
            "`pad_kwargs` must be None or a dict .* mode='constant', got .*colour",
        ),
        ({"pad_kwargs": 3}, "`pad_kwargs` must be None or a dict of arguments"),
        (
            {"pad_mode": "edge", "pad_kwargs": {"constant_values": 1}},
            "`pad_kwargs` must be None or a dict .* 'edge'",
        ),
        ({"label_type": "boxes"}, "`label_type` must be one of"),
        ({"clip_values": (1, 0)}, "`clip_values` must have minimum < maximum"),
    ],
)
def test_bad_parameters(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ImageSquarePad(**kwargs)
