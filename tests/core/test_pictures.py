import numpy as np
import pytest
from PIL import Image

from preshield._core.errors import ArgumentError
from preshield._core.pictures import centred, is_picture, plain, values_of

COLOURS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
RGB = Image.fromarray(COLOURS)


def test_plain_pictures_stay_as_they_are():
    assert plain(RGB).mode == "RGB"
    np.testing.assert_array_equal(np.asarray(plain(RGB)), COLOURS)
    grey = Image.fromarray(COLOURS[..., 0])
    np.testing.assert_array_equal(np.asarray(plain(grey)), COLOURS[..., 0])


@pytest.mark.parametrize(("mode", "expected"), [("1", "L"), ("LA", "L"), ("CMYK", "RGB"), ("YCbCr", "RGB")])
def test_modes(mode, expected):
    assert plain(RGB.convert("L").convert(mode) if expected == "L" else RGB.convert(mode)).mode == expected


def test_16_bits_are_scaled():
    levels = np.array([[0, 128, 32896, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(np.asarray(plain(Image.fromarray(levels))), [[0, 0, 128, 255]])


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_of_no_known_range_are_refused(mode):
    with pytest.raises(ArgumentError, match=f"a picture of mode '{mode}', whose range is not known"):
        plain(RGB.convert("L").convert(mode))


def test_what_is_transparent_lies_on_white():
    red = np.array([[[200, 0, 0, 0], [200, 0, 0, 128], [200, 0, 0, 255]]], dtype=np.uint8)
    half = round(0 * 128 / 255 + 255 * 127 / 255)
    found = np.asarray(plain(Image.fromarray(red)))[0]
    np.testing.assert_array_equal(found[[0, 2]], [[255, 255, 255], [200, 0, 0]])
    assert found[1, 1] == half
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.info["transparency"] = 0
    np.testing.assert_array_equal(np.asarray(plain(palette)), [[[255, 255, 255], [40, 50, 60]]])


def test_orientation_is_applied():
    turned = RGB.copy()
    turned.getexif()[0x0112] = 6  # rotate by 90 degrees clockwise to show
    np.testing.assert_array_equal(np.asarray(plain(turned)), np.rot90(COLOURS, -1))


def test_values():
    x = values_of(RGB, 3, channels_first=False)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, COLOURS.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(values_of(RGB, 3, channels_first=True), np.moveaxis(x, -1, 0))
    grey = Image.fromarray(COLOURS[..., 0])
    np.testing.assert_array_equal(values_of(grey, 3, channels_first=False), x[..., :1].repeat(3, axis=-1))
    luma = COLOURS @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(values_of(RGB, 1, channels_first=True)[0], luma, atol=1 / 255)


@pytest.mark.parametrize("size", [(8, 8), (20, 8), (8, 13), (9, 31), (33, 5), (3, 2)])
def test_the_centre_is_cut_out(size):
    """A line through the middle stays in the middle, whatever the shape."""
    width, height = size
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    cut = centred(Image.fromarray(np.tile(ramp, (height, 1))), 8)
    assert cut.size == (8, 8)
    assert np.asarray(cut).mean() == pytest.approx(127.5, abs=256 / min(size) / 2 + 1)
    square = Image.fromarray(COLOURS[:, 1:5])
    np.testing.assert_array_equal(np.asarray(centred(RGB, 4)), np.asarray(square))


def test_what_is_a_picture():
    assert is_picture(RGB)
    assert not is_picture(COLOURS)
