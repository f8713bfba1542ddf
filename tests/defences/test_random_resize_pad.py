"""Resizing to a random size and padding at a random place."""

import numpy as np
import pytest

from preshield import RandomResizePad


def boxes_of(defence, shape, axis=3):
    """Top, bottom, left and right of what each image of ones becomes."""
    out = np.moveaxis(defence.transform(np.ones(shape, np.uint8)), axis, -1)[..., 0]
    found = []
    for image in out:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        box = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        np.testing.assert_array_equal(image[box[0] : box[1], box[2] : box[3]], 1)
        found.append(box)
    return out.shape[1:], np.array(found)


def test_the_patterns_are_those_of_the_paper():
    """Their number is the sum of (k + 1)**2 over the pixels k that a size leaves: 12,528 for 299 and 331.

    Of sizes 2 to 4 within 5, there are 16 + 9 + 4 of them.
    """
    assert sum((331 - size + 1) ** 2 for size in range(299, 331)) == 12528
    size, boxes = boxes_of(RandomResizePad(2, 5, rng=0), (4000, 3, 3, 1))
    assert size == (5, 5)
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    np.testing.assert_array_equal(heights, widths)
    patterns, counts = np.unique(boxes, axis=0, return_counts=True)
    assert len(patterns) == 16 + 9 + 4
    of_size = {size: counts[patterns[:, 1] - patterns[:, 0] == size].sum() / 4000 for size in (2, 3, 4)}
    np.testing.assert_allclose(list(of_size.values()), 1 / 3, atol=0.04)
    assert counts.min() > 4000 / 3 / 16 / 2  # of the 16 places of size 2


@pytest.mark.parametrize(
    ("side", "least", "most"), [(299, 299, 331), (32, 32, 35), (224, 224, 248), (1, 1, 2), (4, 4, 5)]
)
def test_default_sizes(side, least, most):
    size, boxes = boxes_of(RandomResizePad(rng=0), (9, side, side, 1))
    assert size == (most, most)
    heights = boxes[:, 1] - boxes[:, 0]
    assert heights.min() >= least
    assert heights.max() < most


def test_both_sides_follow_from_one_draw():
    """Heights of 20 to 29 with widths of 10 to 14: half of each."""
    size, boxes = boxes_of(RandomResizePad((20, 10), (30, 15), True, rng=0), (50, 1, 7, 9), axis=1)
    assert size == (30, 15)
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    np.testing.assert_array_equal(widths, heights // 2)
    assert len(np.unique(heights)) == 10


@pytest.mark.parametrize(("method", "mode"), [("nearest", "nearest"), ("bilinear", "bilinear")])
@pytest.mark.parametrize("size", [(7, 5), (16, 30)])
def test_torch_resizes_alike(method, mode, size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).random((4, 2, 13, 9))
    defence = RandomResizePad(size, (31, 31), True, interpolation=method, rng=0)
    with defence.frozen(3):
        out = defence.transform(x)
        _, boxes = boxes_of(defence, x.shape, axis=1)
    options = {"mode": mode} | ({"align_corners": False} if mode == "bilinear" else {})
    for made, image, (top, bottom, left, right) in zip(out, x, boxes, strict=True):
        expected = np.zeros((2, 31, 31))
        resized = torch.nn.functional.interpolate(
            torch.tensor(image)[None], (int(bottom - top), int(right - left)), **options
        )
        expected[:, top:bottom, left:right] = resized[0]
        np.testing.assert_allclose(made, expected, rtol=1e-12)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize(("size", "channels_first"), [((3, 2), False), ((9, 8), True)])
def test_the_gradient_is_the_transpose(interpolation, size, channels_first):
    """It is linear, so the product with any direction is exact."""
    rng = np.random.default_rng(0)
    shape = (3, 2, 6, 5) if channels_first else (3, 6, 5, 2)
    x, direction = rng.random(shape), rng.normal(size=shape)
    defence = RandomResizePad(size, (12, 11), channels_first, interpolation=interpolation)
    with defence.frozen(1):
        out = defence.transform(direction)
        grad = rng.normal(size=out.shape)
        pulled = defence.estimate_gradient(x, grad)
    np.testing.assert_allclose((pulled * direction).sum(), (grad * out).sum(), rtol=1e-12)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, bool, np.float16, np.float64, ">f4"])
