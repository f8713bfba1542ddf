"""Defences on the arrays of a framework: what NumPy computes, on any device, in any graph, differentiable.

The kernels are the oracle. A tensor on the device "meta" has no values, so that whatever fetches one fails.
"""

import warnings
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from array_api_compat import numpy
from resampy.filters import get_filter

from preshield import (
    BandPass,
    Chain,
    FeatureSqueezing,
    GaussianBlur,
    JpegCompression,
    PixelDeflection,
    Resample,
    SpatialSmoothing,
    ThermometerEncoding,
    WaveletDenoising,
)
from preshield._core.arithmetic.borders import padded
from preshield._core.arithmetic.namespace import stop_gradient
from preshield._core.resampling import filter_series
from preshield.testing import CHECKS, Subject
from tests.cases import ALL, audio, images

COMPILED = [
    "FeatureSqueezing-soft",
    "GaussianBlur-images",
    "SpatialSmoothing-exact",
    "ThermometerEncoding-videos",
]
COMPILED_ONCE = [
    "JpegCompression-grey",
    "Resample-up",
]  # and not for another number of samples: they are long


def natively(defence, x):
    """The data of what `defence` computes on arrays, or None."""
    function = defence._natively(x.shape, x.dtype)
    return None if function is None else lambda x, xp: function(x, xp)[0]


NATIVE = [case for case in ALL if natively(case.make(), case.sample) is not None]
CASES = [  # test_native_draws.py has the others
    case for case in NATIVE if not (case.make().stochastic or case.make()._changes_labels)
]
OF_JAX = list(  # which takes seconds to compile: one for each defence and gradient; torch has every layout
    {(case.defence, case.make().get_params().get("gradient")): case for case in reversed(CASES)}.values()
)
FLOATS = [np.float32, np.float64]
# Sums in another order, fused multiplications and additions, and products in the place of quotients round
# differently. A value in the middle between two levels may then go to either, which the samples avoid.
ROUNDED = {"float32": {"rtol": 1e-6, "atol": 1e-6}, "float64": {"rtol": 1e-12, "atol": 1e-12}}
# A smooth step is 1/255 of the range wide, so that its slope depends 255 times as much on the position.
SOFT = {"float32": {"rtol": 1e-4, "atol": 1e-5}, "float64": {"rtol": 1e-11, "atol": 1e-11}}


def assert_close(found, expected, tolerance=ROUNDED):
    np.testing.assert_allclose(found, expected, **tolerance[np.asarray(expected).dtype.name])


def slopes_of(defence):
    soft = any(getattr(d, "gradient", "") == "soft" for d in (defence, *defence._stages))
    return SOFT if soft else ROUNDED


@pytest.fixture(params=FLOATS)
def dtype(request):
    return request.param


def as_floats(case, dtype):
    x = case.sample.astype(dtype)
    return x, np.random.default_rng(0).normal(size=case.make().transform(x).shape).astype(dtype)


def test_which_defences_are_native():
    names = {case.defence.__name__ for case in NATIVE}
    assert names == {
        "BandPass",
        "BarrageOfTransforms",
        "BlurNet",
        "Chain",
        "CropRescale",
        "CutMix",
        "Cutout",
        "FeatureSqueezing",
        "GaussianAugmentation",
        "GaussianBlur",
        "JpegCompression",
        "LabelSmoothing",
        "MedianSmoothing",
        "Mixup",
        "PixelDeflection",
        "RandomApply",
        "RandomResizePad",
        "Resample",
        "Shield",
        "SpatialSmoothing",
        "StandardisationMeanStd",
        "ThermometerEncoding",
        "TotalVarMin",
        "WaveletDenoising",
    }


# The kernels are the oracle


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_computes_what_numpy_computes(case, dtype):
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    (x, grad), defence = as_floats(case, dtype), case.make()
    tensor = torch.tensor(x, requires_grad=True)
    out = natively(defence, x)(tensor, xp)
    expected = defence.transform(x)
    assert out.detach().numpy().dtype == expected.dtype
    assert_close(out.detach(), expected)
    out.backward(torch.tensor(grad, dtype=out.dtype))
    expected = defence.estimate_gradient(x, grad.astype(expected.dtype))
    assert_close(tensor.grad.numpy().astype(expected.dtype), expected, slopes_of(defence))


