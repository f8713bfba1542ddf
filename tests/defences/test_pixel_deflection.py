"""Pixel deflection: results known by hand, the plain loop of its description, its draws, its rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from preshield import PixelDeflection
from preshield._core.denoising import DENOISERS, denoise
from preshield._core.kernels.deflection import deflect, return_gradient
from preshield._core.random import SEED_WORDS, expand_seed
from tests.threefry import words

UNIT = (0, 1)
NO_MAP = np.empty((1, 1, 0, 0))


def random_words(defence, x, count, seed=0):
    """The words behind the draw of `frozen(seed)`, for `x` of shape (N, F, H, W, C)."""
    samples, frames, _, _, channels = x.shape
    key, of_sample = expand_seed(seed, SEED_WORDS), frames * channels * count * 4
    return np.stack([words(key, n, of_sample).reshape(frames, channels, count, 4) for n in range(samples)])


def one_deflection(row, column, source_row, source_column):
    """The words that stand for four numbers in [0, 1)."""
    return [int(number * 2**32) for number in (row, column, source_row, source_column)]


def plain_loop(x, draws, window, maps=None):
    """The description in words: pixel after pixel, one channel after the other."""
    out = x.copy()
    samples, frames, height, width, channels = x.shape
    for n in range(samples):
        for f in range(frames):
            for c in range(channels):
                for u, v, a, b in draws[n, f, c].tolist():
                    (i, left), j = divmod(u * height, 2**32), v * width // 2**32
                    rows = [r for r in range(i - window, i + window + 1) if 0 <= r < height]
                    columns = [q for q in range(j - window, j + window + 1) if 0 <= q < width]
                    if maps is not None and left / 2**32 < maps[n, f, i, j]:
                        continue
                    row, column = rows[a * len(rows) // 2**32], columns[b * len(columns) // 2**32]
                    out[n, f, i, j, c] = out[n, f, row, column, c]
    return out


# The deflection


def test_known_by_hand():
    first = (0, 0.4, 0, 0)  # of three columns the middle one, from the left one
    second = (0, 0.9, 0, 0)  # the right one, from the first one of its window: the middle one
    most = 1 - 2**-32
    x = np.array([1.0, 2, 3]).reshape(1, 1, 1, 1, 3)
    for draws, expected, pulled in (
        ([first], [1, 1, 3], [11, 0, 100]),
        ([second], [1, 2, 2], [1, 110, 0]),
        ([first, second], [1, 1, 1], [111, 0, 0]),
        ([second, first], [1, 1, 2], [11, 100, 0]),
        ([(0, 0.4, 0, 0.5)], [1, 2, 3], [1, 10, 100]),  # the pixel itself
        ([(most, 0, most, most)], [2, 2, 3], [0, 11, 100]),  # the last one of the window of the left one
        ([(most, most, 0, 0)], [1, 2, 2], [1, 110, 0]),
        ([], [1, 2, 3], [1, 10, 100]),
    ):
        out, grad = x.copy(), np.array([1.0, 10, 100]).reshape(x.shape)
        given = np.array([one_deflection(*draw) for draw in draws], np.uint32).reshape(1, -1, 4)
        deflect(out, NO_MAP, given, 0, 1)
        assert out.ravel().tolist() == expected
        return_gradient(grad, NO_MAP, given, 0, 1)
        assert grad.ravel().tolist() == pulled


def test_a_map_is_the_probability_of_a_skip():
    # The chance is what the choice of the row leaves: of one row, the number itself; of two, its double.
    maps = np.array([0.2, 0.5, 0.9]).reshape(1, 1, 1, 3)
    for height, row, expected in (
        (1, 0.49, [1, 2, 3]),
        (1, 0.51, [1, 1, 3]),
        (2, 0.24, [1, 2, 3] * 2),
        (2, 0.26, [1, 1, 3, 1, 2, 3]),
        (2, 0.74, [1, 2, 3] * 2),
        (2, 0.76, [1, 2, 3, 1, 1, 3]),
    ):
        out = np.tile([1.0, 2, 3], height).reshape(1, 1, 1, height, 3)
        given = np.array([[one_deflection(row, 0.4, 0, 0)]], np.uint32)
        deflect(out, np.repeat(maps, height, axis=2), given, 0, 1)
        assert out.ravel().tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(
        st.integers(1, 3), st.integers(1, 3), st.integers(1, 8), st.integers(9, 12), st.integers(1, 4)
    ),
    count=st.integers(0, 120),
    window=st.integers(1, 15),
    kind=st.sampled_from(["images", "videos"]),
    channels_first=st.booleans(),
    mapped=st.sampled_from([None, "one", "each"]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.uint8]),
)
def test_it_is_the_plain_loop_bit_for_bit(shape, count, window, kind, channels_first, mapped, dtype):
    rng = np.random.default_rng(0)
    shape = shape if kind == "videos" else (shape[0], 1, *shape[2:])
    x = (250 * rng.random(shape)).astype(dtype)
    maps = None if mapped is None else rng.random(shape[2:4] if mapped == "one" else shape[:4])
    given_map = maps[:, 0] if mapped == "each" and kind == "images" else maps
    batch = x if kind == "videos" else x[:, 0]
    defence = PixelDeflection(
        (0, 255), count, window, channels_first=channels_first, activation_map=given_map, denoiser=None
    )
    with defence.frozen(3):
        out = defence.transform(np.moveaxis(batch, -1, 1) if channels_first else batch)
    out = np.moveaxis(out, 1, -1) if channels_first else out
    draws = random_words(defence, x, count, 3)
    expected = plain_loop(x, draws, window, maps if maps is None else np.broadcast_to(maps, shape[:4]))
    assert out.dtype == (np.float32 if dtype == np.uint8 else dtype)
    np.testing.assert_array_equal(out.reshape(shape), expected)


def test_threads_and_blocks_change_nothing(monkeypatch):
    x = np.random.default_rng(0).random((7, 2, 6, 9, 3))
    defence = PixelDeflection(UNIT, 40, 2)
    outs = []
    for threads, at_once in (("1", 1 << 12), ("3", 50), ("64", 1)):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        monkeypatch.setattr("preshield.defences.pixel_deflection.DEFLECTIONS_AT_ONCE", at_once)
        with defence.frozen(1):
            outs.append(defence.transform(x))
    np.testing.assert_array_equal(outs[1], outs[0])
    np.testing.assert_array_equal(outs[2], outs[0])
    with defence.frozen(1):
        np.testing.assert_array_equal(defence.transform(x[:3]), outs[0][:3])


def test_pixels_and_sources_are_uniform():
    # One deflection of many images whose pixels are numbered: the pair of target and source shows.
    height, width, window, n = 5, 4, 1, 40_000
    numbers = np.arange(height * width, dtype=float)
    x = np.broadcast_to(numbers.reshape(1, height, width, 1), (n, height, width, 1))
    out = PixelDeflection((0, 20), 1, window, denoiser=None, rng=0).transform(x).reshape(n, -1)
    changed = out != numbers
    assert changed.sum(axis=1).max() == 1
    image, target = np.nonzero(changed)
    seen = np.zeros((height * width, height * width))
    np.add.at(seen, (target, out[image, target].astype(int)), 1)
    expected = np.zeros_like(seen)
    for i in range(height):
        for j in range(width):
            rows = range(max(i - window, 0), min(i + window, height - 1) + 1)
            columns = range(max(j - window, 0), min(j + window, width - 1) + 1)
            sources = [(r, c) for r in rows for c in columns]
            for r, c in sources:  # the pixel itself is one of them
                expected[i * width + j, r * width + c] = n / (height * width * len(sources))
    unchanged = np.trace(expected)
    np.fill_diagonal(expected, 0)
    assert not seen[expected == 0].any()
    observed = [*seen[expected > 0], n - len(image)]
    assert chisquare(observed, [*expected[expected > 0], unchanged]).pvalue > 0.01
    assert seen[:width].sum() > 0  # the first row is overwritten, and copied
    assert seen[:, :width].sum() > 0


def test_a_map_spares_as_often_as_it_says():
    height, width, n = 5, 4, 40_000
    numbers = np.arange(height * width, dtype=float)
    x = np.broadcast_to(numbers.reshape(1, height, width, 1), (n, height, width, 1))
    maps = np.linspace(0, 1, height * width).reshape(height, width)
    # The window holds the image, so that all sources are alike; that of the pixel itself does not show.
    out = PixelDeflection((0, 20), 1, 5, denoiser=None, activation_map=maps, rng=0).transform(x)
    seen = (out.reshape(n, -1) != numbers).sum(axis=0)
    shown = (1 - maps.ravel()) / numbers.size * (1 - 1 / numbers.size)
    assert seen[-1] == 0
    expected = n * np.array([*shown[:-1], 1 - shown.sum()])
    assert chisquare([*seen[:-1], n - seen.sum()], expected).pvalue > 0.01


def test_channels_frames_and_samples_are_drawn_apart():
    plane = np.random.default_rng(0).random((1, 1, 8, 9, 1))
    x = np.broadcast_to(plane, (2, 2, 8, 9, 3))
    out = PixelDeflection(UNIT, 10, 2, denoiser=None, rng=0).transform(x)
    planes = np.moveaxis(out, -1, 2).reshape(12, -1)
    assert len({p.tobytes() for p in planes}) == 12


@pytest.mark.parametrize(
    ("deflections", "count"),
    [(7, 7), (2.0, 2), (0.1, 7), (0.107, 8), (1.0, 72), (1e-9, 1), (np.float32(0.25), 18)],
)
def test_a_fraction_is_a_number_of_pixels(deflections, count):
    x = np.random.default_rng(0).random((2, 8, 9, 2))
    with (
        PixelDeflection(UNIT, deflections, denoiser=None).frozen() as defence,
        PixelDeflection(UNIT, count, denoiser=None).frozen() as counted,
    ):
        np.testing.assert_array_equal(defence.transform(x), counted.transform(x))


def test_more_deflections_than_pixels_and_a_window_beyond_the_image():
    x = np.random.default_rng(0).random((1, 4, 5, 2))
    out = PixelDeflection(UNIT, 500, 1, denoiser=None, rng=0).transform(x)
    assert all(np.isin(out[..., c], x[..., c]).all() for c in range(2))
    with (
        PixelDeflection(UNIT, window=4, denoiser=None).frozen() as all_of_it,
        PixelDeflection(UNIT, window=10**30, denoiser=None).frozen() as beyond,
    ):
        np.testing.assert_array_equal(beyond.transform(x), all_of_it.transform(x))


def test_seeds():
    x = np.random.default_rng(0).random((2, 6, 7, 3))
    first, second = (PixelDeflection(UNIT, rng=5).transform(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (PixelDeflection(UNIT, rng=6).transform(x) != first).any()
    defence = PixelDeflection(UNIT, rng=5)
    assert (defence.transform(x) != defence.transform(x)).any()


# Activation maps


def test_maps_protect():
    x = np.random.default_rng(0).random((3, 8, 9, 2))
    left = np.zeros((8, 9))
    left[:, :4] = 1
    out = PixelDeflection(UNIT, 200, 9, denoiser=None, activation_map=left, rng=0).transform(x)
    np.testing.assert_array_equal(out[:, :, :4], x[:, :, :4])
    assert (out[:, :, 4:] != x[:, :, 4:]).mean() > 0.5
    with (
        PixelDeflection(UNIT, denoiser=None).frozen() as without,
        PixelDeflection(UNIT, denoiser=None, activation_map=np.zeros((8, 9))).frozen() as zeros,
    ):
        np.testing.assert_array_equal(zeros.transform(x), without.transform(x))


@pytest.mark.parametrize("dtype", [np.uint8, ">f4", np.float64])
def test_a_function_gets_the_batch_in_its_own_layout_once(dtype):
    x = np.asfortranarray(np.random.default_rng(0).integers(0, 2, (3, 2, 8, 9))).astype(dtype, order="K")
    x.setflags(write=False)
    seen = []

    def activation_map(batch):
        seen.append(batch.copy())
        assert batch.flags.c_contiguous
        assert batch.flags.writeable
        assert batch.dtype == x.dtype.newbyteorder("=")
        batch[:] = 0
        return maps

    maps = np.random.default_rng(1).random((3, 8, 9)).astype(np.float32)
    options = {"denoiser": None, "channels_first": True, "deflections": 50}
    with (
        PixelDeflection(UNIT, activation_map=activation_map, **options).frozen() as asked,
        PixelDeflection(UNIT, activation_map=maps, **options).frozen() as told,
    ):
        np.testing.assert_array_equal(asked.transform(x), told.transform(x))
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], x)


def test_a_function_is_not_asked_about_nothing():
    defence = PixelDeflection(UNIT, activation_map=lambda x: pytest.fail("called"))
    assert defence.transform(np.zeros((0, 8, 9, 3))).shape == (0, 8, 9, 3)


def test_maps_may_be_tensors():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).random((2, 8, 9, 1))
    maps = np.random.default_rng(1).random((2, 8, 9))
    with (
        PixelDeflection(UNIT, activation_map=torch.tensor(maps, requires_grad=True)).frozen() as tensor,
        PixelDeflection(UNIT, activation_map=maps).frozen() as array,
    ):
        np.testing.assert_array_equal(tensor.transform(x), array.transform(x))


# Denoisers


@pytest.mark.parametrize("denoiser", [None, *DENOISERS])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_frame_is_denoised_after_its_deflections(denoiser, channels):
    x = np.random.default_rng(0).random((2, 3, 12, 11, channels))
    with (
        PixelDeflection(UNIT, 9, 2, sigma=0.1, denoiser=denoiser).frozen() as defence,
        PixelDeflection(UNIT, 9, 2, denoiser=None).frozen() as bare,
    ):
        out, expected = defence.transform(x), bare.transform(x)
    if denoiser is not None:
        frames = [[denoise(frame, denoiser, 0.1) for frame in video] for video in expected]
        expected = np.clip(frames, 0, 1)
        assert np.abs(out - x).max() > 0.02
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize(
    "clip_values", [(0, 255), (-1.5, 2), (np.array([0, -1.0, 3]), np.array([1, 2.0, 5]))], ids=str
)
@pytest.mark.parametrize("channels_first", [False, True])
def test_sigma_is_in_units_of_the_range(denoiser, clip_values, channels_first):
    unit = np.random.default_rng(0).random((2, 12, 11, 3))
    low, high = (np.asarray(bound, float) for bound in clip_values)
    x = unit * (high - low) + low
    bounds = tuple(np.reshape(b, (-1, 1, 1)) if channels_first and b.ndim else b for b in (low, high))
    with (
        PixelDeflection(bounds, 5, 2, channels_first=channels_first, denoiser=denoiser).frozen() as scaled,
        PixelDeflection(UNIT, 5, 2, denoiser=denoiser).frozen() as plain,
    ):
        out = scaled.transform(np.moveaxis(x, -1, 1) if channels_first else x)
        expected = plain.transform(unit) * (high - low) + low
    np.testing.assert_allclose(np.moveaxis(out, 1, -1) if channels_first else out, expected, atol=1e-6)


def test_denoised_values_stay_in_the_range_and_others_are_left():
    x = np.random.default_rng(0).random((2, 12, 11, 3)).astype(np.float32) * 3 - 1
    saturated = PixelDeflection((0, 1), rng=0).transform(x)
    assert saturated.min() >= 0
    assert saturated.max() <= 1
    np.testing.assert_array_equal(saturated, PixelDeflection((0, 1), rng=0).transform(x.clip(0, 1)))
    moved = PixelDeflection((0, 1), denoiser=None, rng=0).transform(x)
    assert moved.min() < 0
    assert moved.max() > 1


def test_without_noise_or_deflections():
    x = np.random.default_rng(0).random((2, 12, 11, 3))
    with (
        PixelDeflection(UNIT, sigma=0).frozen() as noiseless,
        PixelDeflection(UNIT, denoiser=None).frozen() as bare,
    ):
        np.testing.assert_allclose(noiseless.transform(x), bare.transform(x), atol=1e-15)
    alone = PixelDeflection(UNIT, 0).transform(x)
    np.testing.assert_array_equal(alone, np.clip([denoise(image, "wavelet", 0.04) for image in x], 0, 1))
    np.testing.assert_array_equal(PixelDeflection(UNIT, 0, denoiser=None).transform(x), x)


@pytest.mark.parametrize("denoiser", [None, *DENOISERS])
@pytest.mark.parametrize(
    "shape",
    [(0, 6, 7, 3), (2, 6, 7, 0), (2, 0, 7, 3), (2, 0, 6, 7, 3), (2, 1, 1, 3), (2, 1, 5, 1), (2, 5, 1, 1)],
)
def test_small_shapes(shape, denoiser):
    x = np.random.default_rng(0).random(shape)
    out = PixelDeflection(UNIT, denoiser=denoiser, rng=0).transform(x)
    assert out.shape == shape
    assert np.isfinite(out).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float16, np.float64, ">f4"])
def test_any_dtype(dtype):
    x = np.random.default_rng(0).integers(0, 2, (2, 6, 7, 1)).astype(dtype)
    out = PixelDeflection(UNIT, rng=0).transform(x)
    kept = np.dtype(dtype).newbyteorder("=") if np.dtype(dtype).kind == "f" else np.float32
    assert out.dtype == kept
    expected = PixelDeflection(UNIT, rng=0).transform(x.astype(float))
    np.testing.assert_allclose(out, expected, atol=1e-3 if dtype == np.float16 else 1e-6)


# Gradients


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("frames", [(), (3,)])
def test_the_exact_gradient_is_the_transpose(channels_first, mapped, frames):
    # Given the draw, the deflection is linear.
    rng = np.random.default_rng(0)
    shape = (2, 2, *frames, 6, 9) if channels_first else (2, *frames, 6, 9, 2)
    x, grad = rng.random(shape), rng.standard_normal(shape)
    maps = rng.random((6, 9)) if mapped else None
    defence = PixelDeflection(
        UNIT,
        60,
        3,
        channels_first=channels_first,
        activation_map=maps,
        denoiser=None,
        gradient="exact",
    )
    with defence.frozen(2):
        out, pulled = defence.transform(x), defence.estimate_gradient(x, grad)
        step = 1e-6 * rng.standard_normal(shape)
        difference = defence.transform(x + step) - defence.transform(x - step)
    assert (pulled == 0).mean() > 0.2  # overwritten pixels have none
    np.testing.assert_allclose((grad * out).sum(), (pulled * x).sum(), rtol=1e-12)
    np.testing.assert_allclose((grad * difference).sum(), 2 * (pulled * step).sum(), rtol=1e-6)


@pytest.mark.parametrize("denoiser", [name for name in DENOISERS if name != "wavelet"])
def test_the_gradient_takes_denoisers_of_scikit_image_for_the_identity(denoiser):
    x = np.random.default_rng(0).random((2, 8, 9, 3))
    grad = np.random.default_rng(1).standard_normal(x.shape)
    with (
        PixelDeflection(UNIT, denoiser=denoiser, gradient="exact").frozen() as denoised,
        PixelDeflection(UNIT, denoiser=None, gradient="exact").frozen() as bare,
    ):
        pulled = denoised.estimate_gradient(x, grad)
        np.testing.assert_array_equal(pulled, bare.estimate_gradient(x, grad))
    np.testing.assert_allclose(pulled.sum(), grad.sum())
    np.testing.assert_array_equal(PixelDeflection(UNIT, denoiser=denoiser).estimate_gradient(x, grad), grad)


@pytest.mark.parametrize("clip_values", [(0, 1), (0, 255), (-1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sigma", [0.04, 1e19, 1e200])
@pytest.mark.filterwarnings("ignore:PixelDeflection. `clip_values` should be the range")  # of the speck
def test_the_exact_gradient_is_finite_where_a_colour_has_no_range(clip_values, dtype, sigma):
    low, high = clip_values
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 5, (1, 12, 13, 1)) / 4, 3, axis=-1)
    speck = np.zeros(grey.shape)
    speck[0, 3, 3] = 1e-38
    grad = rng.standard_normal(grey.shape).astype(dtype)
    defence = PixelDeflection(clip_values, 20, 3, sigma, gradient="exact")
    for unit in (0 * grey, 0 * grey + 1, 0 * grey + 0.3, grey, np.round(grey), speck):
        x = (unit * (high - low) + low).astype(dtype)
        pulled = defence.estimate_gradient(x, grad)
        assert np.isfinite(pulled).all()
        assert np.abs(pulled).max() > 0.1


@pytest.mark.parametrize("clip_values", [(0, 1), (-0.1, 1.0), (np.array([0, -0.1, 0.1]), 1.1)], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (2, 3, 2, 6, 7)])
@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_the_exact_gradient_goes_through_wavelets_clips_and_deflections(clip_values, shape, sigma):
    rng = np.random.default_rng(0)
    x = 1.4 * rng.random(shape) - 0.2
    low, high = (np.reshape(value, (-1,) + (1,) * (len(shape) - 2)) for value in clip_values)
    clip_values = (low, high) if low.size > 1 else clip_values
    grad, before = rng.standard_normal(shape), x.copy()
    defence = PixelDeflection(clip_values, 30, 3, sigma, channels_first=True, gradient="exact")
    with defence.frozen(2):
        pulled = defence.estimate_gradient(x, grad)
        np.testing.assert_array_equal(x, before)
        for _ in range(3):
            step = 1e-7 * rng.standard_normal(shape)
            difference = defence.transform(x + step) - defence.transform(x - step)
            np.testing.assert_allclose((pulled * step).sum(), (grad * difference).sum() / 2, rtol=1e-5)
        draw = defence._begin(x, defence._next_seed())
        np.testing.assert_array_equal(defence._gradient(x, grad, draw), pulled)  # `x` may be written to here
        np.testing.assert_array_equal(x, before)
    assert 0 < (pulled == 0).mean() < 0.8


def test_torch_goes_back_through_the_draw_of_its_forward_pass():
    torch = pytest.importorskip("torch")
    x = torch.rand((2, 1, 8, 9), generator=torch.Generator().manual_seed(0), requires_grad=True)
    defence = PixelDeflection(UNIT, 100, channels_first=True, denoiser=None, gradient="exact")
    for _ in range(3):
        out = defence.transform(x)
        weights = torch.arange(144.0).reshape(x.shape)
        (pulled,) = torch.autograd.grad((weights * out).sum(), x)
        torch.testing.assert_close((pulled * x).sum(), (weights * out).sum())


def test_it_drops_into_art():
    torch = pytest.importorskip("torch")
    estimators = pytest.importorskip("art.estimators.classification")
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 3, 8, 9), dtype=np.float32), np.eye(2, dtype=np.float32)[[0, 1, 1, 0]]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(216, 2, bias=False))
    weights = model[1].weight.detach().numpy()
    first = PixelDeflection(UNIT, 0.5, channels_first=True, denoiser=None, gradient="exact")
    second = PixelDeflection(UNIT, 30, channels_first=True, gradient="exact")
    classifier = estimators.PyTorchClassifier(
        model,
        torch.nn.CrossEntropyLoss(),
        input_shape=(3, 8, 9),
        nb_classes=2,
        preprocessing_defences=[first, second],
        device_type="cpu",
    )
    with first.frozen(1), second.frozen(2):
        middle = first.transform(x)
        logits = second.transform(middle).reshape(4, -1) @ weights.T
        np.testing.assert_allclose(classifier.predict(x), logits, atol=1e-5)
        odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        grad = ((odds - y) @ weights).reshape(x.shape)
        expected = first.estimate_gradient(x, second.estimate_gradient(middle, grad))
        found = classifier.loss_gradient(x, y)
    scale = np.abs(found).max() / np.abs(expected).max()  # the loss is a mean or a sum
    np.testing.assert_allclose(found, scale * expected, atol=1e-6)


# Rules


def test_verbose_shows_bars(capsys):
    x = np.zeros((2, 3, 6, 7, 3))
    PixelDeflection(UNIT).transform(x)
    assert capsys.readouterr().err == ""
    PixelDeflection(UNIT, verbose=True).transform(x)
    captured = capsys.readouterr()
    assert "Pixel deflection: 100%" in captured.err
    assert "Denoising: 100%" in captured.err
    assert "6/6" in captured.err
    assert captured.out == ""


SCALED = r"`activation_map` must lie in \[0, 1\], got values from"


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"clip_values": None}, ValueError, "`clip_values` must be a pair"),
        ({"clip_values": (1, 0)}, ValueError, "`clip_values` must have minimum < maximum"),
        ({"deflections": -1}, ValueError, "`deflections` must be at least 0, got -1"),
        ({"deflections": 0.0}, ValueError, "above 0 and at most 1, got 0.0"),
        ({"deflections": 200.5}, ValueError, "a number of pixels, as an integer, or a fraction.* got 200.5"),
        ({"deflections": np.nan}, ValueError, "above 0 and at most 1, got nan"),
        ({"deflections": True}, TypeError, "`deflections` must be an integer, got True"),
        ({"deflections": "all"}, TypeError, "`deflections` must be an integer, got 'all'"),
        ({"window": 0}, ValueError, "`window` must be at least 1, got 0"),
        ({"window": -3}, ValueError, "`window` must be at least 1, got -3"),
        ({"window": 2.5}, TypeError, "`window` must be an integer, got 2.5"),
        ({"sigma": -0.1}, ValueError, "`sigma` must be at least 0, got -0.1"),
        ({"sigma": np.inf}, ValueError, "`sigma` must be finite, got inf"),
        ({"channels_first": 1}, TypeError, "`channels_first` must be True or False, got 1"),
        ({"apply_fit": "no"}, TypeError, "`apply_fit` must be True or False, got 'no'"),
        ({"denoiser": "haar"}, ValueError, "'wavelet', 'tv', 'bilateral', 'nlm', 'wiener', got 'haar'"),
        ({"gradient": "soft"}, ValueError, "`gradient` must be one of 'identity', 'exact', got 'soft'"),
        ({"rng": 1.5}, TypeError, "`rng` must be None, an integer seed or a numpy.random.Generator"),
        ({"verbose": 2}, TypeError, "`verbose` must be True or False, got 2"),
        ({"activation_map": np.full((4, 5), 1.5)}, ValueError, f"{SCALED} 1.5 to 1.5; scale it"),
        ({"activation_map": np.full((4, 5), -0.1)}, ValueError, f"{SCALED} -0.1 to -0.1"),
        (
            {"activation_map": np.full((4, 5), np.nan)},
            ValueError,
            "`activation_map` must be finite, got 20 NaN",
        ),
        ({"activation_map": np.zeros(5)}, ValueError, r"shape \(H, W\), \(N, H, W\) .* got \(5,\)"),
        ({"activation_map": np.zeros((2, 2, 4, 5, 1))}, ValueError, r"drop the axis of channels"),
        ({"activation_map": "heat"}, TypeError, "array of numbers, or a function .* got str of dtype <U4"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        PixelDeflection(**{"clip_values": UNIT, **parameters})


@pytest.mark.parametrize("denoiser", [None, "wavelet"])
@pytest.mark.parametrize(
    ("entries", "shape", "channels_first", "expected"),
    [
        ((3,), (2, 3, 8, 9), True, r"of shape \(3, 8, 9\), got shapes \(\) and \(3,\); .* \(C, 1, 1\) where"),
        ((3,), (2, 3, 4, 8, 9), True, r"of shape \(3, 4, 8, 9\), got shapes"),
        ((4,), (2, 8, 9, 3), False, r"of shape \(8, 9, 3\), got .* and \(4,\); .* the shape \(C,\)"),
        ((2, 8, 9, 3), (2, 8, 9, 3), False, r"broadcast against one sample"),
        ((1, 1, 8, 9, 3), (2, 8, 9, 3), False, r"broadcast against one sample"),
    ],
)
def test_clip_values_that_do_not_fit_a_sample_are_refused(entries, shape, channels_first, expected, denoiser):
    limits = (0, np.ones(entries))
    defence = PixelDeflection(limits, channels_first=channels_first, denoiser=denoiser)
    with pytest.raises(ValueError, match=rf"`clip_values` must be numbers or arrays .*{expected}"):
        defence.transform(np.zeros(shape))


@pytest.mark.parametrize("shape", [(7, 8), (3, 8, 7), (2, 8, 9), (1, 8, 9), (3, 1, 8, 9), (3, 8, 9, 1)])
def test_maps_of_another_size_are_refused(shape):
    message = (
        r"`activation_map` must be of shape \(8, 9\) or \(3, 8, 9\) for `x` of shape \(3, 8, 9, 2\), got "
    )
    for given_map in (np.zeros(shape), lambda x: np.zeros(shape)):
        with pytest.raises(ValueError, match=message):
            PixelDeflection(UNIT, activation_map=given_map).transform(np.zeros((3, 8, 9, 2)))


def test_maps_of_videos_have_frames():
    with pytest.raises(ValueError, match=r"of shape \(8, 9\) or \(3, 4, 8, 9\) .* got \(3, 8, 9\)"):
        PixelDeflection(UNIT, activation_map=np.zeros((3, 8, 9))).transform(np.zeros((3, 4, 8, 9, 2)))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.full((3, 8, 9), 2.0), ValueError, SCALED),
        (np.full((3, 8, 9), np.nan), ValueError, "`activation_map` must be finite, got 216 NaN"),
        (None, TypeError, "`activation_map` must be .* got NoneType of dtype object; pass for example"),
    ],
)
def test_what_a_function_returns_is_checked(value, error, message):
    defence = PixelDeflection(UNIT, activation_map=lambda x: value, gradient="exact")
    x = np.zeros((3, 8, 9, 2))
    with pytest.raises(error, match=message):
        defence.transform(x)
    with pytest.raises(error, match=message):
        defence.estimate_gradient(x, x)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((4, 8)), ValueError, r"4-D image batch \(NHWC\) or a 5-D video batch \(NFHWC\)"),
        (np.zeros((8, 8, 3)), ValueError, r"pass x\[None\] for one image"),
        (np.zeros((2, 3, 8, 8)), ValueError, "pass channels_first=True"),
        (np.full((1, 6, 7, 1), np.nan), ValueError, "`x` must be finite, got 42 NaN"),
        (np.full((1, 6, 7, 1), "a"), TypeError, "`x` must hold real numbers"),
    ],
)
def test_bad_arrays(x, error, message):
    with pytest.raises(error, match=message):
        PixelDeflection(UNIT).transform(x)
