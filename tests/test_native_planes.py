"""Deflections all at once and minimisation in lock-step: by hand, beside the kernels, and as programs."""

import warnings
from functools import partial

import numpy as np
import pytest
from array_api_compat import numpy as xp
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from preshield import PixelDeflection, TotalVarMin, WaveletDenoising
from preshield._core.arithmetic.deflection import _origins
from preshield._core.arithmetic.descent import minimise as minimise_together
from preshield._core.arithmetic.namespace import scattered
from preshield._core.arithmetic.total_variation import objective
from preshield._core.kernels.threefry import quantiles
from preshield._core.kernels.total_variation import total_variation
from preshield._core.optimise import minimise
from preshield.frameworks.native import seed_of, source_of

torch = pytest.importorskip("torch")
X = np.random.default_rng(0).random((3, 8, 9, 3), dtype=np.float32)
DEFENCES = [
    TotalVarMin(max_iter=2, rng=3),
    PixelDeflection((0, 1), 30, 2, gradient="exact", rng=3),
]


def natively(defence, x):
    """On tensors of torch, with the draw that `frozen` holds."""
    from array_api_compat import torch as xp

    tensor, seed = torch.tensor(x), seed_of(defence, len(x), addressed=False)
    source = source_of(defence._seed_words, seed, None, tensor, xp, quantiles)
    return defence._natively(x.shape, x.dtype)(tensor, xp, None, source)[0].numpy()


# Deflections


@pytest.mark.parametrize(
    ("written", "read", "origins"),
    [
        ([1, 2, 3], [0, 1, 2], [0, 0, 0, 0]),  # each copies what the one before it wrote
        ([1, 2, 1], [0, 1, 3], [0, 3, 0, 3]),  # the second one copied before the third one wrote again
        ([0, 1, 0], [1, 0, 2], [2, 1, 2, 3]),  # two pixels that copy each other
        ([2, 2, 2], [2, 1, 2], [0, 1, 1, 3]),  # from themselves
        ([3], [0], [0, 1, 2, 0]),
    ],
)
def test_chains_of_deflections_by_hand(written, read, origins):
    found = _origins(np.array([written]), np.array([read]), xp, 4)
    np.testing.assert_array_equal(found, [origins])


