"""The round trip beside Pillow, in every value, and its gradients beside plain references."""

import tracemalloc

import numpy as np
import pytest

from preshield import Chain, JpegCompression
from preshield._core import soft_jpeg as core
from tests.jpeg_reference import SUBSAMPLINGS, Trip, coded, pillow, quanta, whole_blocks

QUALITIES = (1, 2, 9, 24, 25, 49, 50, 51, 75, 76, 90, 95, 96, 99, 100)


def content(kind, shape, rng):
    """Bytes of one picture `(H, W, 3)` or `(H, W)`."""
    y, x = np.indices(shape[:2])
    if kind == "noise":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "extremes":
        return 255 * rng.integers(0, 2, shape, dtype=np.uint8)
    if kind == "constant":
        return np.broadcast_to(rng.integers(0, 256, shape[2:], dtype=np.uint8), shape)
    pattern = {"checkerboard": (x + y) % 2, "stripes": x % 2, "ramp": (x + y) / max(1, *(x + y).ravel())}[
        kind
    ]
    colours = rng.integers(0, 256, (2, *shape[2:]))
    weight = pattern.reshape(shape[:2] + (1,) * (len(shape) - 2))
    return np.rint(colours[0] + weight * (colours[1] - colours[0])).astype(np.uint8)


KINDS = ("noise", "extremes", "constant", "checkerboard", "stripes", "ramp")


def expected(frames, quality, subsampling):
    """Frames `(..., H, W, C)` of bytes through Pillow: RGB, or channel by channel."""
    out = np.empty(frames.shape, np.uint8)
    for index in np.ndindex(frames.shape[:-3]):
        if frames.shape[-1] == 3:
            out[index] = pillow(frames[index], quality, subsampling)
        else:
            for c in range(frames.shape[-1]):
                out[index][..., c] = pillow(np.ascontiguousarray(frames[index][..., c]), quality)
    return out


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_equals_pillow_for_all_small_sizes(subsampling):
    """Every height and width up to 17, two pictures side by side."""
    rng = np.random.default_rng(0)
    for height in range(1, 18):
        for width in range(1, 18):
            kind, quality = KINDS[(height + width) % 6], int(rng.integers(1, 101))
            x = np.stack([content(k, (height, width, 3), rng) for k in (kind, "noise")])
            defence = JpegCompression((0, 255), quality, subsampling=subsampling, layout="NHWC")
            out = defence.transform(x)
            assert (out == expected(x, quality, subsampling)).all(), (height, width, kind, quality)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_equals_pillow_at_every_quality(subsampling):
    """Odd sizes, whose colours end in the middle of a pair, more than one strip high."""
    rng = np.random.default_rng(1)
    for quality in range(1, 101):
        x = content(KINDS[quality % 6], (35, 41, 3), rng)[None]
        out = JpegCompression((0, 255), quality, subsampling=subsampling).transform(x)
        assert (out == expected(x, quality, subsampling)).all(), quality


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size", [(224, 224), (299, 299), (33, 600), (16, 1100)])
def test_equals_pillow_on_photographs(size, subsampling):
    """More blocks in a row than are transformed at once, and sizes of networks."""
    from skimage import data

    rows, columns = size
    x = np.tile(data.astronaut(), (1, 3, 1))[None, :rows, :columns]
    for quality in (10, 50, 92):
        out = JpegCompression((0, 255), quality, subsampling=subsampling).transform(x)
        assert (out == expected(x, quality, subsampling)).all(), quality


def test_equals_pillow_in_grey():
    rng = np.random.default_rng(2)
    for number in range(150):
        height, width = rng.integers(1, 60, 2)
        quality = QUALITIES[number % len(QUALITIES)]
        x = content(KINDS[number % 6], (height, width), rng)[None, :, :, None]
        out = JpegCompression((0, 255), quality, layout="NHWC").transform(x)
        assert (out == expected(x, quality, None)).all(), (height, width, quality)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"])
