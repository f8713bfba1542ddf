"""The JPEG codec beside Pillow alone."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from preshield.codecs import jpeg


def pillow(pixels, quality):
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    return np.array(Image.open(file))


def picture(shape, smooth, seed):
    """Noise, or a smooth wave: one has large coefficients everywhere, the other hardly any."""
    rng = np.random.default_rng(seed)
    if not smooth:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    y, x = np.indices(shape[:2])
    wave = np.sin(rng.uniform(0, 0.6) * x + rng.uniform(0, 0.6) * y)
    wave = np.multiply.outer(wave, rng.uniform(-1, 1, shape[2:]))
    return np.rint(127.5 + 127 * wave).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    colour=st.booleans(),
    quality=st.integers(1, 100),
    smooth=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(height=1, width=1, colour=True, quality=1, smooth=False, seed=0)
@example(height=1, width=1, colour=False, quality=100, smooth=False, seed=0)
@example(height=17, width=1, colour=True, quality=100, smooth=False, seed=0)
@example(height=1, width=17, colour=True, quality=50, smooth=False, seed=0)
@example(height=3, width=5, colour=True, quality=75, smooth=True, seed=0)
@example(height=301, width=203, colour=True, quality=90, smooth=True, seed=0)
def test_there_and_back_is_pillow_bit_for_bit(height, width, colour, quality, smooth, seed):
    pixels = picture((height, width, 3) if colour else (height, width), smooth, seed)
    out = jpeg.decode(jpeg.encode(pixels, quality), grey=not colour)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, pillow(pixels, quality))


@pytest.mark.parametrize("quality", range(1, 101))
@pytest.mark.parametrize("shape", [(16, 24, 3), (15, 9)])
def test_every_quality(shape, quality):
    pixels = picture(shape, quality % 2 == 0, quality)
    out = jpeg.decode(jpeg.encode(pixels, quality), grey=len(shape) == 2)
    np.testing.assert_array_equal(out, pillow(pixels, quality))


def test_files_are_baseline_jpeg_with_colour_at_half_resolution():
    data = jpeg.encode(picture((32, 32, 3), False, 0), 50)
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))
        assert "progressive" not in image.info
    start = data.index(b"\xff\xc0")  # the frame header: 8 bits, 32 x 32, 3 components
    assert data[start + 4 : start + 10] == bytes([8, 0, 32, 0, 32, 3])
    assert [data[start + 11 + 3 * k] for k in range(3)] == [0x22, 0x11, 0x11]


@pytest.mark.parametrize("level", [0, 1, 127, 128, 255])
@pytest.mark.parametrize("quality", [75, 100])
def test_a_grey_constant_survives(level, quality):
    # One DC coefficient of 8 * (level - 128), whose quantum at these qualities is at most 8: exact.
    pixels = np.full((16, 16, 3), level, np.uint8)
    np.testing.assert_array_equal(jpeg.decode(jpeg.encode(pixels, quality)), level)
    np.testing.assert_array_equal(jpeg.decode(jpeg.encode(pixels[..., 0], quality), grey=True), level)


def test_a_constant_at_the_lowest_quality_moves_to_the_next_quantum():
    # At quality 1 every quantum is 255: 8 * (100 - 128) = -224 becomes -255, and 128 - 255 / 8 is 96.1.
    pixels = np.full((8, 8), 100, np.uint8)
    np.testing.assert_array_equal(jpeg.decode(jpeg.encode(pixels, 1), grey=True), 96)


@pytest.mark.parametrize("quality", [1, 100])
def test_size_falls_with_quality(quality):
    pixels = picture((32, 32, 3), False, 0)
    assert (len(jpeg.encode(pixels, quality)) < len(jpeg.encode(pixels, 50))) == (quality < 50)