@pytest.mark.parametrize("case", OF_JAX, ids=str)
def test_jax_computes_what_numpy_computes(case):
    jax = pytest.importorskip("jax")
    (x, grad), defence = as_floats(case, np.float32), case.make()
    out, pull_back = jax.vjp(jax.jit(defence.transform), jax.numpy.asarray(x))
    expected = defence.transform(x)
    assert out.dtype == expected.dtype
    assert_close(out, expected)
    (pulled,) = pull_back(jax.numpy.asarray(grad, out.dtype))
    assert_close(pulled, defence.estimate_gradient(x, grad), slopes_of(defence))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_standard_is_enough(case, dtype):
    """A namespace that has nothing but the array API standard stands for all others, such as CuPy's."""
    xp = pytest.importorskip("array_api_strict")
    x, _ = as_floats(case, dtype)
    out = natively(case.make(), x)(xp.asarray(x), xp)
    assert_close(np.asarray(out), case.make().transform(x))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "uint8", "int64"])
def test_torch_types_on_a_device(kind):
    """A defence returns the types that it returns from NumPy; bfloat16 stays."""
    torch = pytest.importorskip("torch")
    for case in CASES:
        x = torch.empty(case.sample.shape, dtype=getattr(torch, kind), device="meta")
        out = case.make().transform(x)
        known = kind if kind != "bfloat16" else "float16"
        expected = case.make().transform(np.zeros(case.sample.shape, known)).dtype.name
        assert str(out.dtype) == f"torch.{kind if kind == 'bfloat16' else expected}"


# One kind of arithmetic each, beside other oracles


def test_borders_are_those_of_numpys_pad():
    for length in (1, 2, 3, 5):
        x = np.arange(2 * length).reshape(2, length)
        for before, after in ((0, 0), (1, 0), (0, 2), (3, 4), (9, 7)):
            for repeat_edge, mode in ((False, "reflect"), (True, "symmetric")):
                found = padded(x, before, after, 1, xp=numpy, repeat_edge=repeat_edge)
                np.testing.assert_array_equal(found, np.pad(x, ((0, 0), (before, after)), mode=mode))


@pytest.mark.parametrize("bits", [1, 3, 8, 11])
def test_squeezing_crosses_no_tie(bits):
    """Single precision has the levels of exact fractions, next to every middle between two levels."""
    jax = pytest.importorskip("jax")
    levels = 2**bits - 1
    middles = ((np.arange(levels) + 0.5) / levels).astype(np.float32)
    x = np.stack([middles, np.nextafter(middles, 0), np.nextafter(middles, 1)])
    expected = [[round(Fraction(float(value)) * levels) for value in row] for row in x]
    defence = FeatureSqueezing((0, 1), bits)
    for out in (natively(defence, x)(x, numpy), jax.jit(defence.transform)(x)):
        np.testing.assert_array_equal(np.rint(np.asarray(out) * np.float64(levels)), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_wavelets_of_several_levels(channels, dtype):
    """Odd sides at each level, thresholds of noise, of pictures and of surfaces without any detail."""
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    rng, slopes = np.random.default_rng(0), np.random.default_rng(1).normal(size=(4, 67, 37, channels))
    flat = np.zeros((67, 37, channels))
    flat[9:40, 5:30] = rng.random(channels)
    noise = rng.normal(scale=0.05, size=flat.shape)
    x = np.stack([flat, flat + noise, 0 * flat + 0.4, 0.5 + noise]).astype(dtype)
    defence, grad = WaveletDenoising((0, 1)), slopes.astype(dtype)
    tensor = torch.tensor(x, requires_grad=True)
    out = natively(defence, x)(tensor, xp)
    assert_close(out.detach(), defence.transform(x))
    out.backward(torch.tensor(grad))
    assert_close(tensor.grad, defence.estimate_gradient(x, grad))


def test_wavelets_of_faint_details():
    """As small as what rounding leaves of the variance beside an edge, and at the ends of the range."""
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    rng = np.random.default_rng(0)
    x = np.zeros((1, 32, 32, 3), np.float32)
    x[:, :, 16:] = 1
    x += (1 - 2 * x) * 3e-4 * np.abs(rng.normal(size=x.shape)).astype(np.float32)
    defence, grad = WaveletDenoising((0, 1), 1e-4), rng.normal(size=x.shape).astype(np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    out = natively(defence, x)(tensor, xp)
    np.testing.assert_allclose(out.detach(), defence.transform(x), atol=2e-7)
    out.backward(torch.tensor(grad))
    np.testing.assert_allclose(tensor.grad, defence.estimate_gradient(x, grad), atol=1e-5)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64])