@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_layout_range_and_type(layout, channels, scale, dtype):
    rng = np.random.default_rng(channels)
    lengths = {"N": 3, "F": 2, "H": 21, "W": 18, "C": channels}
    order = [letter for letter in "NFHWC" if letter in layout]
    pixels = rng.integers(0, 256, [lengths[letter] for letter in order], dtype=np.uint8)
    wanted = expected(pixels, 60, "4:2:0")
    if scale == 1:
        wanted = (wanted / 255).astype(np.float32)
    x = (pixels / 255 * scale if scale == 1 else pixels).astype(dtype)
    moved = np.ascontiguousarray(x.transpose([order.index(letter) for letter in layout]))
    out = JpegCompression((0, scale), 60, layout=layout).transform(moved)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out.transpose([layout.index(letter) for letter in order]), wanted)


def test_memory_in_another_order_and_bytes_swapped():
    x = np.random.default_rng(3).random((4, 3, 20, 24), dtype=np.float32)
    defence = JpegCompression((0, 1), channels_first=True)
    wanted = defence.transform(x)
    for same in (
        np.asfortranarray(x),
        np.repeat(x, 2, axis=-1)[..., ::2],
        x[::-1].copy()[::-1],
        x.astype(">f4"),
        np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1),
    ):
        np.testing.assert_array_equal(defence.transform(same), wanted)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_few_large_pictures_are_cut_into_parts(monkeypatch, subsampling):
    """A part begins with the colours of the strip before it, and ends with those of the next."""
    x = np.random.default_rng(4).integers(0, 256, (2, 555, 37, 3), dtype=np.uint8)
    wanted = expected(x, 40, subsampling)
    for threads in ("1", "2", "3", "8"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        out = JpegCompression((0, 255), 40, subsampling=subsampling).transform(x)
        np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_gradients_of_few_large_pictures_are_cut_into_parts(monkeypatch, layout, channels, subsampling):
    rng = np.random.default_rng(5)
    x, grad = (
        rng.integers(0, 280, (2, 555, 37, channels)).astype(float),
        rng.normal(size=(2, 555, 37, channels)),
    )
    if layout == "NCHW":
        x, grad = np.moveaxis(x, -1, 1), np.moveaxis(grad, -1, 1)
    defence = JpegCompression((0, 255), layout=layout, subsampling=subsampling, gradient="straight-through")
    pulled = []
    for threads in ("1", "2", "3", "8"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        pulled.append(defence.estimate_gradient(x, grad))
    for other in pulled[1:]:
        np.testing.assert_array_equal(other, pulled[0])


def test_samples_beyond_the_range_saturate():
    """A block whose samples go far beyond [-512, 511], where a table of ten bits would wrap.

    At quality 1 all quanta are 255. A linear program made 22 coefficients a little larger than half of it,
    with the signs of their cosines at the first pixel: all of them are rounded up, and add up there.
    """
    pixels = np.array(
        [
            [255, 255, 0, 111, 3, 16, 15, 20],
            [255, 255, 25, 79, 255, 90, 9, 52],
            [7, 255, 255, 142, 255, 255, 221, 255],
            [0, 20, 255, 224, 23, 0, 0, 175],
            [0, 190, 255, 96, 255, 255, 1, 9],
            [0, 255, 255, 0, 3, 164, 76, 102],
            [5, 41, 82, 24, 0, 163, 132, 84],
            [49, 0, 240, 255, 98, 0, 61, 12],
        ],
        dtype=np.uint8,
    )
    blocks = [pixels, 255 - pixels, pixels.T, pixels[::-1], pixels[:, ::-1]]
    for block in blocks:
        assert np.abs(coded(block.astype(int) - 128, quanta(1)[0], "integers")).max() > 700
        colours = np.stack([block, 255 - block, block.T], axis=-1)
        for picture in (block[:, :, None], colours):
            out = JpegCompression((0, 255), 1, layout="NHWC").transform(picture[None])
            np.testing.assert_array_equal(out, expected(picture[None], 1, "4:2:0"))


def test_products_are_rounded_to_the_type_of_the_data_before_they_are_rounded_to_levels():
    """Values next to the middle of two levels, where the exact product and the one in float32 disagree."""
    middles = ((np.arange(255) + 0.5) / 255).astype(np.float32)
    steps = [middles]
    for _ in range(2):
        steps = [np.nextafter(steps[0], np.float32(0)), *steps, np.nextafter(steps[-1], np.float32(1))]
    values = np.concatenate(steps)
    levels = np.rint(values * np.float32(255))
    assert (levels != np.rint(values.astype(float) * 255)).any()
    x = np.broadcast_to(values[:, None, None, None], (len(values), 8, 8, 1))
    out = JpegCompression((0, 1), 100).transform(x)  # at quality 100 a constant survives
    np.testing.assert_array_equal(np.rint(out * 255)[:, 0, 0, 0], levels)
    wide = values.astype(float)
    out = JpegCompression((0, 1), 100).transform(x.astype(float))
    np.testing.assert_array_equal(np.rint(out * 255)[:, 0, 0, 0], np.rint(wide * 255))


@pytest.mark.parametrize("channels", [1, 3])
def test_levels_come_back_as_the_nearest_float(channels):
    x = np.broadcast_to(np.arange(256)[:, None, None, None] / 255, (256, 8, 8, channels))
    out = JpegCompression((0, 1), 100).transform(x)
    np.testing.assert_array_equal(out, x.astype(np.float32))


# Values are checked in the pass that computes


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 17, 19, 3), (2, 3, 17, 19), (2, 17, 19, 2), (2, 2, 17, 19, 3)])
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "1 NaN"), (np.inf, "1 infinite"), (-np.inf, "1 infinite")]
)
def test_what_is_not_finite_is_found_anywhere(shape, dtype, value, message):
    rng = np.random.default_rng(7)
    defence = JpegCompression((0, 1), channels_first=shape[1] == 3)
    for place in (0, -1, *rng.integers(0, np.prod(shape), 3)):
        x = rng.random(shape).astype(dtype)
        x.flat[place] = value
        before = x.copy()
        with pytest.raises(ValueError, match=f"`x` must be finite, got .*{message}"):
            defence.transform(x)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_a_negative_value_is_found_anywhere(dtype):
    for place in (0, 100, -1):
        x = np.ones((2, 17, 19, 3), dtype)
        x.flat[place] = -1
        with pytest.raises(ValueError, match="`x` must not be negative, got a minimum of -1"):
            JpegCompression((0, 1)).transform(x)