def test_the_type_is_kept(kind):
    """To the bit by "nearest", also of integers that no floating number holds."""
    x = np.random.default_rng(0).integers(0, 2, (2, 5, 4, 3)).astype(kind)
    if kind == np.int64:
        x += 2**62 + 1
    out = RandomResizePad(5, 9, rng=0).transform(x)
    assert out.dtype == np.dtype(kind).newbyteorder("=")
    assert set(np.unique(out)) == {0, *np.unique(x)}
    assert RandomResizePad(5, 9, interpolation="bilinear", rng=0).transform(x).dtype == out.dtype


def test_integers_between_pixels_are_rounded():
    x = np.array([[0, 1, 3]], np.uint8)[None, :, :, None]  # 1 x 3
    for seed in range(4):
        defence = RandomResizePad((1, 6), (2, 7), interpolation="bilinear", rng=seed)
        out = defence.transform(x)[0, ..., 0]
        exact = [0, 0.25, 0.75, 1.5, 2.5, 3]  # to the even one
        np.testing.assert_array_equal(sorted(out[out.any(axis=1)][0]), sorted([0, *np.rint(exact)]))


def test_a_draw_belongs_to_a_sample():
    x = np.random.default_rng(0).random((5, 6, 5, 3))
    defence = RandomResizePad(4, 9, rng=1)
    whole = defence.transform(x, index=np.arange(5))
    np.testing.assert_array_equal(defence.transform(x[3:], index=np.arange(3, 5)), whole[3:])
    assert len(np.unique((whole != 0).any(axis=3).reshape(5, -1), axis=0)) > 2


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_boxes_and_masks_move_with_the_image(dtype):
    """A white rectangle, which both describe, whatever the draw; its sides are doubled."""
    x, masks = np.zeros((6, 8, 10, 3)), np.zeros((1, 8, 10), bool)
    x[:, 2:5, 1:7], masks[:, 2:5, 1:7] = 1, True
    y = [{"boxes": np.array([[1, 2, 7, 5]], dtype), "labels": np.array([1]), "masks": masks}] * 6
    defence = RandomResizePad((16, 20), (17, 25), label_type="object_detection", rng=0)
    out, moved = defence(x, y)
    for image, target in zip(out, moved, strict=True):
        ((left, top, right, bottom),) = target["boxes"]
        assert bottom - top == 6
        assert np.isclose(right - left, 0.6 * np.arange(20, 25)).any()
        np.testing.assert_array_equal(image[..., 0] > 0, target["masks"][0])
        rows, columns = (np.flatnonzero(target["masks"][0].any(axis=k)) for k in (1, 0))
        np.testing.assert_allclose([rows[0], rows[-1] + 1], [top, bottom], atol=1)
        np.testing.assert_allclose([columns[0], columns[-1] + 1], [left, right], atol=1)
    assert len({tuple(target["boxes"][0]) for target in moved}) > 2
    np.testing.assert_array_equal(y[0]["boxes"], [[1, 2, 7, 5]])


def test_empty_batches_and_images():
    assert RandomResizePad().transform(np.zeros((0, 32, 64, 3))).shape == (0, 35, 71, 3)
    with pytest.raises(ValueError, match="`x` must have at least one pixel in each image"):
        RandomResizePad().transform(np.zeros((1, 0, 4, 3)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_size": 0}, "`min_size` must be .* got 0"),
        ({"max_size": (3, 4, 5)}, r"`max_size` must be an integer or a pair .* got \(3, 4, 5\)"),
        ({"min_size": 5, "max_size": (6, 5)}, "`max_size` must be larger than `min_size`"),
        ({"interpolation": "cubic"}, "`interpolation` must be one of"),
        ({"label_type": "boxes"}, "`label_type` must be one of"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        RandomResizePad(**parameters)


def test_images_that_are_too_large():
    with pytest.raises(ValueError, match=r"`max_size` must be larger .* \(9, 9\) and \(9, 7\)"):
        RandomResizePad(max_size=9).transform(np.zeros((1, 9, 7, 3)))
