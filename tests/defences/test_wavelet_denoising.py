"""Wavelet denoising: scikit-image's result in units of the range, and its rules."""

import numpy as np
import pytest
from skimage.restoration import denoise_wavelet

from preshield import PixelDeflection, WaveletDenoising


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_that_of_scikit_image_in_units_of_the_range(channels, dtype):
    unit = np.random.default_rng(0).random((2, 3, 19, 22, channels)).astype(dtype)
    expected = np.empty_like(unit)
    for place in np.ndindex(2, 3):
        ycbcr = channels == 3
        expected[place] = denoise_wavelet(unit[place], 0.3, convert2ycbcr=ycbcr, channel_axis=-1)
    assert np.abs(expected - unit).max() > 0.1
    low, high = np.arange(channels) - 1.5, np.arange(channels) + 3.0
    for limits in ((-2.0, 255.0), (low, high)):
        x = (unit * (limits[1] - limits[0]) + limits[0]).astype(dtype)
        out = WaveletDenoising(limits, 0.3).transform(x)
        scale = np.max(limits[1] - limits[0])
        wanted = expected.clip(0, 1) * (limits[1] - limits[0]) + limits[0]
        np.testing.assert_allclose(out, wanted, atol=(1e-12 if dtype == np.float64 else 1e-6) * scale)


def test_it_is_pixel_deflection_without_deflections():
    x = np.random.default_rng(0).random((2, 3, 12, 11)).astype(np.float32)
    out = WaveletDenoising((0, 1), 0.1, channels_first=True).transform(x)
    both = PixelDeflection((0, 1), 0, sigma=0.1, channels_first=True).transform(x)
    np.testing.assert_array_equal(out, both)
    assert np.abs(out - x).max() > 0.05


def test_an_attacker_gets_the_exact_gradient_of_a_model_behind_it():
    torch = pytest.importorskip("torch")
    x = torch.rand((2, 3, 9, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    defence = WaveletDenoising((0, 1), 0.2, channels_first=True)
    assert torch.autograd.gradcheck(defence.transform, x.requires_grad_(), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float16, ">f8"])
def test_any_dtype(dtype):
    x = np.random.default_rng(0).integers(0, 2, (2, 6, 7, 3)).astype(dtype)
    out = WaveletDenoising((0, 1), 0.3).transform(x)
    kept = np.dtype(dtype).newbyteorder("=") if np.dtype(dtype).kind == "f" else np.float32
    assert out.dtype == kept
    expected = WaveletDenoising((0, 1), 0.3).transform(x.astype(float))
    np.testing.assert_allclose(out, expected, atol=1e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"clip_values": None}, "`clip_values` must be a pair"),
        ({"clip_values": (1, 0)}, "`clip_values` must have minimum < maximum"),
        ({"sigma": -0.1}, "`sigma` must be at least 0, got -0.1"),
        ({"sigma": np.nan}, "`sigma` must be finite, got nan"),
        ({"channels_first": 1}, "`channels_first` must be True or False, got 1"),
        ({"apply_predict": "no"}, "`apply_predict` must be True or False, got 'no'"),
        ({"layout": "HWC"}, "`layout` must be None or one of"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        WaveletDenoising(**{"clip_values": (0, 1), **parameters})


def test_limits_must_fit_a_sample():
    defence, x = WaveletDenoising((0, np.ones(4))), np.zeros((2, 8, 9, 3))
    message = r"`clip_values` must be numbers or arrays .* of shape \(8, 9, 3\), got shapes \(\) and \(4,\)"
    with pytest.raises(ValueError, match=message):
        defence.transform(x)
    with pytest.raises(ValueError, match=message):
        defence.estimate_gradient(x, x)