def test_a_zero_may_have_a_sign():
    x = np.random.default_rng(8).random((1, 16, 16, 3))
    x[0, 3] = 0
    wanted = JpegCompression((0, 1)).transform(x)
    x[0, 3] = -0.0
    np.testing.assert_array_equal(JpegCompression((0, 1)).transform(x), wanted)


def test_a_wrong_range_still_warns_once():
    defence = JpegCompression((0, 255))
    x = np.random.default_rng(9).random((1, 16, 16, 3))
    with pytest.warns(UserWarning, match="`clip_values` should be the range of the data"):
        defence.transform(x)
    defence.transform(x)
    x[0, 0, 0, 0] = -0.0  # the largest value is looked for again
    with pytest.warns(UserWarning, match="`clip_values` should be the range of the data"):
        JpegCompression((0, 255)).transform(x)


def test_a_hook_that_is_written_anew_does_not_see_nan():
    class Doubled(JpegCompression):
        def _transform(self, x, draw):
            return 2 * x

    class Called(JpegCompression):
        def __call__(self, x, y=None):
            return 2 * x, y

    x = np.full((1, 8, 8, 3), np.nan)
    for defence in (Doubled((0, 1)), Called((0, 1)), Chain([JpegCompression((0, 1))])):
        with pytest.raises(ValueError, match="`x` must be finite"):
            defence.transform(x)
    for gradient in JpegCompression.gradients:
        with pytest.raises(ValueError, match="`x` must be finite"):
            JpegCompression((0, 1), gradient=gradient).estimate_gradient(x, np.ones(x.shape))


