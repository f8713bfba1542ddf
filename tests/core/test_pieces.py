"""Large samples are worked on piece by piece: the pieces change nothing."""

import numpy as np
import pytest

from preshield import (
    BlurNet,
    FeatureSqueezing,
    GaussianBlur,
    ImageResize,
    JpegCompression,
    Mixup,
    PixelDeflection,
    SpatialSmoothing,
    StandardisationMeanStd,
    ThermometerEncoding,
)
from preshield._core import planes, threads
from preshield._core.threads import map_parts, threads_within

CHANNELS = np.array([1.0, 2.0, 3.0])


def bytes_of(defence, x):
    """Results and gradients, if there are exact ones."""
    if defence.mixes_samples:
        with defence.frozen(0):
            return [a.tobytes() for a in defence(x, np.eye(3))]
    made = defence.transform(x)
    if not hasattr(defence, "gradient"):
        return [made.tobytes()]
    grad = np.random.default_rng(1).random(made.shape, dtype=np.float32)
    return [made.tobytes(), defence.estimate_gradient(x, grad).tobytes()]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize(
    ("defence", "channels_first"),
    [
        *((SpatialSmoothing(window, gradient="exact"), False) for window in (2, 3, 4, 5)),
        (SpatialSmoothing(3, gradient="exact", channels_first=True), True),
        (GaussianBlur(7), False),
        (BlurNet(channels_first=True), True),
        (FeatureSqueezing((0 * CHANNELS, 100 * CHANNELS), 3), False),
        (Mixup(3, num_mix=3), False),
        (StandardisationMeanStd(CHANNELS, 2 * CHANNELS), False),
        (StandardisationMeanStd(CHANNELS, 2), True),
        (StandardisationMeanStd(np.arange(31.0)[:, None, None], 2), False),
        (ThermometerEncoding((0, 255), 3), False),
        (ThermometerEncoding((0, 255), 3, channels_first=True), True),
        (ImageResize(17, 40), False),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_bands_and_parts(monkeypatch, defence, channels_first, dtype):
    x = (255 * np.random.default_rng(0).random((3, 31, 9, 3))).astype(dtype)
    x[1, 10:20] = 7  # ties
    x = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if channels_first else x
    whole = bytes_of(defence, x)
    for bytes_in_a_piece, number in ((1, "1"), (400, "5")):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", number)
        monkeypatch.setattr(planes, "BAND_BYTES", bytes_in_a_piece)
        monkeypatch.setattr(threads, "BLOCK_BYTES", bytes_in_a_piece)
        assert bytes_of(defence, x) == whole


@pytest.mark.parametrize("shape", [(2, 300, 41, 3), (1, 3, 2, 303, 37), (1, 290, 17, 2)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_strips_of_jpeg(monkeypatch, shape, dtype, subsampling):
    x = (255 * np.random.default_rng(0).random(shape)).astype(dtype)
    defence = JpegCompression(
        (0, 255), channels_first=len(shape) == 5, subsampling=subsampling, gradient="straight-through"
    )
    single, grad = x.astype(np.float32), np.random.default_rng(1).random(shape, dtype=np.float32)
    whole, pulled = defence.transform(single), defence.estimate_gradient(single, grad)
    for size in (1, 1 << 30):
        monkeypatch.setattr("preshield._core.jpeg.PART_BYTES", size)
        out = defence.transform(x)
        np.testing.assert_array_equal(out, whole.astype(out.dtype))
        np.testing.assert_array_equal(defence.estimate_gradient(x, grad), pulled)


@pytest.mark.parametrize("window", [1, 40])
def test_deflections(monkeypatch, window):
    x = np.random.default_rng(0).random((2, 8, 9, 2))
    made = []
    for most in (1 << 12, 7, 1):
        monkeypatch.setattr("preshield.defences.pixel_deflection.DEFLECTIONS_AT_ONCE", most)
        defence = PixelDeflection((0, 1), 50, window=window, denoiser=None, gradient="exact", rng=0)
        made.append(bytes_of(defence, x))
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("shape", [(3, 7, 2), (3, 5), (4,), (0, 3), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("axis", [1, 2])
def test_each_entry_is_in_one_part(monkeypatch, shape, axis):
    monkeypatch.setattr(threads, "BLOCK_BYTES", 9)
    seen = np.zeros(shape, int)

    def add(where):
        seen[where] += 1

    map_parts(add, np.zeros(shape), axis)
    assert (seen == 1).all()


def test_threads_share_what_a_call_may_hold(monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "16")
    assert [threads_within(held) for held in (0, 1 << 22, 1 << 23, 3 << 24, 1 << 40)] == [16, 16, 8, 1, 1]