def test_medians_of_integers(kind):
    x = np.random.default_rng(0).integers(0, 120, (1, 4, 3, 2)).astype(kind)
    for window in (3, 8):  # further than the image is wide
        median = SpatialSmoothing(window, clip_values=(20.5, 90))
        out = natively(median, x)(x, numpy)
        assert out.dtype == kind
        np.testing.assert_array_equal(out, median.transform(x))
    high = x + (np.iinfo(kind).max - kind(120))  # of which floating numbers hold a part only
    np.testing.assert_array_equal(
        natively(SpatialSmoothing(3), high)(high, numpy), SpatialSmoothing(3).transform(high)
    )
    assert natively(SpatialSmoothing(3), x.astype(np.uint64)) is None


def pictures(number, rng):
    """A defence and a batch of odd sizes that suits it: noise, extremes, ramps, above the range as well."""
    layout = ("NHWC", "NCHW", "NFHWC", "NCFHW", "NFCHW")[number % 5]
    largest, dtype = ((1, np.float32), (255, np.float64), (255, np.uint8))[number % 3]
    lengths = {"N": 2, "F": 2, "C": (3, 1, 3, 2)[number % 4]} | dict(
        zip("HW", rng.integers(1, 36, 2), strict=True)
    )
    x = rng.random([lengths[axis] for axis in layout])
    x = (x, np.round(x), np.cumsum(x - 0.4, axis=-1).clip(0, 1.1))[number // 4 % 3] * largest
    subsampling = ("4:2:0", "4:2:2", "4:4:4")[number // 2 % 3]
    defence = JpegCompression((0, largest), number, layout=layout, subsampling=subsampling)
    return defence, x.clip(0, 255).astype(dtype)


def test_jpeg_in_every_bit():
    """At every quality; the kernel is compared with Pillow."""
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    rng = np.random.default_rng(0)
    for quality in range(1, 101):
        defence, x = pictures(quality, rng)
        out = natively(defence, x)(torch.tensor(x), xp)
        np.testing.assert_array_equal(out, defence.transform(x), err_msg=repr(defence))


def test_jpeg_in_every_bit_of_jax():
    """XLA fuses products and sums: all 256 levels, which planes of one grey keep, and colours."""
    jax = pytest.importorskip("jax")
    rng, defence = np.random.default_rng(1), JpegCompression((0, 1), 97)
    x = rng.random((1, 256 * 8, 19, 3), dtype=np.float32)
    x[:, :, :10] = (np.arange(256 * 8) // 8 / np.float32(255))[:, None, None]
    expected = defence.transform(x)
    assert len(np.unique(expected)) == 256
    np.testing.assert_array_equal(jax.jit(defence.transform)(x), expected)


@pytest.mark.parametrize("gradient", ["straight-through", "soft"])
def test_gradients_of_jpeg_stop_where_it_clamps(gradient):
    """Of saturated colours, which are clamped by rounding alone, and of values above the range."""
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    rng = np.random.default_rng(2)
    for number in range(1, 37):
        defence, x = pictures(number, rng)
        defence.set_params(gradient=gradient)
        x, grad = x.astype(np.float32), rng.normal(size=x.shape).astype(np.float32)
        tensor = torch.tensor(x, requires_grad=True)
        (natively(defence, x)(tensor, xp) * torch.tensor(grad)).sum().backward()
        assert_close(tensor.grad, defence.estimate_gradient(x, grad), SOFT)


@pytest.mark.parametrize("gradient", ["identity", "soft"])
def test_second_derivatives_of_jpeg(gradient):
    """Of sum(w * jpeg(x)**2), beside differences of gradients that NumPy computes."""
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    rng = np.random.default_rng(3)
    x, along, weights = rng.uniform(0.3, 0.6, (1, 9, 7, 3)), *rng.normal(size=(2, 1, 9, 7, 3))
    defence = JpegCompression((0, 1), 90, gradient=gradient)

    # In its place, near x: the values and the slopes of a smooth function.
    def slope(x):
        return defence.estimate_gradient(x, weights)

    expected = (slope(x + 1e-7 * along) - slope(x - 1e-7 * along)) / 2e-7
    function = partial(natively(defence, x), xp=xp)
    _, found = torch.autograd.functional.hvp(
        lambda x: (function(x) * torch.tensor(weights)).sum(), torch.tensor(x), torch.tensor(along)
    )
    assert np.abs(expected).max() > 1 if gradient == "soft" else not expected.any()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sinc_window", "kaiser_best", "kaiser_fast"])
def test_filters_in_few_numbers(name):
    window, entries, _ = get_filter(name)
    rolloff, taper = filter_series(name)
    at = np.arange(len(window))
    series = np.polyval(taper, 2 * (at / at[-1]) ** 2 - 1)
    np.testing.assert_allclose(rolloff * np.sinc(rolloff * at / entries) * series, window, atol=1e-13)


@pytest.mark.parametrize(
    ("rates", "length"),
    [
        ((9, 5), 3000),  # of outputs on an input, rounding puts some before it, in several runs
        ((13, 3), 3000),
        ((3, 7), 1),
        ((48000, 1000), 500),
        ((1, 512), 40),
        ((8000, 8000), 10),
    ],
    ids=str,
)
def test_resampling_at_any_rates(rates, length):
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    defence, rng = Resample(*rates), np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2, length))
    tensor, expected = torch.tensor(x, requires_grad=True), defence.transform(x)
    out = natively(defence, x)(tensor, xp)
    assert_close(out.detach(), expected)
    grad = rng.normal(size=expected.shape)
    out.backward(torch.tensor(grad))
    np.testing.assert_allclose(tensor.grad, defence.estimate_gradient(x, grad), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("rates", "restore"), [((44100, 22050), False), ((22050, 44100), True), ((48000, 44100), True)]
)
def test_resampling_rounds_as_little_as_the_kernel(rates, restore):
    """Of hundreds of terms in single precision; summed one after the other, they are up to 1.8e-6 away."""
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    defence = Resample(*rates, restore=restore, filter="sinc_window")
    x = np.random.default_rng(0).uniform(-1, 1, (8, 20000)).astype(np.float32)
    out = natively(defence, x)(torch.tensor(x), xp)
    for exact in (defence.transform(x), defence.transform(x.astype(np.float64))):
        np.testing.assert_allclose(out, exact, rtol=0, atol=1e-6)


def test_long_periods_are_left_to_the_kernel():
    """Their matrix would have gigabytes."""
    x = np.zeros((1, 700), np.float32)
    assert natively(Resample(44100, 44101), x) is None
    assert natively(Resample(44100, 22050, restore=True), x) is not None


def test_what_nan_becomes():
    x = np.array([[np.nan, 0.6]], np.float32)
    for defence in (FeatureSqueezing((0, 1), 1), ThermometerEncoding((0, 1), 2)):
        out = natively(defence, x)(x, numpy)
        np.testing.assert_array_equal(np.isnan(out), np.repeat([[True, False]], out.size // 2, axis=1))
    image = np.full((1, 8, 8, 1), 0.6, np.float32)
    image[0, 2, 3] = np.nan
    out = natively(JpegCompression((0, 1)), image)(image, numpy)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(image))
    below = natively(JpegCompression((0, 1)), image)(np.nan_to_num(image) - 0.3, numpy)
    np.testing.assert_array_equal(
        below, JpegCompression((0, 1)).transform((np.nan_to_num(image) - 0.3).clip(0))
    )


def test_arrays_among_the_parameters():
    """Few numbers are written down, and many equal ones, too; many different ones are left to NumPy."""
    x, low = np.full((1, 65), 0.3, np.float32), np.arange(65)
    assert natively(FeatureSqueezing((low, low + 1)), x) is None
    assert natively(FeatureSqueezing((low[:64], low[:64] + 1)), x[:, :64]) is not None
    same = FeatureSqueezing((np.zeros(65), np.full(65, 2)), 2)
    assert_close(natively(same, x)(x, numpy), same.transform(x))
    with pytest.raises(ValueError, match="must be numbers or arrays that broadcast"):
        natively(FeatureSqueezing((low, low + 1)), x[:, :3])


# Nothing is fetched, and nothing is sent


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_stays_on_the_device(case):
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            out = op(*args, **(kwargs or {}))
            places = {t.device.type for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)}
            assert places == {"meta"}, op
            return out

    x = torch.empty(case.sample.shape, device="meta", requires_grad=True)
    with Log(), warnings.catch_warnings(action="error"):
        out = case.make().transform(x)
        out.sum().backward()
    assert out.shape == case.make().transform(case.sample).shape
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("case", OF_JAX, ids=str)
def test_jax_calls_nothing_back(case):
    jax = pytest.importorskip("jax")
    defence, x = case.make(), jax.numpy.asarray(case.sample, dtype="float32")

    def one(sample):
        return defence.transform(sample[None]).sum()

    program = jax.jit(jax.vmap(jax.value_and_grad(one))).lower(x).as_text()
    assert "callback" not in program


@pytest.mark.parametrize("case", [case for case in CASES if str(case) in COMPILED + COMPILED_ONCE], ids=str)
def test_torch_compiles_one_graph(case):
    torch = pytest.importorskip("torch")
    defence = case.make()
    step = torch.compile(lambda x: 2 * defence.transform(x), fullgraph=True, backend="aot_eager")
    for count in (3,) if str(case) in COMPILED_ONCE else (3, 2):
        x = case.sample[:count].astype(np.float32)
        tensor = torch.tensor(x, requires_grad=True)
        out = step(tensor)
        assert_close(out.detach(), 2 * defence.transform(x))
        out.sum().backward()
        expected = defence.estimate_gradient(x, np.full(out.shape, 2, x.dtype))
        assert_close(tensor.grad, expected, slopes_of(defence))


def test_torch_compiles_again_for_other_parameters():
    torch = pytest.importorskip("torch")
    chain = Chain([GaussianBlur(3)])
    step = torch.compile(chain.transform, fullgraph=True, backend="eager")
    x = images()
    for sigma in (1.0, 2.0, 0.5):
        chain.defences[0].sigma = sigma
        assert_close(step(torch.tensor(x)), chain.transform(x))
    chain.defences[0].set_params(kernel_size=5)
    assert_close(step(torch.tensor(x)), chain.transform(x))


def test_torch_compiles_functions_that_make_a_defence():
    """Its parameters exist in the program alone: the graph breaks, as for a defence of NumPy."""
    torch = pytest.importorskip("torch")
    step = torch.compile(lambda x: 2 * GaussianBlur(3).transform(x), backend="eager")
    assert_close(step(torch.tensor(images())), 2 * GaussianBlur(3).transform(images()))


def test_torch_exports_any_number_of_samples():
    torch = pytest.importorskip("torch")
    blur, x = GaussianBlur(3), torch.tensor(images())

    class Model(torch.nn.Module):
        def forward(self, x):
            return blur.transform(x) + 1

    for strict in (False, True):
        program = torch.export.export(
            Model(), (x,), strict=strict, dynamic_shapes=({0: torch.export.Dim("samples")},)
        )
        found = program.module()(torch.cat([x, x]))
        assert_close(found[3:], blur.transform(x) + 1)


# Derivatives


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning")  # torch calls it
@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_transforms(case):
    """The gradients of single samples, all at once."""
    torch = pytest.importorskip("torch")
    x, defence = case.sample.astype(np.float32), case.make()
    slopes = torch.func.vmap(torch.func.grad(lambda one: defence.transform(one[None]).sum()))(torch.tensor(x))
    ones = np.ones(defence.transform(x).shape, np.float32)
    assert_close(slopes, defence.estimate_gradient(x, ones), slopes_of(defence))


@pytest.mark.parametrize(
    ("defence", "x"),
    [(BandPass(16000, 300), audio(2)), (JpegCompression((0, 1)), images()), (Resample(2, 1), audio(2))],
    ids=str,
)
def test_torch_vmap_where_axes_move(defence, x):
    """Without a gradient, which would take torch's `moveaxis` apart first."""
    torch = pytest.importorskip("torch")
    found = torch.func.vmap(lambda one: defence.transform(one[None])[0])(torch.tensor(x, dtype=torch.float32))
    assert_close(found, defence.transform(x.astype(np.float32)))


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning")  # torch calls it
def test_torch_forward_mode():
    torch = pytest.importorskip("torch")
    blur, x = GaussianBlur(3), torch.tensor(images())
    _, moved = torch.func.jvp(blur.transform, (x,), (x,))
    assert_close(moved, blur.transform(x))  # it is linear


def test_second_derivatives_of_a_blur():
    """Of sum(blur(x)**4), beside differences of gradients that NumPy computes."""
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    blur, x = GaussianBlur(3, 0.8), images().astype(np.float64)[:1, :4, :3]
    along = np.random.default_rng(1).normal(size=x.shape)

    def slope(x):
        return blur.estimate_gradient(x, 4 * blur.transform(x) ** 3)

    expected = (slope(x + 1e-6 * along) - slope(x - 1e-6 * along)) / 2e-6
    function = partial(natively(blur, x), xp=xp)
    _, found = torch.autograd.functional.hvp(
        lambda x: (function(x) ** 4).sum(), torch.tensor(x), torch.tensor(along)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert torch.autograd.gradgradcheck(function, torch.tensor(x, requires_grad=True))


def test_second_derivatives_of_wavelets():
    """Thresholds and the ranges of colours move with the image."""
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    x = np.random.default_rng(0).random((1, 3, 4, 3))
    x[0, :, :2] = 0.5 + 0.01 * x[0, :, :2]
    for sigma in (0.1, 0.3):
        function = partial(natively(WaveletDenoising((0, 1), sigma), x), xp=xp)
        assert torch.autograd.gradgradcheck(function, torch.tensor(x, requires_grad=True))


def test_jax_vmap():
    jax = pytest.importorskip("jax")
    blur, x = GaussianBlur(3), jax.numpy.asarray(images())
    assert_close(jax.vmap(lambda one: blur.transform(one[None])[0])(x), blur.transform(x))


def test_jax_exports_any_number_of_samples():
    """The number is a symbol of the program, for draws as well; that of rows is not."""
    jax = pytest.importorskip("jax")
    from jax import export

    x = images()
    deflection = PixelDeflection((0, 1), 3, 3, denoiser=None, rng=0)
    (count,) = export.symbolic_shape("n")
    (height,) = export.symbolic_shape("h")
    index = {"index": jax.ShapeDtypeStruct((count,), "int32")}
    numbers = np.arange(3, dtype=np.int32)
    for defence, known, given in (
        (GaussianBlur(3), {}, {}),
        (deflection, index, {"index": numbers}),
    ):
        shape = jax.ShapeDtypeStruct((count, *x.shape[1:]), "float32")
        exported = export.export(jax.jit(defence.transform))(shape, **known)
        assert_close(exported.call(x, **given), defence.transform(x, **given))
    with pytest.raises(ValueError, match="`x` must hold samples of a known shape"):
        export.export(jax.jit(GaussianBlur(3).transform))(jax.ShapeDtypeStruct((3, height, 5, 3), "float32"))


def test_jax_second_derivatives_of_a_blur():
    """The Hessian of sum(blur(x)**2) is twice the matrix of the blur times itself, transposed."""
    jax = pytest.importorskip("jax")
    blur, x = GaussianBlur(3), jax.numpy.asarray(images()[:1, :3, :3, :1])
    matrix = np.stack([blur.transform(e.reshape(x.shape)).ravel() for e in np.eye(9)], axis=1)
    for mode in (jax.hessian, lambda f: jax.jacrev(jax.jacrev(f))):
        found = jax.jit(mode(lambda x: (blur.transform(x) ** 2).sum()))(x)
        np.testing.assert_allclose(found.reshape(9, 9), 2 * matrix.T @ matrix, rtol=1e-5, atol=1e-6)


# When which


def test_eager_tensors_on_the_host_stay_with_the_kernels():
    torch = pytest.importorskip("torch")
    blur = GaussianBlur(3)
    x = images()
    np.testing.assert_array_equal(blur.transform(torch.tensor(x)), blur.transform(x))
    with pytest.raises(ValueError, match="got 1 NaN"):
        blur.transform(torch.full((1, 1, 1, 1), torch.nan))


class Doubled(GaussianBlur):
    def _transform(self, x, draw):
        return 2 * super()._transform(x, draw)


class Steeper(GaussianBlur):
    def _gradient(self, x, grad, draw):
        return 2 * super()._gradient(x, grad, draw)


class Written(GaussianBlur):
    def __call__(self, x, y=None):
        return 2 * super().__call__(x, y)[0], y


class Wider(GaussianBlur):
    def __init__(self, sigma=9.0):
        super().__init__(3, sigma)


@pytest.mark.parametrize("defence", [Doubled(3), Steeper(3), Written(3)], ids=str)
def test_what_a_subclass_changes_is_not_passed_by(defence):
    jax = pytest.importorskip("jax")
    x = images()
    assert natively(defence, x) is None
    assert natively(Chain([GaussianBlur(3), defence]), x) is None
    np.testing.assert_allclose(jax.jit(defence.transform)(x), defence.transform(x), rtol=1e-6)
    assert natively(Wider(), x) is not None


class Brighter(GaussianBlur):
    def _arithmetic(self, shape, dtype):
        return lambda x, xp: super(Brighter, self)._arithmetic(shape, dtype)(x, xp) + 0.1


TRACED = []


def traced_blur(x, xp, function):
    TRACED.append(x.shape)
    return function(x, xp)


class Watched(GaussianBlur):
    def _arithmetic(self, shape, dtype):
        return partial(traced_blur, function=super()._arithmetic(shape, dtype))


def test_jax_compiles_equal_arithmetic_once():
    """A gradient outside of `jit` as well; another object with the same parameters has the same program."""
    jax = pytest.importorskip("jax")
    TRACED.clear()
    x = images()
    for sigma, programs in ((1.0, 1), (1.0, 1), (2.0, 2)):
        blur = Watched(3, sigma)
        slopes = jax.grad(lambda x, blur=blur: blur.transform(x).sum())(x)
        assert_close(slopes, blur.estimate_gradient(x, np.ones_like(x)))
        assert len(TRACED) == programs


class Flat(GaussianBlur):
    def _arithmetic(self, shape, dtype):
        return lambda x, xp: stop_gradient(super(Flat, self)._arithmetic(shape, dtype)(x, xp))


@pytest.mark.parametrize(("defence", "wrong"), [(Brighter(3), "result"), (Flat(3), "gradient")], ids=str)
def test_check_preprocessor_compares_both_hooks(defence, wrong):
    pytest.importorskip("jax")
    check = next(check for check in CHECKS if check.__name__ == "_check_jax")
    with pytest.raises(AssertionError, match=wrong):
        check(Subject(defence, images(), np.eye(3, dtype=np.float32)))


def test_a_copy_to_the_host_is_told_once():
    """The device without values stands for one with them: here, that they would be copied raises an error."""
    torch = pytest.importorskip("torch")
    x = torch.empty(1, 8, 8, 3, device="meta")

    class Slow(JpegCompression):
        """Through NumPy, and of its own, since the warning comes once for a class."""

        def _transform(self, x, draw):
            return super()._transform(x, draw)

    for defence in (Slow((0, 1)), Slow((0, 1), 80)):
        with (
            warnings.catch_warnings(record=True, action="always") as caught,
            pytest.raises(ValueError, match="must be dense and hold values"),
        ):
            defence.transform(x)
        told = [str(w.message) for w in caught]
        assert len(told) == (defence.quality == 50)
        assert all("each batch on meta is copied to the host" in message for message in told)


def test_values_pass_and_shapes_do_not():
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    blur = GaussianBlur(3)
    x = images()
    x[0, 0, 0, 0] = np.nan
    out = np.asarray(jax.jit(blur.transform)(x))
    assert np.isnan(out[0, :2, :2, 0]).all()
    np.testing.assert_array_equal(np.isnan(out).sum(), 4)
    for wrong, message in (((8, 8, 3), "4-D image batch"), ((1, 3, 20, 24), "has its channels")):
        with pytest.raises(ValueError, match=message):
            jax.jit(blur.transform)(np.zeros(wrong, np.float32))
        with pytest.raises(ValueError, match=message):
            blur.transform(torch.empty(wrong, device="meta"))
    with pytest.raises(ValueError, match="must hold real numbers, got dtype complex64"):
        blur.transform(torch.empty(1, 8, 8, 3, dtype=torch.complex64, device="meta"))
    with pytest.raises(ValueError, match="4-D image batch"):
        torch.compile(blur.transform, backend="eager")(torch.zeros(8, 8, 3))


def test_a_chain_takes_the_word_of_its_first_stage():
    """Pixels of 3 rows and 20 columns with 24 channels, for all that the second stage knows."""
    jax = pytest.importorskip("jax")
    x = np.random.default_rng(0).random((1, 3, 20, 24), dtype=np.float32)
    chain = Chain([GaussianBlur(3, layout="NHWC"), GaussianBlur(3)])
    assert_close(jax.jit(chain.transform)(x), chain.transform(x))


def test_the_benchmark_of_a_device_measures_native_defences():
    pytest.importorskip("torch")
    from benchmarks.on_device import defences

    x = np.zeros((1, 3, 16, 16), np.float32)
    assert all(natively(defence, x) is not None for defence in defences().values())