# Gradients


def test_the_reference_is_pillow():
    rng = np.random.default_rng(10)
    for number in range(60):
        size, quality = rng.integers(1, 40, 2), int(rng.integers(1, 101))
        subsampling = list(SUBSAMPLINGS)[number % 3]
        pixels = content(KINDS[number % 6], (*size, 3), rng)
        trip = Trip(pixels, quality, subsampling, "integers")
        np.testing.assert_array_equal(trip.out, pillow(pixels, quality, subsampling))


def difference_quotients(function, x, directions, step):
    return np.array([(function(x + step * d) - function(x - step * d)) / (2 * step) for d in directions])


def picture(size, rng, spread):
    """Levels around the middle; with a large spread some leave the range."""
    return np.abs(127 + spread * rng.standard_normal((*size, 3)))


SIZES = [(1, 1), (2, 3), (9, 4), (5, 6), (16, 16), (17, 23), (24, 13), (33, 18)]


def quotients_without_rounding(levels, grad, directions, subsampling):
    """Central differences of the pipeline without any rounding, which is linear between its kinks."""

    def loss(v):
        return (Trip(v, 80, subsampling, "none").out * grad).sum()

    return difference_quotients(loss, levels, directions, 1e-3)


@pytest.mark.parametrize("largest", [1, 255])
@pytest.mark.parametrize("spread", [20, 90, 300])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size", SIZES)
def test_straight_through_is_the_derivative_without_rounding(size, subsampling, spread, largest):
    """Clamps on the way in and out included; what lies close to one of their kinks is left out."""
    rng = np.random.default_rng(11)
    levels = picture(size, rng, spread)
    raw = Trip(levels, 80, subsampling, "none").before
    smooth = (np.abs(raw) > 0.05) & (np.abs(raw - 255) > 0.05)
    grad = rng.normal(size=levels.shape) * smooth
    directions = rng.normal(size=(8, *levels.shape)) * (np.abs(levels - 255) > 0.05)
    wanted = quotients_without_rounding(levels, grad, directions, subsampling)
    defence = JpegCompression((0, largest), subsampling=subsampling, gradient="straight-through")
    pulled = defence.estimate_gradient((levels * (largest / 255))[None], grad[None])[0]
    np.testing.assert_allclose((directions * pulled).sum(axis=(1, 2, 3)), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_every_clamp_of_the_pipeline_without_rounding_is_met(subsampling):
    """Values above the range, and RGB on both sides of it; the samples between stay in theirs."""
    trip = Trip(picture((33, 18), np.random.default_rng(11), 90), 80, subsampling, "none")
    assert not trip.open_in.all()
    assert (trip.before < -1).any() == (trip.before > 256).any() == (subsampling != "4:4:4")
    assert all(mask.all() for mask in trip.open_samples)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("largest", [1, 255])
def test_the_ends_of_the_range_keep_their_gradient(largest, subsampling, dtype):
    """Areas in the corners of the cube, which rounded constants and sums take a little out of the range."""
    rng = np.random.default_rng(19)
    corners = largest * np.indices((2, 2, 2)).reshape(3, 8).T
    x = np.ones((8, 20, 22, 3), dtype) * corners[:, None, None].astype(dtype)
    grad = rng.normal(size=x.shape).astype(dtype)
    defence = JpegCompression((0, largest), subsampling=subsampling, gradient="straight-through")
    in_the_middle = defence.estimate_gradient(np.full_like(x, largest / 2), grad)
    np.testing.assert_array_equal(defence.estimate_gradient(x, grad), in_the_middle)
    assert (in_the_middle != 0).all()
    above = defence.estimate_gradient(x + dtype(0.002), grad)  # what was at the top is clamped on the way in
    np.testing.assert_array_equal(above, in_the_middle * (x < largest))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_straight_through_in_single_precision(subsampling):
    """The same clamps, wherever a value is not within a rounding error of one."""
    rng = np.random.default_rng(20)
    levels = picture((40, 37), rng, 90)
    x, grad = (levels / 255).astype(np.float32), rng.normal(size=levels.shape)
    raw = Trip(x * 255.0, 80, subsampling, "none").before
    grad *= (np.abs(raw) > 0.05) & (np.abs(raw - 255) > 0.05)
    defence = JpegCompression((0, 1), subsampling=subsampling, gradient="straight-through")
    narrow = defence.estimate_gradient(x[None], grad[None].astype(np.float32))
    assert narrow.dtype == np.float32
    wide = defence.estimate_gradient(x[None].astype(float), grad[None])
    np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-5)


