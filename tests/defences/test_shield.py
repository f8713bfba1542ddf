"""JPEG at a quality of its own for each block."""

import io

import numpy as np
import pytest
from PIL import Image

from preshield import JpegCompression, Shield
from preshield._core import mixed_jpeg

QUALITIES = (20, 40, 60, 80)


def by_pillow(image, quality):
    """Levels of one picture `(H, W, 3)` or `(H, W, 1)` through a file."""
    file = io.BytesIO()
    mode = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(mode).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


def blocks_of(image):
    """Rows and columns of each block of 8 x 8 pixels, as far as it lies inside."""
    height, width = image.shape[:2]
    for top in range(0, height, 8):
        for left in range(0, width, 8):
            yield np.s_[top : top + 8, left : left + 8]


def chosen(defended, files):
    """Which files each block may come from; a block that is in none fails."""
    found = []
    for place in blocks_of(defended):
        found.append([k for k, file in enumerate(files) if (defended[place] == file[place]).all()])
        assert found[-1], place
    return found


@pytest.mark.parametrize("shape", [(37, 70, 3), (16, 8, 1), (9, 3, 3), (1, 1, 3)])
@pytest.mark.parametrize("channels_first", [False, True])
def test_each_block_is_of_one_of_pillows_files(shape, channels_first):
    x = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    given = np.moveaxis(x, -1, 1) if channels_first else x
    out = Shield((0, 255), QUALITIES, channels_first, rng=1).transform(given)
    assert out.dtype == np.float32
    for defended, image in zip(np.moveaxis(out, 1, -1) if channels_first else out, x, strict=True):
        chosen(defended, [by_pillow(image, quality) for quality in QUALITIES])


def test_all_qualities_are_as_likely_and_blocks_are_independent():
    x = np.random.default_rng(0).integers(0, 256, (1, 160, 320, 3), np.uint8)
    out = Shield((0, 255), rng=0).transform(x)[0]
    found = chosen(out, [by_pillow(x[0], quality) for quality in QUALITIES])
    assert all(len(files) == 1 for files in found)
    numbers = np.ravel(found).reshape(20, 40)
    np.testing.assert_allclose(np.bincount(numbers.ravel()), 200, atol=49)  # four standard deviations
    for a, b in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
        assert abs((a == b).mean() - 0.25) < 4 * np.sqrt(0.1875 / a.size)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_layouts_have_the_same_blocks(layout, channels, monkeypatch):
    """Also where pictures are worked on in bands of 16 rows."""
    rng = np.random.default_rng(0)
    x = rng.random((2, 3, 37, 21, channels), dtype=np.float32)
    x = x[:, :1] if len(layout) == 4 else x
    reference = Shield((0, 1), rng=0).transform(x)
    axes = ["NFHWC".index(letter) for letter in (layout if "F" in layout else "NF" + layout[1:])]
    given = x.transpose(axes)
    given = given if "F" in layout else given[:, 0]
    expected = reference.transpose(axes)
    expected = expected if "F" in layout else expected[:, 0]
    monkeypatch.setattr(mixed_jpeg, "BYTES", 5000)
    np.testing.assert_array_equal(Shield((0, 1), layout=layout, rng=0).transform(given), expected)


def test_one_quality_is_jpeg():
    x = np.random.default_rng(0).random((2, 9, 17, 3))
    grad = np.random.default_rng(1).normal(size=x.shape)
    for gradient in Shield.gradients:
        options = {"subsampling": "4:2:2", "gradient": gradient}
        shield, jpeg = Shield((0, 1), [30], **options), JpegCompression((0, 1), 30, **options)
        np.testing.assert_array_equal(shield.transform(x), jpeg.transform(x))
        np.testing.assert_allclose(
            shield.estimate_gradient(x, grad), jpeg.estimate_gradient(x, grad), rtol=1e-12
        )


@pytest.mark.parametrize("layout", ["NHWC", "NCFHW"])
def test_soft_gradients_are_those_of_the_qualities_drawn(layout):
    rng, axis = np.random.default_rng(0), layout.index("C")
    x = rng.random((2, 16, 24, 3) if layout == "NHWC" else (2, 3, 2, 16, 24))
    grad, defence = rng.normal(size=x.shape), Shield((0, 1), (5, 90), layout=layout, gradient="soft")
    with defence.frozen(4):
        out, pulled = defence.transform(x), defence.estimate_gradient(x, grad)
    expected = np.zeros_like(x)
    for quality in (5, 90):
        jpeg = JpegCompression((0, 1), quality, layout=layout, gradient="soft")
        same = out == jpeg.transform(x)
        # Of blocks of noise that are equal in all of their values
        frames = np.moveaxis(same, axis, -1)
        *lead, height, width, channels = frames.shape
        whole = frames.reshape(*lead, height // 8, 8, width // 8, 8, channels).all(axis=(-4, -2, -1))
        mask = np.expand_dims(whole.repeat(8, -2).repeat(8, -1), axis)
        expected += jpeg.estimate_gradient(x, np.where(mask, grad, 0))
    np.testing.assert_allclose(pulled, expected, rtol=1e-10, atol=1e-12)


def test_a_draw_belongs_to_a_sample():
    x = np.random.default_rng(0).random((5, 24, 16, 3))
    defence = Shield((0, 1), rng=1)
    whole = defence.transform(x, index=np.arange(5))
    np.testing.assert_array_equal(defence.transform(x[3:], index=np.arange(3, 5)), whole[3:])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"clip_values": (-1, 1)}, r"`clip_values` must be \(0, 1\) or \(0, 255\)"),
        ({"qualities": ()}, r"`qualities` must be a tuple of integers from 1 to 100, got \(\)"),
        ({"qualities": 50}, r"`qualities` must be a tuple .* \(50,\) for one quality"),
        ({"qualities": (50, 101)}, r"`qualities\[1\]` must be .* got 101"),
        ({"subsampling": "4:1:1"}, "`subsampling` must be one of"),
        ({"gradient": "exact"}, "`gradient` must be one of"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        Shield(**{"clip_values": (0, 1), **parameters})


def test_values_and_sizes_that_no_file_holds():
    with pytest.raises(ValueError, match="`x` must"):
        Shield((0, 1)).transform(np.full((1, 8, 8, 3), -0.1))
    with pytest.raises(ValueError, match="`x` must have frames of 1 to 65500 pixels"):
        Shield((0, 1)).transform(np.zeros((1, 0, 8, 3)))
    assert Shield((0, 1)).transform(np.zeros((0, 8, 8, 3))).shape == (0, 8, 8, 3)
