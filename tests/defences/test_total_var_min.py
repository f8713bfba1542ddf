"""Total variance minimisation: optima known by hand, its draws, its rules."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.ndimage import correlate1d
from scipy.optimize import minimize

from preshield import TotalVarMin
from preshield._core.draws import Draws
from preshield._core.optimise import METHODS
from preshield._core.passes import Pass
from tests.threefry import words

methods = pytest.mark.parametrize("solver", METHODS)


def objective(z, x, mask, norm, lamb):
    """The objective of one plane, as the paper writes it."""
    rows, columns = np.diff(z, axis=0), np.diff(z, axis=1)
    variation = sum(np.linalg.norm(r, norm) for r in rows) + sum(np.linalg.norm(c, norm) for c in columns.T)
    return np.sqrt((mask * (z - x) ** 2).sum()) + lamb * variation


@methods
def test_two_pixels_stay_or_meet(solver):
    # Moving both by t costs sqrt(2) t and saves 2 lamb t: worth it above lamb = 1 / sqrt(2), until they meet.
    x = np.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    stay = TotalVarMin(1.0, lamb=0.5, solver=solver, max_iter=50).transform(x)
    np.testing.assert_array_equal(stay, x)
    meet = TotalVarMin(1.0, lamb=2.0, solver=solver, max_iter=50).transform(x)
    np.testing.assert_allclose(meet.ravel(), 0.5, atol=1e-3)


@methods
def test_constants_and_a_weight_of_zero_change_nothing(solver):
    x = np.full((2, 5, 6, 3), 0.3, dtype=np.float32)
    np.testing.assert_array_equal(TotalVarMin(solver=solver).transform(x), x)
    x = np.random.default_rng(0).random((2, 5, 6, 3), dtype=np.float32)
    np.testing.assert_array_equal(TotalVarMin(lamb=0, solver=solver).transform(x), x)


@methods
def test_without_a_chosen_pixel_only_smoothness_counts(solver):
    x = np.random.default_rng(0).random((2, 6, 7, 1))
    out = TotalVarMin(0.0, norm=2, solver=solver, max_iter=100).transform(x)
    zero = np.zeros((6, 7))
    for before, after in zip(x[..., 0], out[..., 0].astype(float), strict=True):
        assert objective(after, zero, zero, 2, 0.5) < 0.1 * objective(before, zero, zero, 2, 0.5)


@methods
@pytest.mark.parametrize("norm", [1, 2, 3])
def test_the_objective_falls_with_the_number_of_steps(solver, norm):
    rng = np.random.default_rng(norm)
    x, masks = rng.random((6, 9, 8)), rng.random((6, 9, 8)) < 0.3

    def values(max_iter):
        smooth = TotalVarMin(norm=norm, solver=solver, max_iter=max_iter)._smooth(x, masks)
        return np.array([objective(*plane, norm, 0.5) for plane in zip(smooth, x, masks, strict=True)])

    start = [objective(*plane, norm, 0.5) for plane in zip(x, x, masks, strict=True)]
    assert (values(1) < start).all()
    assert (values(5) <= values(1)).all()
    assert (values(20) <= values(5)).all()


def test_many_steps_approach_the_optimum_that_scipy_finds():
    rng = np.random.default_rng(0)
    x, mask = rng.random((4, 4)), rng.random((4, 4)) < 0.5
    ours = TotalVarMin(max_iter=500)._smooth(x[None], mask[None])[0]
    best = min(
        minimize(
            lambda z: objective(z.reshape(4, 4), x, mask, 2, 0.5),
            start.ravel(),
            method="Powell",
            options={"maxfev": 20_000, "xtol": 1e-8, "ftol": 1e-10},
        ).fun
        for start in (x, np.full((4, 4), x.mean()))
    )
    assert objective(ours, x, mask, 2, 0.5) <= 1.02 * best


def test_chosen_pixels_are_those_of_the_probability():
    key, index = np.arange(2, dtype=np.uint32), np.arange(20, dtype=np.uint32)
    draws, others = Draws(key, index), Draws(key + np.uint32(1), index)
    masks = TotalVarMin(0.3)._masks((40, 50, 60), 0, 2, draws)  # two planes of each sample
    n = masks.size
    expected = np.concatenate([words(key, sample, 6000) < 0.3 * 2**32 for sample in (0, 1)])
    np.testing.assert_array_equal(masks[:4].ravel(), expected)
    assert abs(masks.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)
    assert len({mask.tobytes() for mask in masks}) == 40
    np.testing.assert_array_equal(TotalVarMin(0.3)._masks((7, 50, 60), 33, 2, draws), masks[33:])
    assert (TotalVarMin(0.3)._masks((40, 50, 60), 0, 2, others) != masks).any(axis=(1, 2)).all()
    assert TotalVarMin(1.0)._masks((40, 50, 60), 0, 2, draws).all()
    assert not TotalVarMin(0.0)._masks((40, 50, 60), 0, 2, draws).any()


def test_seeds():
    x = np.random.default_rng(0).random((2, 6, 7, 3))
    first, second = (TotalVarMin(rng=5).transform(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (TotalVarMin(rng=6).transform(x) != first).any()
    defence = TotalVarMin(rng=5)
    assert (defence.transform(x) != defence.transform(x)).any()
    with defence.frozen(3):
        np.testing.assert_array_equal(defence.transform(x), defence.transform(x))
    outs = []
    for _ in range(2):
        np.random.seed(1)
        outs.append(TotalVarMin().transform(x))
    np.testing.assert_array_equal(*outs)


@methods
def test_threads_and_blocks_change_nothing(monkeypatch, solver):
    x = np.random.default_rng(0).random((7, 6, 7, 3))
    outs = []
    for threads, block in (("1", 1 << 15), ("3", 100)):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        monkeypatch.setattr("preshield.defences.total_var_min.VALUES_AT_ONCE", block)
        outs.append(TotalVarMin(solver=solver, rng=0).transform(x))
    np.testing.assert_array_equal(*outs)


def test_layouts_describe_the_same_planes():
    x = np.random.default_rng(0).random((2, 6, 7, 3))
    expected = TotalVarMin(rng=0).transform(x)
    first = TotalVarMin(channels_first=True, rng=0).transform(np.moveaxis(x, -1, 1))
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), expected)
    video = TotalVarMin(rng=0).transform(x[:, None])
    np.testing.assert_array_equal(video[:, 0], expected)
    np.testing.assert_array_equal(TotalVarMin(rng=0).transform(np.asfortranarray(x)), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float16, np.float64, ">f4"])
def test_any_dtype(dtype):
    x = np.random.default_rng(0).integers(0, 2, (2, 6, 7, 1)).astype(dtype)
    out = TotalVarMin(rng=0).transform(x)
    assert out.dtype == (np.float16 if dtype is np.float16 else np.float32)
    np.testing.assert_array_equal(out, TotalVarMin(rng=0).transform(x.astype(np.float32)).astype(out.dtype))


def test_results_are_clipped():
    x = np.random.default_rng(0).random((2, 6, 7, 2))
    free = TotalVarMin(rng=0).transform(x)
    clipped = TotalVarMin(rng=0, clip_values=(0.4, 0.5)).transform(x)
    np.testing.assert_array_equal(clipped, free.clip(0.4, 0.5))
    low, high = np.array([0.2, 0.4]), np.array([0.5, 0.6])
    clipped = TotalVarMin(rng=0, clip_values=(low, high)).transform(x)
    assert clipped.dtype == np.float32
    np.testing.assert_array_equal(clipped, free.clip(low, high).astype(np.float32))


@pytest.mark.parametrize(
    "shape", [(0, 6, 7, 3), (2, 6, 7, 0), (2, 0, 6, 7, 3), (2, 1, 1, 3), (2, 1, 5, 1), (2, 5, 1, 1)]
)
def test_small_shapes(shape):
    x = np.random.default_rng(0).random(shape)
    assert TotalVarMin(rng=0).transform(x).shape == shape


def test_numbers_of_any_type():
    x = np.random.default_rng(0).random((1, 6, 5, 1))
    expected = TotalVarMin(0.25, 2, 0.5, rng=0).transform(x)
    for kind in (np.float16, np.longdouble, Fraction):
        defence = TotalVarMin(kind(0.25), np.int8(2), kind(0.5), max_iter=np.uint8(10), rng=0)
        np.testing.assert_array_equal(defence.transform(x), expected)


def test_limits_that_do_not_fit_a_sample():
    with pytest.raises(
        ValueError, match=r"`clip_values` must .* of shape \(3, 3, 1\), got shapes \(\) and \(2,\)"
    ):
        TotalVarMin(clip_values=(0, [1, 2])).transform(np.zeros((2, 3, 3, 1)))


def test_gradient_passes():
    grad = np.random.default_rng(0).normal(size=(1, 6, 7, 3))
    np.testing.assert_array_equal(TotalVarMin().estimate_gradient(np.zeros(grad.shape), grad), grad)


def blurred(x, width):
    """Planes `(..., H, W)` behind a Gaussian up to three widths wide, mirrored at the borders."""
    reach = int(np.ceil(3 * width))
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * width**2))
    for axis in (-2, -1):
        x = correlate1d(x, taps / taps.sum(), axis=axis, mode="mirror")
    return x


@pytest.mark.parametrize("lamb", [0.0, 0.02, 0.5])
def test_blur_gradient_is_that_of_the_nearest_gaussian(lamb):
    rng = np.random.default_rng(0)
    x = rng.random((4, 2, 12, 13)).cumsum(axis=-1) / 6  # ramps in noise
    x[1:3] = blurred(x[1:3], 1.5)
    grad, step = rng.normal(size=(2, *x.shape))
    defence = TotalVarMin(lamb=lamb, channels_first=True, gradient="blur")
    with defence.frozen(3):
        result = defence.transform(x)
        pulled = defence.estimate_gradient(x, grad)
    widths = [0.5, 0.5**0.5, 1, 2**0.5, 2, 2**1.5, 4]
    expected, chosen = [], set()
    for of_x, of_step, of_grad, of_result in zip(x, step, grad, result, strict=True):
        stand_ins = [lambda v: v, *(lambda v, w=w: blurred(v, w) for w in widths)]
        distances = [((stand_in(of_x) - of_result) ** 2).sum() for stand_in in stand_ins]
        best = int(np.argmin(distances))
        chosen.add(best)
        expected.append((stand_ins[best](of_step) * of_grad).sum())
    np.testing.assert_allclose((pulled * step).sum(axis=(1, 2, 3)), expected, rtol=1e-6)
    assert (chosen == {0}) == (lamb == 0)


def test_blur_gradient_of_videos_is_that_of_their_frames_together():
    rng = np.random.default_rng(0)
    x, grad = rng.random((2, 2, 3, 9, 8, 1))
    defence = TotalVarMin(gradient="blur", rng=0)
    with defence.frozen(0):
        pulled = defence.estimate_gradient(x, grad)
        result = defence.transform(x)
    for i in range(2):
        widths = 2.0 ** (np.arange(-2, 5) / 2)
        planes = np.moveaxis(x[i], -1, 1)
        off = [((blurred(planes, w) - np.moveaxis(result[i], -1, 1)) ** 2).sum() for w in widths]
        width = widths[int(np.argmin(off))]
        step = rng.normal(size=x[i].shape)
        moved = np.moveaxis(blurred(np.moveaxis(step, -1, 1), width), 1, -1)
        np.testing.assert_allclose((pulled[i] * step).sum(), (grad[i] * moved).sum(), rtol=1e-6)


def test_blur_gradient_needs_no_second_minimisation(monkeypatch):
    """It has the result of the forward pass, whatever the caller wrote to it; without one it minimises."""
    x, key = np.random.default_rng(0).random((2, 16, 15, 1)), np.arange(2, dtype=np.uint32)
    grad, defence = np.random.default_rng(1).normal(size=x.shape), TotalVarMin(gradient="blur")
    expected = Pass.begin(defence, x, key).pull_back(grad)
    forward = Pass.begin(defence, x, key)
    forward.output()[:] = x
    monkeypatch.setattr(TotalVarMin, "_smooth", None)
    np.testing.assert_array_equal(forward.pull_back(grad), expected)


def test_settings_for_which_planes_are_minimised_as_they_are():
    """Too many steps, or too few pixels, for a span of gradients."""
    x = np.random.default_rng(0).random((2, 13, 13, 1))
    few, many = (TotalVarMin(max_iter=k, rng=0).transform(x) for k in (10, 11))
    np.testing.assert_allclose(few, many, atol=0.05)
    assert (few != many).any()


def test_planes_whose_squares_single_precision_does_not_hold():
    """Their neighbours in the batch are what they are without them."""
    x, defence = np.random.default_rng(0).random((2, 13, 14, 1)), TotalVarMin(rng=0)
    with defence.frozen(1):
        expected = defence.transform(x)
        huge = defence.transform(x * np.array([1, 1e25]).reshape(2, 1, 1, 1))
    np.testing.assert_array_equal(huge[0], expected[0])
    np.testing.assert_allclose(huge[1] / 1e25, x[1], atol=1e-6)  # steps are short beside it


def test_verbose_shows_a_bar(capsys):
    x = np.zeros((2, 6, 7, 3))
    TotalVarMin().transform(x)
    assert capsys.readouterr().err == ""
    TotalVarMin(verbose=True).transform(x)
    captured = capsys.readouterr()
    assert "Total variance minimisation: 100%" in captured.err
    assert "6/6" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"prob": -0.1}, ValueError, "`prob` must be between 0 and 1, got -0.1"),
        ({"prob": 1.1}, ValueError, "`prob` must be between 0 and 1, got 1.1"),
        ({"prob": "0.3"}, TypeError, "`prob` must be a number, got '0.3'"),
        ({"norm": 0}, ValueError, "`norm` must be at least 1, got 0"),
        ({"norm": 2.5}, TypeError, "`norm` must be an integer, got 2.5"),
        ({"lamb": -1}, ValueError, "`lamb` must be at least 0, got -1"),
        ({"lamb": np.nan}, ValueError, "`lamb` must be finite, got nan"),
        ({"gradient": "exact"}, ValueError, "`gradient` must be one of 'identity', 'blur', got 'exact'"),
        ({"solver": "BFGS"}, ValueError, "`solver` must be one of 'L-BFGS-B', 'CG', 'Newton-CG', got 'BFGS'"),
        ({"max_iter": 0}, ValueError, "`max_iter` must be at least 1, got 0"),
        ({"max_iter": 1.5}, TypeError, "`max_iter` must be an integer, got 1.5"),
        ({"clip_values": (1, 0)}, ValueError, "`clip_values` must have minimum < maximum"),
        ({"verbose": 2}, TypeError, "`verbose` must be True or False, got 2"),
        ({"channels_first": None}, TypeError, "`channels_first` must be True or False, got None"),
        ({"apply_fit": "no"}, TypeError, "`apply_fit` must be True or False, got 'no'"),
        ({"rng": 1.5}, TypeError, "`rng` must be None, an integer seed or a numpy.random.Generator"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        TotalVarMin(**parameters)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            np.zeros((4, 8)),
            ValueError,
            r"4-D image batch \(NHWC\) or a 5-D video batch \(NFHWC\), got shape \(4, 8\)",
        ),
        (np.zeros((8, 8, 3)), ValueError, r"pass x\[None\] for one image"),
        (np.zeros((2, 3, 8, 8)), ValueError, "pass channels_first=True"),
        (np.full((1, 6, 7, 1), np.nan), ValueError, "`x` must be finite, got 42 NaN"),
        (np.full((1, 6, 7, 1), "a"), TypeError, "`x` must hold real numbers"),
        (np.array([[0, 1], [0]], dtype=object), TypeError, "`x` must be an array of numbers"),
    ],
)
def test_bad_arrays(x, error, message):
    with pytest.raises(error, match=message):
        TotalVarMin().transform(x)
