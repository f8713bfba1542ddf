"""The denoisers beside their formulas and scikit-image, and on images of all sizes."""

import numpy as np
import pytest
import pywt
from skimage import restoration

from preshield._core.denoising import DENOISERS, denoise

methods = pytest.mark.parametrize("method", DENOISERS)
SIGMA = 0.04


def smooth_image(channels, dtype=np.float64):
    """Waves and an edge; 40 x 32 pixels in [0.1, 0.9]."""
    row, column = np.mgrid[:40, :32] / 32
    waves = [
        0.5 + 0.2 * np.sin(3 * row + c) * np.cos(4 * column) + 0.2 * (row > 0.5) for c in range(channels)
    ]
    return np.stack(waves, axis=-1).astype(dtype)


@methods
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_noise_becomes_less(method, channels):
    clean = smooth_image(channels)
    noise = SIGMA * np.random.default_rng(0).standard_normal(clean.shape)
    noisy = np.clip(clean + noise, 0, 1)
    before = noisy.copy()
    out = denoise(noisy, method, SIGMA)
    np.testing.assert_array_equal(noisy, before)
    assert np.mean((out - clean) ** 2) < 0.6 * np.mean((noisy - clean) ** 2)
    np.testing.assert_allclose(denoise(noisy.astype(np.float32), method, SIGMA), out, atol=2e-3)


@methods
def test_colours_are_not_mixed_but_in_three_channels(method):
    x = np.random.default_rng(1).random((12, 10, 3))
    two = np.stack([denoise(x[..., c : c + 1], method, 0.2)[..., 0] for c in range(2)], axis=-1)
    np.testing.assert_allclose(denoise(x[..., :2], method, 0.2), two, atol=1e-12)
    apart = np.concatenate([denoise(x[..., c : c + 1], method, 0.2) for c in range(3)], axis=-1)
    together = np.abs(denoise(x, method, 0.2) - apart).max()
    assert together > 1e-3 if method in ("wavelet", "bilateral", "nlm") else together < 1e-12


@methods
@pytest.mark.parametrize("sigma", [1e-6, SIGMA, 1.0, 1e6])
@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (1, 9, 1), (9, 1, 3), (2, 2, 2), (1, 2, 5), (6, 5, 3), (33, 17, 3)], ids=str
)
def test_any_size_and_constants(method, shape, sigma):
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        images = [np.full(shape, value) for value in (0, 0.3, 1)]
        images += [rng.random(shape), rng.integers(0, 2, shape), 0.5 + 1e-7 * rng.random(shape)]
        for i, image in enumerate(images):
            x = image.astype(dtype)
            out = denoise(x, method, sigma)
            assert out.shape == shape
            assert out.dtype == dtype
            assert np.isfinite(out).all()
            if i < 3:
                np.testing.assert_allclose(out, x, atol=3e-5)


@methods
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_below_the_resolution_changes_nothing(method, dtype):
    x = np.random.default_rng(0).random((6, 5, 3)).astype(dtype)
    for sigma in (0, 1e-300, np.finfo(dtype).eps):
        assert denoise(x, method, sigma) is x


def test_wavelet_shrinks_by_bayes():
    x = np.random.default_rng(0).random((16, 12, 1))
    coarse, details = pywt.dwt2(x[..., 0], "haar")  # one level: three below the most
    shrunk = []
    for detail in details:
        signal = np.sqrt(max(np.mean(detail**2) - SIGMA**2, np.finfo(float).eps))
        threshold = SIGMA**2 / signal
        shrunk.append(np.sign(detail) * np.maximum(np.abs(detail) - threshold, 0))
    expected = pywt.idwt2((coarse, shrunk), "haar")
    np.testing.assert_allclose(denoise(x, "wavelet", SIGMA)[..., 0], expected, atol=1e-12)


def test_wavelet_of_colours_is_that_of_ycbcr():
    x = np.random.default_rng(0).random((33, 18, 3))
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
    planes = x @ matrix.T
    spread = SIGMA * np.sqrt((matrix**2).sum(axis=1))
    for c in range(3):
        width = np.ptp(planes[..., c])
        unit = (planes[..., c : c + 1] - planes[..., c].min()) / width
        denoised = denoise(unit, "wavelet", spread[c] / width)
        planes[..., c] = denoised[..., 0] * width + planes[..., c].min()
    np.testing.assert_allclose(denoise(x, "wavelet", SIGMA), planes @ np.linalg.inv(matrix).T, atol=1e-6)


def test_wiener_is_the_minimum_of_its_objective():
    # |z - x|^2 + balance |Laplacian of z|^2 over the mirrored plane, which is periodic
    x = np.random.default_rng(0).random((5, 7, 1))
    plane = np.pad(x[..., 0], 8, mode="symmetric")
    height, width = plane.shape
    laplacian = np.zeros(plane.shape)
    laplacian[0, 0] = 4
    for at in ((0, 1), (1, 0), (0, width - 1), (height - 1, 0)):
        laplacian[at] = -1
    around = np.pad(plane, 1, mode="symmetric")
    curvature = 4 * plane - around[2:, 1:-1] - around[:-2, 1:-1] - around[1:-1, 2:] - around[1:-1, :-2]
    balance = SIGMA**2 / np.mean(curvature**2)
    transfer = 1 / (1 + balance * np.abs(np.fft.fft2(laplacian)) ** 2)
    expected = np.fft.ifft2(np.fft.fft2(plane) * transfer).real[8:-8, 8:-8]
    np.testing.assert_allclose(denoise(x, "wiener", SIGMA)[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_bilateral_is_a_weighted_mean_of_neighbours(channels):
    x = np.random.default_rng(0).random((6, 7, channels))
    around = np.pad(x, ((2, 2), (2, 2), (0, 0)), mode="edge")
    expected = np.empty_like(x)
    for i in range(6):
        for j in range(7):
            window = around[i : i + 5, j : j + 5]
            distance = ((window - x[i, j]) ** 2).mean(axis=-1, keepdims=True)
            weights = np.exp(-distance / (2 * 0.2**2))
            expected[i, j] = (weights * window).sum(axis=(0, 1)) / weights.sum()
    np.testing.assert_allclose(denoise(x, "bilateral", 0.2), expected, atol=1e-3)  # from a table


def test_total_variation_and_non_local_means_are_those_of_scikit_image():
    x = np.random.default_rng(0).random((20, 18, 3))
    expected = restoration.denoise_tv_chambolle(x, weight=0.1, channel_axis=-1)
    np.testing.assert_array_equal(denoise(x, "tv", 0.1), expected)
    expected = restoration.denoise_nl_means(x, h=0.08, sigma=0.1, fast_mode=True, channel_axis=-1)
    np.testing.assert_array_equal(denoise(x, "nlm", 0.1), expected)