@settings(max_examples=60, deadline=None)
@given(pixels=st.integers(1, 6), count=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_deflections_all_at_once_are_those_one_after_the_other(pixels, count, seed):
    written, read = np.random.default_rng(seed).integers(0, pixels, (2, 3, count), dtype=np.int32)
    values = np.tile(np.arange(pixels), (3, 1))
    for k in range(count):
        for plane in range(3):
            values[plane, written[plane, k]] = values[plane, read[plane, k]]
    np.testing.assert_array_equal(_origins(written, read, xp, pixels), values)


def test_values_are_scattered_without_a_function_for_it():
    x, indices, values = np.arange(8).reshape(2, 4), np.array([[3, 0], [1, 2]]), np.array([[9, 8], [7, 6]])
    expected = x.copy()
    np.put_along_axis(expected, indices, values, axis=-1)
    np.testing.assert_array_equal(scattered(x, indices, values, xp), expected)


@pytest.mark.parametrize(
    "chances",
    [np.zeros((8, 9)), np.ones((8, 9)), np.random.default_rng(1).random((8, 9)), np.full((8, 9), 2.0**-32)],
    ids=["never", "always", "at random", "least"],
)
def test_maps_of_many_pixels(chances):
    defence = PixelDeflection((0, 1), 1.0, 3, activation_map=chances, denoiser=None)
    with defence.frozen(5):
        np.testing.assert_array_equal(natively(defence, X), defence.transform(X))


def test_maps_that_depend_on_the_batch_are_left_to_numpy():
    jax = pytest.importorskip("jax")
    for given_map in (lambda x: x[..., 0], np.zeros((3, 8, 9))):
        assert PixelDeflection((0, 1), activation_map=given_map)._natively(X.shape, X.dtype) is None
    limits = np.zeros((8, 9, 3)), np.arange(1, 217).reshape(8, 9, 3)  # too many numbers
    for defence in (PixelDeflection((0, 1), denoiser="tv"), PixelDeflection(limits)):
        assert defence._natively(X.shape, X.dtype) is None
    with pytest.raises(ValueError, match=r"`activation_map` must be of shape \(8, 9\) for `x` of shape"):
        jax.jit(PixelDeflection((0, 1), activation_map=np.zeros((9, 8))).transform)(X)


# Total variation


@pytest.mark.parametrize("norm", [1, 2, 3])
def test_objective_and_gradient_are_those_of_the_kernel(norm):
    rng = np.random.default_rng(norm)
    x, chosen = rng.random((4, 5, 6)), rng.random((4, 5, 6)) < 0.5
    z = x + 0.1 * rng.normal(size=x.shape)
    z[0], z[1] = x[0], 0.5  # at the kink, and without differences
    z[2, 2] = z[2, 3]
    for planes in (slice(None), (slice(None), slice(1)), (slice(None), slice(None), slice(1))):
        args = [np.ascontiguousarray(a[planes]) for a in (z, x, chosen)]
        value, grad = np.empty(4), np.empty(args[0].shape)
        total_variation(value, grad, *args, norm, 0.7)
        z_of, x_of, chosen_of = args
        found = objective(z_of - x_of, x_of, chosen_of, xp, norm, 0.7)
        np.testing.assert_allclose(found[0].ravel(), value, rtol=1e-13)
        np.testing.assert_allclose(found[1], grad, rtol=1e-12, atol=1e-13)


def both_minima(method, norm, scale, most, dtype, largest=1):
    """Where machines and lock-step end on crops of photographs, and the objective of both by the kernel."""
    pictures = np.concatenate([data.chelsea()[80:96, 120:170], data.astronaut()[100:116, 200:250]], axis=-1)
    planes = np.moveaxis(pictures * (largest / 255), -1, 0).astype(dtype).astype(float)
    chosen = np.random.default_rng(1).random(planes.shape) < 0.3

    def evaluate(z, rows):
        value, grad = np.empty(len(z)), np.empty((len(z), *planes.shape[1:]))
        total_variation(value, grad, z.reshape(grad.shape), planes[rows], chosen[rows], norm, scale)
        return value, grad.reshape(len(z), -1)

    expected = minimise(evaluate, planes.reshape(len(planes), -1), method=method, max_iter=most)
    start = planes.astype(dtype)
    together = partial(objective, x=start, chosen=chosen, xp=xp, norm=norm, scale=scale)
    found = start + minimise_together(together, np.zeros_like(start), xp, method, most)
    assert found.dtype == dtype
    value, _ = evaluate(found.astype(float), np.arange(len(planes)))
    return found.reshape(expected.x.shape), value, expected


@pytest.mark.parametrize("method", ["L-BFGS-B", "CG"])
@pytest.mark.parametrize(
    ("norm", "scale", "most", "largest"),
    [
        (2, 0.5, 10, 1),
        (1, 0.5, 10, 1),
        (2, 0.002, 10, 1),
        (2, 0.5, 25, 1),
        (2, 0.5, 3, 255),
        (3, 0.5, 10, 255),
        (2, 0.002, 10, 255),  # with CG, 14 evaluations for each iteration
    ],
)
def test_lock_step_ends_where_machines_end(method, norm, scale, most, largest):
    found, value, expected = both_minima(method, norm, scale, most, np.float64, largest)
    np.testing.assert_allclose(found, expected.x, atol=1e-9 * largest)
    assert (value <= expected.value * (1 + 1e-9)).all()


@pytest.mark.parametrize("method", ["L-BFGS-B", "CG"])
@pytest.mark.parametrize(("norm", "scale"), [(2, 0.5), (1, 0.5), (2, 1e-5)])
def test_lock_step_in_single_precision(method, norm, scale):
    """Also at kinks, and where so little moves that a sum with the pixels would lose most of its digits."""
    found, value, expected = both_minima(method, norm, scale, 10, np.float32)
    np.testing.assert_allclose(found, expected.x, atol=2e-6)
    assert (value <= expected.value * (1 + 1e-6)).all()


def test_kinks_of_single_precision():
    """Rounding would choose a side of them, and the ends be 1e-3 apart."""
    x = np.stack([data.chelsea()[80:96, 120:170], data.astronaut()[100:116, 200:250]])
    x, defence = (x / 255).astype(np.float32), TotalVarMin(norm=1, solver="CG", max_iter=25, rng=3)
    with defence.frozen(1):
        np.testing.assert_allclose(natively(defence, x), defence.transform(x), atol=2e-7)


@pytest.mark.parametrize("prob", [0, 1, 0.7])
def test_the_same_pixels_are_chosen(prob):
    defence = TotalVarMin(prob, max_iter=3, clip_values=(0.2, 0.7))
    with defence.frozen(3):
        np.testing.assert_allclose(natively(defence, X), defence.transform(X), atol=2e-6)


def test_newton_steps_are_left_to_numpy():
    assert TotalVarMin(solver="Newton-CG")._natively(X.shape, X.dtype) is None


def test_nan_stays_nan():
    x = X.copy()
    x[0, 2, 3, 1] = np.nan
    for defence in (WaveletDenoising((0, 1)), TotalVarMin(max_iter=2)):
        with defence.frozen(1):
            out = natively(defence, x)
        assert np.isnan(out[0]).any()
        assert not np.isnan(out[1:]).any()


# Programs


@pytest.mark.parametrize(("defence", "backend"), [(DEFENCES[0], "eager"), (DEFENCES[1], "aot_eager")])
def test_one_program(defence, backend):
    """Of steps, which are traced once, and of deflections and wavelets with their derivatives."""
    step = torch.compile(lambda x: defence.transform(x, index=4) * 2, fullgraph=True, backend=backend)
    x, grad = torch.tensor(X, requires_grad=True), np.full(X.shape, 2, np.float32)
    with warnings.catch_warnings(action="error", category=UserWarning):
        out = step(x)
    np.testing.assert_allclose(out.detach(), 2 * defence.transform(X, index=4), atol=4e-6)
    out.sum().backward()
    np.testing.assert_allclose(x.grad, defence.estimate_gradient(X, grad, index=4), atol=1e-5)


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning")  # torch calls it
@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_samples_with_numbers_under_vmap(defence):
    def one(sample, index):
        return defence.transform(sample[None], index=index)[0]

    found = torch.func.vmap(one)(torch.tensor(X), torch.arange(4, 7))
    np.testing.assert_allclose(found, defence.transform(X, index=4), atol=2e-6)


@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_jax_calls_nothing_back(defence):
    jax = pytest.importorskip("jax")

    def one(sample, index):
        return defence.transform(sample[None], index=index).sum()

    step = jax.jit(jax.vmap(jax.value_and_grad(one)))
    assert "callback" not in step.lower(X, np.arange(3)).as_text()