def test_straight_through_does_not_depend_on_the_quality():
    rng = np.random.default_rng(21)
    x, grad = 1.2 * rng.random((2, 20, 24, 3)), rng.normal(size=(2, 20, 24, 3))
    first, *others = (
        JpegCompression((0, 1), quality, gradient="straight-through").estimate_gradient(x, grad)
        for quality in (1, 50, 100)
    )
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [3, 50, 90])
@pytest.mark.parametrize("size", SIZES)
def test_soft_is_the_derivative_of_the_cubic_quantiser(size, quality, subsampling):
    """Central differences, clamps and the continued edges of odd sizes included."""
    rng = np.random.default_rng(13)
    levels = picture(size, rng, 60)
    grad = rng.normal(size=levels.shape)

    def loss(v):
        return (Trip(v, quality, subsampling, "cubic").out * grad).sum()

    directions = rng.normal(size=(6, *levels.shape))
    wanted = difference_quotients(loss, levels, directions, 1e-6)
    defence = JpegCompression((0, 255), quality, subsampling=subsampling, gradient="soft")
    pulled = defence.estimate_gradient(levels[None], grad[None])[0]
    np.testing.assert_allclose((directions * pulled).sum(axis=(1, 2, 3)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradient", ["straight-through", "soft"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_gradients_in_every_layout(gradient, layout, channels):
    """Frame by frame, channel by channel unless they are RGB; the unit of `x` makes no difference."""
    rng = np.random.default_rng(14)
    lengths = {"N": 2, "F": 2, "H": 19, "W": 22, "C": channels}
    order = [letter for letter in "NFHWC" if letter in layout]
    shape = [lengths[letter] for letter in order]
    x, grad = 1.1 * rng.random(shape), rng.normal(size=shape)
    axes = [order.index(letter) for letter in layout]
    defence = JpegCompression((0, 1), 30, layout=layout, gradient=gradient)
    pulled = defence.estimate_gradient(x.transpose(axes), grad.transpose(axes))
    pulled = pulled.transpose([layout.index(letter) for letter in order])
    alone = JpegCompression((0, 255), 30, layout="NHWC", gradient=gradient)
    for index in np.ndindex(*shape[:-3]):
        parts = [slice(None)] if channels == 3 else [slice(c, c + 1) for c in range(channels)]
        for part in parts:
            one, of_one = 255 * x[index][None, ..., part], grad[index][None, ..., part]
            wanted = alone.estimate_gradient(one, of_one)[0]
            np.testing.assert_allclose(pulled[index][..., part], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("quality", [2, 40])
def test_gradients_of_grey(quality):
    """Straight through: all up to the top of the range. Soft: central differences."""
    rng = np.random.default_rng(15)
    levels = picture((13, 21), rng, 90)[..., 0]
    levels[0, :2] = 255, 0
    grad, direction = rng.normal(size=(2, *levels.shape))

    def pulled(gradient):
        defence = JpegCompression((0, 255), quality, gradient=gradient)
        return defence.estimate_gradient(levels[None, :, :, None], grad[None, :, :, None])[0, :, :, 0]

    assert (levels > 255).any()
    np.testing.assert_array_equal(pulled("straight-through"), grad * (levels <= 255))

    levels[0, :2] = 100

    def loss(v):
        samples = coded(whole_blocks(np.minimum(v, 255) - 128), quanta(quality)[0], "cubic")[:13, :21]
        return (np.clip(samples, -128, 127) * grad).sum()

    (wanted,) = difference_quotients(loss, levels, [direction], 1e-6)
    np.testing.assert_allclose((direction * pulled("soft")).sum(), wanted, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("largest", [1, 255])
@pytest.mark.parametrize(("beyond", "stops"), [(-0.005, False), (0.005, False), (0.02, True)])
def test_soft_clamps_as_straight_through_does(beyond, stops, largest, dtype):
    """Constant grey at quality 72, where the lowest frequency has the step 9: by hand."""
    off = -np.cbrt(113 - 8 / 9 * (127 + beyond))  # so that 9 / 8 * (113 + off**3) is 127 + beyond
    level = 128 + 9 / 8 * (113 + off)
    assert 254 < level < 255
    grad = np.random.default_rng(22).normal(size=(1, 8, 8, 1)).astype(dtype)
    x = np.full(grad.shape, level * largest / 255, dtype)
    pulled = JpegCompression((0, largest), 72, gradient="soft").estimate_gradient(x, grad)
    wanted = 0 if stops else 3 * off**2 * grad.mean()  # of other frequencies the slope is 0
    np.testing.assert_allclose(pulled, np.full(grad.shape, wanted), atol=1e-3 * abs(wanted))


def test_soft_clamps_rgb_as_straight_through_does():
    """Blocks of nearly saturated colours, of which luminance and chrominance stay within their ranges."""
    rng = np.random.default_rng(23)
    corners = np.array([[0, 255, 0], [255, 0, 255], [255, 255, 0], [0, 255, 255]])
    colours = np.abs(np.repeat(corners, 500, axis=0) - 0.4 * rng.random((2000, 3)))
    levels = np.repeat(np.tile(colours, (8, 1, 1)), 8, axis=1)
    raw = Trip(levels, 100, "4:4:4", "cubic").before
    defence = JpegCompression((0, 255), 100, subsampling="4:4:4", gradient="soft")
    for channel in range(3):
        grad = np.zeros_like(levels)
        grad[..., channel] = 1
        pulled = defence.estimate_gradient(levels[None], grad[None])[0]
        passes = (np.abs(pulled[0]).max(axis=-1) > 1e-9)[::8]
        value = raw[0, ::8, channel]
        out = np.maximum(-value, value - 255)
        clear = np.abs(out - 0.01) > 1e-6
        np.testing.assert_array_equal(passes[clear], out[clear] <= 0.01)
        assert ((out > 0) & (out < 0.01)).any()
        assert (out > 0.011).any()


@pytest.mark.parametrize("layout", ["NFHWC", "NCFHW"])
@pytest.mark.parametrize("channels", [1, 3])
def test_soft_takes_memory_for_one_frame_of_a_video(layout, channels, monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "1")
    shape = {"NFHWC": (1, 40, 256, 256, channels), "NCFHW": (1, channels, 40, 256, 256)}[layout]
    x = np.random.default_rng(24).random(shape, dtype=np.float32)
    defence, frame = JpegCompression((0, 1), layout=layout, gradient="soft"), x.nbytes // 40
    axis = defence._channel_axis(5)
    core.soft_gradient(x[:, :2, :2], x[:, :2, :2], defence._settings, axis=axis)  # compiles
    tracemalloc.start()
    try:
        core.soft_gradient(x, x, defence._settings, axis=axis)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - x.nbytes < 15 * max(frame, core.BLOCK_BYTES)


@pytest.mark.parametrize("gradient", ["straight-through", "soft"])
def test_gradients_keep_their_precision(gradient):
    rng = np.random.default_rng(16)
    x = rng.random((2, 17, 18, 3))
    grad = rng.normal(size=x.shape)
    defence = JpegCompression((0, 1), gradient=gradient)
    wide = defence.estimate_gradient(x, grad)
    narrow = defence.estimate_gradient(x, grad.astype(np.float32))
    assert (wide.dtype, narrow.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(narrow, wide, rtol=2e-3, atol=2e-3)
    assert defence.estimate_gradient(x[:0], grad[:0]).shape == (0, 17, 18, 3)
