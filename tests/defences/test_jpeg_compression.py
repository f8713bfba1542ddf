"""JPEG compression: constants, Pillow frame by frame, its rules."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preshield import JpegCompression


def pillow(pixels, quality):
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    return np.array(Image.open(file))


def expected_frames(frames, quality):
    """Frames `(..., H, W, C)` of bytes through Pillow: RGB, or channel by channel."""
    out = np.empty_like(frames)
    for index in np.ndindex(frames.shape[:-3]):
        if frames.shape[-1] == 3:
            out[index] = pillow(frames[index], quality)
        else:
            for c in range(frames.shape[-1]):
                out[index][..., c] = pillow(np.ascontiguousarray(frames[index][..., c]), quality)
    return out


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(("level", "scale"), [(0, 1), (100, 1), (255, 1), (100, 255)])
def test_a_constant_image_survives(level, scale, channels):
    # At quality 75 the quantum of the mean, 8, divides 8 * (level - 128).
    x = np.full((2, 9, 7, channels), level / 255 * scale)
    out = JpegCompression((0, scale), quality=75).transform(x)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.float32(level / 255 * scale))


@pytest.mark.parametrize(
    ("x", "level"), [(127.5 / 255, 128), (0.4, 102), (0.402, 103), (1.2, 255), (7.0, 255), (0.9999, 255)]
)
def test_values_are_rounded_and_saturated(x, level):
    out = JpegCompression((0, 1), quality=100).transform(np.full((1, 8, 8, 1), x))
    np.testing.assert_array_equal(out, np.float32(level / 255))


@pytest.mark.parametrize(("dtype", "large"), [(np.float16, 6e4), (np.float32, 3e38), (np.float64, 1e308)])
@pytest.mark.parametrize("scale", [1, 255])
def test_the_largest_values_saturate(dtype, large, scale):
    with pytest.warns(UserWarning, match="`clip_values` should be the range of the data"):
        out = JpegCompression((0, scale)).transform(np.full((1, 8, 8, 3), large, dtype=dtype))
    np.testing.assert_array_equal(out, np.float32(scale))


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(1, 5)),
    frames=st.one_of(st.none(), st.integers(1, 3)),
    channels_first=st.booleans(),
    quality=st.integers(1, 100),
    dtype=st.sampled_from([np.uint8, np.int64, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_pillow(shape, frames, channels_first, quality, dtype, seed):
    n, height, width, channels = shape
    width += width == height  # square images would leave the layout in doubt
    shape = (n, height, width, channels) if frames is None else (n, frames, height, width, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    expected = expected_frames(pixels, quality)
    if channels_first:
        pixels, expected = np.moveaxis(pixels, -1, 1), np.moveaxis(expected, -1, 1)
    out = JpegCompression((0, 255), quality, channels_first).transform(pixels.astype(dtype))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, expected)
    unit = JpegCompression((0, 1), quality, channels_first).transform(pixels / 255)
    np.testing.assert_array_equal(unit, (expected / 255).astype(np.float32))


def test_many_frames_on_many_threads(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 24, 32, 3), dtype=np.uint8)
    expected = expected_frames(pixels, 30)
    for threads in ("1", "4"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        np.testing.assert_array_equal(JpegCompression((0, 255), 30).transform(pixels), expected)


def test_lower_quality_loses_more():
    x = np.random.default_rng(0).random((1, 32, 32, 3))
    losses = [np.abs(JpegCompression((0, 1), quality).transform(x) - x).mean() for quality in (1, 50, 100)]
    assert losses[0] > losses[1] > losses[2]


def test_bool_and_half_precision():
    x = np.indices((16, 16)).sum(axis=0)[None, :, :, None] % 2
    expected = JpegCompression((0, 1)).transform(x.astype(float))
    for dtype in (bool, np.longdouble, ">f4"):
        np.testing.assert_array_equal(JpegCompression((0, 1)).transform(x.astype(dtype)), expected)
    half = JpegCompression((0, 1)).transform(x.astype(np.float16))
    np.testing.assert_array_equal(half, expected.astype(np.float16))


def test_layouts():
    x = np.random.default_rng(0).random((4, 9, 12, 3))
    expected = JpegCompression((0, 1)).transform(x)
    np.testing.assert_array_equal(JpegCompression((0, 1)).transform(np.asfortranarray(x)), expected)
    np.testing.assert_array_equal(JpegCompression((0, 1)).transform(x[::2]), expected[::2])
    video = JpegCompression((0, 1)).transform(x[:, None])
    np.testing.assert_array_equal(video[:, 0], expected)
    x.flags.writeable = False
    np.testing.assert_array_equal(JpegCompression((0, 1)).transform(x), expected)


@pytest.mark.parametrize("shape", [(0, 8, 9, 3), (2, 0, 8, 9, 3), (2, 8, 9, 0)])
def test_nothing_to_do(shape):
    assert JpegCompression((0, 1)).transform(np.zeros(shape)).shape == shape


def test_gradient_passes():
    grad = np.random.default_rng(0).normal(size=(1, 8, 9, 3))
    np.testing.assert_array_equal(JpegCompression((0, 1)).estimate_gradient(np.zeros(grad.shape), grad), grad)


def test_channel_index():
    x = np.random.default_rng(0).random((1, 3, 8, 9))
    with pytest.warns(FutureWarning, match="use channels_first=True instead of channel_index=1"):
        old = JpegCompression((0, 1), channel_index=1)
    np.testing.assert_array_equal(old.transform(x), JpegCompression((0, 1), channels_first=True).transform(x))
    with pytest.warns(FutureWarning, match="use channels_first=False instead of channel_index=3"):
        assert JpegCompression((0, 1), channel_index=3).channels_first is False


def test_verbose_shows_a_bar(capsys):
    x = np.zeros((3, 8, 9, 3))
    JpegCompression((0, 1)).transform(x)
    assert capsys.readouterr().err == ""
    JpegCompression((0, 1), verbose=True).transform(x)
    captured = capsys.readouterr()
    assert "JPEG compression: 100%" in captured.err
    assert "3/3" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "clip_values",
    [
        (0, 1),
        (0, 255),
        (0.0, 1.0),
        [0, 255],
        (np.float32(0), np.float32(1)),
        (np.array(0), np.array(255.0)),
        (0, np.array([1.0])),
    ],
)
def test_clip_values(clip_values):
    x = np.zeros((1, 8, 8, 3))
    np.testing.assert_array_equal(JpegCompression(clip_values).transform(x), x)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"clip_values": (0, 2)}, ValueError, r"`clip_values` must be \(0, 1\) or \(0, 255\), got \(0, 2\)"),
        (
            {"clip_values": (-1, 1)},
            ValueError,
            r"`clip_values` must be \(0, 1\) or \(0, 255\), got \(-1, 1\)",
        ),
        ({"clip_values": (0, np.ones(3))}, ValueError, r"`clip_values` must be \(0, 1\) or \(0, 255\)"),
        ({"clip_values": None}, ValueError, "`clip_values` must be a pair"),
        ({"quality": 0}, ValueError, "`quality` must be between 1 and 100, got 0"),
        ({"quality": 101}, ValueError, "`quality` must be between 1 and 100, got 101"),
        ({"quality": 50.5}, TypeError, "`quality` must be an integer, got 50.5"),
        ({"channels_first": 1}, TypeError, "`channels_first` must be True or False, got 1"),
        ({"channel_index": 2}, ValueError, "`channel_index` must be 1"),
        ({"verbose": "yes"}, TypeError, "`verbose` must be True or False, got 'yes'"),
        ({"apply_fit": None}, TypeError, "`apply_fit` must be True or False, got None"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        JpegCompression(**{"clip_values": (0, 1), **parameters})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((8, 8, 3)), ValueError, r"4-D image batch \(NHWC\) or a 5-D video batch"),
        (np.zeros((2, 3, 8, 8)), ValueError, "pass channels_first=True"),
        (np.full((1, 8, 8, 3), np.nan), ValueError, "`x` must be finite, got 192 NaN"),
        (
            np.full((1, 8, 8, 3), -0.1),
            ValueError,
            r"`x` must not be negative, got a minimum of -0\.1; undo any normalisation",
        ),
        (np.zeros((1, 0, 8, 3)), ValueError, "frames of 1 to 65500 pixels a side, got 0 x 8"),
        (
            np.zeros((1, 1, 65501, 1), np.uint8),
            ValueError,
            "frames of 1 to 65500 pixels a side, got 1 x 65501",
        ),
        (np.full((1, 8, 8, 3), "a"), TypeError, "`x` must hold real numbers"),
        (np.array([[0, 1], [0]], dtype=object), TypeError, "`x` must be an array of numbers"),
    ],
)
def test_bad_arrays(x, error, message):
    with pytest.raises(error, match=message):
        JpegCompression((0, 1)).transform(x)
