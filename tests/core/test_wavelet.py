"""Wavelets: scikit-image's result, an example by hand, the derivative beside differences and autodiff."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.restoration import denoise_wavelet

from preshield._core.denoising import pull_back_wavelets, shrink_wavelets

torch = pytest.importorskip("torch")

YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])


def by_scikit_image(frame, sigma):
    return denoise_wavelet(frame, sigma, convert2ycbcr=frame.shape[-1] == 3, channel_axis=-1)


def by_torch(frame, sigma, eps):
    """The description in words, in double precision, as a graph; `frame` is a tensor (H, W, C)."""
    if frame.shape[-1] != 3:
        planes = [_plane(frame[..., c], sigma**2, eps) for c in range(frame.shape[-1])]
        return torch.stack(planes, dim=-1)
    matrix = torch.tensor(YCBCR)
    colours, out = frame @ matrix.T, []
    for c in range(3):
        plane, width = colours[..., c], colours[..., c].max() - colours[..., c].min()
        noise = sigma * float(np.linalg.norm(YCBCR[c])) / width
        low = plane.min()
        out.append(_plane((plane - low) / width, noise**2, eps) * width + low if width > 0 else plane)
    return torch.stack(out, dim=-1) @ torch.linalg.inv(matrix).T


def _plane(plane, variance, eps):
    levels = max(int(math.log2(min(plane.shape))) - 3, 1)
    bands, mean = [], plane
    for _ in range(levels):
        height, width = mean.shape
        rows = list(range(height)) + [height - 1] * (height % 2)
        columns = list(range(width)) + [width - 1] * (width % 2)
        even = mean[rows][:, columns]
        a, b, c, d = even[::2, ::2], even[::2, 1::2], even[1::2, ::2], even[1::2, 1::2]
        details = [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
        shrunk = []
        for detail in details:
            rest = (detail**2).mean() - variance
            threshold = variance / (rest if rest > eps else torch.as_tensor(eps)).sqrt()
            shrunk.append(torch.sign(detail) * torch.relu(detail.abs() - threshold))
        bands.append((height, width, shrunk))
        mean = (a + b + c + d) / 2
    for height, width, (x, y, z) in reversed(bands):
        out = torch.zeros(2 * mean.shape[0], 2 * mean.shape[1], dtype=plane.dtype)
        out[::2, ::2], out[::2, 1::2] = (mean + x + y + z) / 2, (mean - x + y - z) / 2
        out[1::2, ::2], out[1::2, 1::2] = (mean + x - y - z) / 2, (mean - x - y + z) / 2
        mean = out[:height, :width]
    return mean


def exactly(frame, sigma, dtype=None):
    """The result in double precision, with the resolution of the dtype in the thresholds."""
    eps = float(np.finfo(frame.dtype if dtype is None else dtype).eps)
    return by_torch(torch.tensor(frame.astype(float)), sigma, eps).numpy()


def photographs(count, height, width):
    photograph = (data.astronaut() / 255).astype(np.float32)
    return np.stack([photograph[40 * n : 40 * n + height, 60 * n : 60 * n + width] for n in range(count)])


frames = st.tuples(
    st.integers(2, 70), st.integers(2, 70), st.sampled_from([1, 2, 3, 3, 3, 4, 5]), st.integers(0, 2**32 - 1)
)


def random_frame(shape, kind):
    height, width, channels, seed = shape
    rng = np.random.default_rng(seed)
    x = rng.random((height, width, channels))
    if kind == "smooth":
        row, column = np.mgrid[:height, :width, :1][:2]
        x = 0.5 + 0.3 * np.sin(row / 5 + column / 7) + 0.02 * rng.standard_normal(x.shape)
    elif kind == "two values":
        x = np.round(x)
    elif kind == "grey":
        x = np.repeat(x[..., :1], channels, axis=-1)
    elif kind == "half constant":
        x[:, : width // 2] = x[0, 0]
    elif kind == "constant channel":
        x[..., 0] = 0.25
    return x


# The result


def test_known_by_hand():
    # The means are 10 / 2; details are 2 across and 4 down, each alone in its band, and 0 diagonally.
    x = np.array([[8.0, 6.0], [4.0, 2.0]]).reshape(1, 2, 2, 1)
    out = shrink_wavelets(x, 1.0, axis=3)
    across, down = 2 - 1 / math.sqrt(2**2 - 1), 4 - 1 / math.sqrt(4**2 - 1)
    expected = [[10 + across + down, 10 - across + down], [10 + across - down, 10 - across - down]]
    np.testing.assert_allclose(out[0, ..., 0], np.array(expected) / 2, rtol=1e-14)
    # Noise of deviation 3 exceeds the details across: they vanish. Of those down 4 - 9 / sqrt(7) is left.
    left = 4 - 9 / math.sqrt(7)
    out = shrink_wavelets(x, 3.0, axis=3)
    np.testing.assert_allclose(out[0, ..., 0], [[5 + left / 2] * 2, [5 - left / 2] * 2], rtol=1e-14)
    # An odd side: a column of two, mirrored; its details across are 0 and count in the mean square.
    x = np.array([[1.0, 3.0, 5.0], [1.0, 3.0, 5.0]]).reshape(1, 2, 3, 1)
    across = -2 + 0.25 / math.sqrt(2 - 0.25)
    expected = [2 + across / 2, 2 - across / 2, 5]
    np.testing.assert_allclose(shrink_wavelets(x, 0.5, axis=3)[0, ..., 0], [expected] * 2, rtol=1e-14)


KINDS = ["noise", "smooth", "two values", "grey", "half constant", "constant channel"]


@settings(max_examples=150, deadline=None)
@given(
    shape=frames,
    kind=st.sampled_from(KINDS),
    sigma=st.sampled_from([1e-12, 1e-6, 1e-3, 0.01, 0.04, 0.2, 1.0, 50.0]),
    scale=st.sampled_from([1.0, 1e-3, 255.0]),
    shift=st.sampled_from([0.0, -0.5]),
)
@example(shape=(2, 2, 3, 0), kind="noise", sigma=0.04, scale=1.0, shift=0.0)
@example(shape=(2, 300, 3, 0), kind="smooth", sigma=0.04, scale=1.0, shift=0.0)
@example(shape=(301, 3, 1, 0), kind="smooth", sigma=0.04, scale=1.0, shift=0.0)
@example(shape=(128, 129, 3, 0), kind="smooth", sigma=0.04, scale=1.0, shift=0.0)
@example(shape=(391, 385, 3, 0), kind="smooth", sigma=0.04, scale=1.0, shift=0.0)  # in strips
@example(shape=(900, 523, 1, 0), kind="noise", sigma=0.2, scale=1.0, shift=0.0)
def test_it_is_that_of_scikit_image(shape, kind, sigma, scale, shift):
    x = (random_frame(shape, kind) + shift) * scale
    out = shrink_wavelets(x[None], sigma * scale, axis=3)[0]
    np.testing.assert_allclose(out, by_scikit_image(x, sigma * scale), atol=1e-9 * scale)
    single = x.astype(np.float32)
    out = shrink_wavelets(single[None], sigma * scale, axis=3)[0]
    assert out.dtype == np.float32
    if sigma * scale > np.finfo(np.float32).eps:
        np.testing.assert_allclose(out, exactly(single, sigma * scale), atol=1e-6 * scale)
        if scale == 1:  # scikit-image adds 128 to the colours, in single precision
            np.testing.assert_allclose(out, by_scikit_image(single, sigma), atol=1e-6)


@pytest.mark.parametrize("size", [(224, 224), (225, 131), (33, 300)])
@pytest.mark.parametrize("sigma", [0.01, 0.04, 0.1])
def test_photographs_in_single_precision(size, sigma):
    x = photographs(2, *size)
    out = shrink_wavelets(x, sigma, axis=3)
    theirs = np.array([by_scikit_image(image, sigma) for image in x])
    np.testing.assert_allclose(out, theirs, atol=1e-6)
    doubles = np.array([exactly(image, sigma) for image in x])
    assert np.abs(out - doubles).mean() < np.abs(theirs - doubles).mean()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layouts_are_bit_for_bit_the_same(channels, dtype):
    x = np.random.default_rng(0).random((2, 3, 9, 12, channels)).astype(dtype)
    grad = np.random.default_rng(1).standard_normal(x.shape).astype(dtype)
    clip_values = (0.1, 0.8)
    last = shrink_wavelets(x, 0.1, clip_values, axis=4)
    back = pull_back_wavelets(x, grad, 0.1, clip_values, axis=4)
    for axis in (1, 2):
        moved, moved_grad = np.moveaxis(x, -1, axis), np.moveaxis(grad, -1, axis)
        for a, g in ((moved, moved_grad), (np.ascontiguousarray(moved), np.ascontiguousarray(moved_grad))):
            out = shrink_wavelets(a, 0.1, clip_values, axis=axis)
            np.testing.assert_array_equal(np.moveaxis(out, axis, -1), last)
            pulled = pull_back_wavelets(a, g, 0.1, clip_values, axis=axis)
            np.testing.assert_array_equal(np.moveaxis(pulled, axis, -1), back)
    image = shrink_wavelets(x[:, 0], 0.1, clip_values, axis=3)
    np.testing.assert_array_equal(image, last[:, 0])
    inside = x.copy()
    assert shrink_wavelets(inside, 0.1, clip_values, axis=4, out=inside) is inside
    np.testing.assert_array_equal(inside, last)


def test_threads_and_blocks_change_nothing(monkeypatch):
    x, grad = photographs(5, 70, 61), np.random.default_rng(0).standard_normal((5, 70, 61, 3))
    results = []
    for threads, block_bytes in (("1", 1 << 30), ("1", 1), ("8", 1), ("8", 1 << 17)):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        monkeypatch.setattr("preshield._core.denoising.BLOCK_BYTES", block_bytes)
        out = shrink_wavelets(x, 0.04, (0, 1), axis=3)
        results.append((out, pull_back_wavelets(x, grad, 0.04, (0, 1), axis=3)))
    for out, pulled in results[1:]:
        np.testing.assert_array_equal(out, results[0][0])
        np.testing.assert_array_equal(pulled, results[0][1])


def test_the_range_is_clipped_before_and_after():
    x = np.random.default_rng(0).random((2, 9, 8, 3)) * 3 - 1
    plain = shrink_wavelets(x.clip(0, 1), 0.2, axis=3)
    assert plain.min() < -1e-3
    assert plain.max() > 1 + 1e-3
    np.testing.assert_array_equal(shrink_wavelets(x, 0.2, (0, 1), axis=3), plain.clip(0, 1))
    for low, high in ((-2.0, 5.0), (np.array([-2.0, 0, 1]), np.array([5.0, 1, 2]))):
        scaled = shrink_wavelets(x * (high - low) + low, 0.2, (low, high), axis=3)
        np.testing.assert_allclose(scaled, plain.clip(0, 1) * (high - low) + low, atol=1e-12)


# The derivative


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(
        st.integers(2, 40), st.integers(2, 40), st.sampled_from([1, 2, 3, 3, 4]), st.integers(0, 2**32 - 1)
    ),
    kind=st.sampled_from(["noise", "smooth", "half constant", "constant channel"]),
    sigma=st.sampled_from([1e-6, 0.01, 0.05, 0.2, 1.0]),
)
@example(shape=(33, 35, 3, 0), kind="noise", sigma=0.1)
@example(shape=(67, 130, 1, 0), kind="smooth", sigma=0.02)
@example(shape=(391, 385, 3, 0), kind="smooth", sigma=0.03)  # in strips
def test_the_derivative_is_that_of_autodiff(shape, kind, sigma):
    x = random_frame(shape, kind)
    grad = np.random.default_rng(0).standard_normal(x.shape)
    tensor = torch.tensor(x, requires_grad=True)
    eps = float(np.finfo(float).eps)
    (expected,) = torch.autograd.grad(by_torch(tensor, sigma, eps), tensor, torch.tensor(grad))
    pulled = pull_back_wavelets(x[None], grad[None], sigma, axis=3)[0]
    flat = x.shape[-1] == 3 and any(np.ptp(x @ row) < 1e-9 for row in YCBCR)
    if not flat:  # where a colour is constant, autodiff takes its range for one
        np.testing.assert_allclose(pulled, expected.numpy(), atol=1e-8)
    single = pull_back_wavelets(x[None].astype(np.float32), grad[None], sigma, axis=3)[0]
    assert single.dtype == np.float32


def test_the_derivative_of_what_is_clipped_in_strips():
    x = 1.4 * random_frame((391, 385, 3, 0), "smooth") - 0.2
    grad = np.random.default_rng(0).standard_normal(x.shape)
    tensor = torch.tensor(x, requires_grad=True)
    out = by_torch(tensor.clamp(0, 1), 0.05, float(np.finfo(float).eps)).clamp(0, 1)
    (expected,) = torch.autograd.grad(out, tensor, torch.tensor(grad))
    np.testing.assert_allclose(shrink_wavelets(x[None], 0.05, (0, 1), axis=3)[0], out.detach(), atol=1e-9)
    np.testing.assert_allclose(
        pull_back_wavelets(x[None], grad[None], 0.05, (0, 1), axis=3)[0], expected, atol=1e-8
    )


@pytest.mark.parametrize("clip_values", [None, (0, 1), (0.1, 1.2), (np.array([0.1, 0.2, 0.3]), 1.2)], ids=str)
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 3), (1, 33, 18, 3)], ids=str)
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 0.4])
def test_the_derivative_is_that_of_finite_differences(clip_values, shape, sigma):
    rng = np.random.default_rng(0)
    x = rng.random(shape) * (1 if clip_values is None else 1.5)
    grad = rng.standard_normal(shape)
    pulled = pull_back_wavelets(x, grad, sigma, clip_values, axis=3)
    if clip_values is not None:
        assert 0.1 < (pulled == 0).mean() < 0.9
    for _ in range(3):
        step = 1e-7 * rng.standard_normal(shape)
        ahead = shrink_wavelets(x + step, sigma, clip_values, axis=3)
        difference = ahead - shrink_wavelets(x - step, sigma, clip_values, axis=3)
        np.testing.assert_allclose(
            (pulled * step).sum(), (grad * difference).sum() / 2, rtol=1e-5, atol=1e-13
        )


@pytest.mark.parametrize(("dtype", "sigma", "atol"), [(np.float64, 1e-7, 1e-10), (np.float32, 1e-3, 2e-6)])
def test_the_range_of_a_colour_is_differentiated_where_it_makes_a_threshold(dtype, sigma, atol):
    # Constant quarters hold the range, and one pixel the details: larger than their threshold, but alone, so
    # that their mean square is below the variance of the noise. A little noise tells the extremes apart.
    rng = np.random.default_rng(0)
    x = np.full((64, 64, 3), 0.2)
    x[32:, :, 0], x[:, 32:, 1], x[:32, :32, 2] = 0.9, 0.7, 0.6
    x[9, 9] += 20 * sigma
    x = (x + 1e-2 * sigma * rng.random(x.shape)).astype(dtype)
    grad = rng.standard_normal(x.shape)
    tensor = torch.tensor(x.astype(float), requires_grad=True)
    out = by_torch(tensor, sigma, float(np.finfo(dtype).eps))
    (expected,) = torch.autograd.grad(out, tensor, torch.tensor(grad))
    assert sigma < out[9, 9, 0] - out[20, 20, 0] < 19 * sigma
    np.testing.assert_allclose(shrink_wavelets(x[None], sigma, axis=3)[0], out.detach(), atol=1e-6)
    pulled = pull_back_wavelets(x[None], grad[None], sigma, axis=3)[0]
    np.testing.assert_allclose(pulled, expected.numpy(), atol=atol)
    for end in ((x @ YCBCR[0]).argmax(), (x @ YCBCR[0]).argmin()):  # of which the range makes a difference
        row, column = divmod(int(end), 64)
        neighbour = expected[row ^ 1, column ^ 1] - expected[row, column]
        assert neighbour.abs().max() > 10 * atol


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_noise_or_details(dtype):
    x = np.random.default_rng(0).random((2, 1, 5, 3)).astype(dtype) * 2
    for batch, sigma in ((x, 0.1), (x.reshape(2, 5, 1, 3), 0.1), (x.reshape(1, 2, 5, 3), 1e-17)):
        np.testing.assert_array_equal(shrink_wavelets(batch, sigma, axis=3), batch)
        np.testing.assert_array_equal(shrink_wavelets(batch, sigma, (0, 1), axis=3), batch.clip(0, 1))
        np.testing.assert_array_equal(pull_back_wavelets(batch, batch, sigma, axis=3), batch)
        pulled = pull_back_wavelets(batch, batch, sigma, (0, 1), axis=3)
        np.testing.assert_array_equal(pulled, np.where(batch > 1, 0, batch))
    for shape in ((0, 4, 4, 3), (2, 4, 4, 0), (2, 0, 4, 3)):
        assert shrink_wavelets(np.zeros(shape, dtype), 0.1, (0, 1), axis=3).shape == shape
        assert pull_back_wavelets(np.zeros(shape), np.zeros(shape), 0.1, (0, 1), axis=3).shape == shape


@pytest.mark.parametrize("clip_values", [(0, 1), (0, 255), (-0.3, 0.4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_ends_of_the_range_are_not_clipped(clip_values, dtype):
    # Flat squares of black, white and full colours are their own result, but for rounding.
    x = np.kron(np.random.default_rng(0).integers(0, 2, (6, 6, 3)), np.ones((8, 8, 1)))[None]
    x = np.array(clip_values, dtype)[x.astype(int)]
    out = shrink_wavelets(x, 0.04, clip_values, axis=3)
    np.testing.assert_allclose(out, x, atol=1e-6 * (clip_values[1] - clip_values[0]))
    pulled = pull_back_wavelets(x, np.ones_like(x), 0.04, clip_values, axis=3)
    np.testing.assert_allclose(pulled, 1, atol=1e-5)


def flat_images(dtype):
    """Images of 16 x 16 in [0, 1], of which at least one of Y, Cb and Cr is constant, and whether all are."""
    rng = np.random.default_rng(0)
    images = {f"constant {value}": (np.full((16, 16, 3), value), True) for value in (0, 0.3, 0.5, 1)}
    images["one colour"] = np.broadcast_to([0.25, 0.5, 0.75], (16, 16, 3)), True
    images["grey quarters"] = np.repeat(rng.integers(0, 5, (16, 16, 1)) / 4, 3, axis=-1), False
    images["digits"] = np.repeat(rng.integers(0, 2, (16, 16, 1)), 3, axis=-1), False
    images["nearly nothing"] = np.zeros((16, 16, 3)), False
    images["nearly nothing"][0][3, 3] = 1e-38
    return {name: (x.astype(dtype), all_flat) for name, (x, all_flat) in images.items()}


@pytest.mark.parametrize("clip_values", [None, (0, 1), (0, 255), (-1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sigma", [0.04, 1e-6, 3.0, 1e19, 1e200])
def test_the_derivative_is_finite_where_a_colour_has_no_range(clip_values, dtype, sigma):
    low, high = (0, 1) if clip_values is None else clip_values
    grad = np.random.default_rng(1).standard_normal((1, 16, 16, 3)).astype(dtype)
    # Nothing exceeds a threshold: what is left of a constant image are the means of squares of 2 x 2.
    means = grad.reshape(1, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    means = means.repeat(2, axis=1).repeat(2, axis=2)
    for name, (unit, all_flat) in flat_images(dtype).items():
        x = (unit * dtype(high - low) + dtype(low))[None]
        out = shrink_wavelets(x, sigma, clip_values, axis=3)
        assert np.isfinite(out).all(), name
        pulled = pull_back_wavelets(x, grad, sigma, clip_values, axis=3)
        assert np.isfinite(pulled).all(), name
        if all_flat:
            np.testing.assert_allclose(out, x, atol=1e-6 * (high - low), err_msg=name)
            np.testing.assert_allclose(pulled, means, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_largest_noise_leaves_means(dtype, channels):
    x = np.random.default_rng(0).random((1, 8, 8, channels)).astype(dtype)
    means = x.reshape(1, 4, 2, 4, 2, channels).mean(axis=(2, 4)).repeat(2, axis=1).repeat(2, axis=2)
    for sigma in (1e19, 1e30, 1e200, 1e308):  # beyond float32, and squared beyond float64
        np.testing.assert_allclose(shrink_wavelets(x, sigma, axis=3), means, atol=1e-6)
        grad = x - dtype(0.5)
        np.testing.assert_allclose(pull_back_wavelets(x, grad, sigma, axis=3), means - 0.5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("clip_values", [None, (0, 1)], ids=str)
@pytest.mark.parametrize("axis", [1, 3])
def test_not_a_number_stays_so(dtype, clip_values, axis):
    x = np.random.default_rng(0).random((1, 8, 8, 8)).astype(dtype)
    broken = x.copy()
    broken[0, 3, 3, 3] = np.nan
    out = shrink_wavelets(broken, 0.04, clip_values, axis=axis)
    assert np.isnan(out[0, 3, 3, 3])
    assert not np.isinf(out).any()
    pulled = pull_back_wavelets(x, broken, 0.04, clip_values, axis=axis)
    assert np.isnan(pulled[0, 3, 3, 3])
    assert not np.isinf(pulled).any()
