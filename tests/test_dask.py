"""Arrays of Dask: lazy, with the bits of one call, however they are cut and wherever they are computed."""

import re

import numpy as np
import pytest

from preshield import (
    Chain,
    Cutout,
    FeatureSqueezing,
    GaussianAugmentation,
    ImageResize,
    LabelSmoothing,
    Mixup,
    Preprocessor,
    Resample,
    SpatialSmoothing,
    ThermometerEncoding,
    VideoCompression,
)
from preshield._core.errors import ArgumentError
from tests.cases import ALL, audio, images, videos

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

NOISE = {"sigma": 0.1, "augmentation": False}


@pytest.fixture(autouse=True)
def _synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def cut(x, *lengths):
    return da.from_array(x, chunks=((*lengths, len(x) - sum(lengths)), *x.shape[1:]))


def is_split(case):
    defence = case.make()
    return defence.mixes_samples or defence._output_shape(case.sample.shape)[0] != len(case.sample)


def never(*args, **kwargs):
    raise AssertionError("nothing may be computed yet")


@pytest.mark.parametrize("case", [case for case in ALL if case.make().domains != ("labels",)], ids=str)
def test_every_defence_returns_a_lazy_array_with_the_bits_of_one_call(case):
    defence, x = case.make(), case.sample
    if is_split(case):
        with pytest.raises(ArgumentError, match="`x` must be one batch in memory for"):
            defence.transform(cut(x, 1))
        return
    with defence.frozen(3):
        expected = defence.transform(x)
        grad = np.random.default_rng(0).standard_normal(expected.shape)
        pulled = defence.estimate_gradient(x, grad)
        with dask.config.set(scheduler=never):
            lazy = defence.transform(cut(x, 1))
            lazy_pulled = defence.estimate_gradient(cut(x, 1), cut(grad, 1, 1))
    assert lazy.chunks == ((1, len(x) - 1), *((n,) for n in expected.shape[1:]))
    assert lazy.dtype == expected.dtype
    assert lazy_pulled.chunks == cut(x, 1).chunks
    assert lazy_pulled.dtype == pulled.dtype
    np.testing.assert_array_equal(lazy.compute(), expected, strict=True)
    np.testing.assert_array_equal(lazy_pulled.compute(), pulled, strict=True)


# Draws


def of_stages():
    return Chain([Cutout(2, rng=1), GaussianAugmentation(**NOISE, rng=2), ThermometerEncoding((0, 1), 3)])


STOCHASTIC = {
    "integer": lambda: GaussianAugmentation(**NOISE, rng=0),
    "generator": lambda: GaussianAugmentation(**NOISE, rng=np.random.default_rng(3)),
    "global state": lambda: GaussianAugmentation(**NOISE),
    "chain": of_stages,
}
X = np.random.default_rng(0).random((12, 4, 4, 3), dtype=np.float32)


@pytest.mark.parametrize("lengths", [(), (1, 1), (0, 2), (3, 4, 1)], ids=str)
@pytest.mark.parametrize("make", STOCHASTIC.values(), ids=STOCHASTIC.keys())
def test_a_call_has_one_seed_for_all_blocks(make, lengths):
    np.random.seed(1)
    of_arrays = make()
    expected = [of_arrays.transform(X), of_arrays.transform(X)]
    np.random.seed(1)
    defence = make()
    lazy = [defence.transform(cut(X, *lengths)) for _ in range(2)]
    for i in (1, 0):  # whatever is computed first, and as often as it is
        np.testing.assert_array_equal(lazy[i].compute(), expected[i])
        np.testing.assert_array_equal(lazy[i][5:7].compute(), expected[i][5:7])
    assert not np.array_equal(*expected)


@pytest.mark.parametrize("index", [5, np.array([7, 3, 0, 2**32 - 1, *range(20, 28)])], ids=["first", "each"])
def test_samples_that_the_caller_numbers(index):
    defence = of_stages()
    expected = defence.transform(X, index=index)
    for _ in range(2):
        np.testing.assert_array_equal(defence.transform(cut(X, 5), index=index).compute(), expected)
    numbers = da.from_array(index) if np.ndim(index) else index
    np.testing.assert_array_equal(defence.transform(cut(X, 5), index=numbers).compute(), expected)
    with pytest.raises(ArgumentError, match="`index` must be the number of the first sample"):
        defence.transform(cut(X, 5), index=-1)


def test_a_frozen_defence_repeats_its_draw_after_the_block():
    defence = of_stages()
    grad = np.ones((12, 4, 4, 9))
    with defence.frozen(4):
        lazy, pulled = defence.transform(cut(X, 5)), defence.estimate_gradient(cut(X, 5), grad)
        expected, expected_pulled = defence.transform(X), defence.estimate_gradient(X, grad)
    np.testing.assert_array_equal(lazy.compute(), expected)
    np.testing.assert_array_equal(pulled.compute(), expected_pulled)
    assert not np.array_equal(defence.transform(X), expected)


def test_parameters_that_are_set_later_do_not_reach_the_graph():
    inside = SpatialSmoothing(3)
    for defence in (inside, Chain([Chain([inside]), FeatureSqueezing((0, 1), 3)])):
        inside.set_params(window_size=3)
        expected, lazy = defence.transform(X), defence.transform(cut(X, 5))
        inside.set_params(window_size=5)
        np.testing.assert_array_equal(lazy.compute(), expected)
        assert not np.array_equal(defence.transform(X), expected)


def test_a_batch_that_is_refused_takes_no_seed():
    defence, untouched = of_stages(), of_stages()
    with pytest.raises(ArgumentError, match="rechunk"):
        defence.transform(da.zeros((4, 4, 4, 3), chunks=2))
    with pytest.raises(ArgumentError, match="4-D image batch"):
        defence.transform(da.zeros((4, 4)))
    np.testing.assert_array_equal(defence.transform(cut(X)).compute(), untouched.transform(X))


# Schedulers


def test_threads_processes_and_distributed(tmp_path):
    distributed = pytest.importorskip("distributed")
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    defence = of_stages()
    with defence.frozen(1):
        expected = defence.transform(X)
        lazy = defence.transform(cut(X, 3, 3, 3))
    with dask.config.set(scheduler="threads", num_workers=2):
        np.testing.assert_array_equal(lazy.compute(), expected)
    with (
        ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool,
        dask.config.set(scheduler="processes", pool=pool),
    ):
        np.testing.assert_array_equal(lazy.compute(), expected)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    patient = dask.config.set({"distributed.comm.timeouts.connect": "120s"})  # where other tests run too
    with patient, distributed.Client(**options, local_directory=tmp_path) as client:
        np.testing.assert_array_equal(client.compute(lazy).result(), expected)


# Shapes


@pytest.mark.parametrize(
    ("defence", "x", "shape", "dtype"),
    [
        (Resample(16000, 8000), audio(2), (3, 350, 2), "float64"),
        (VideoCompression(video_format="mp4"), videos(), (2, 3, 6, 5, 3), "float64"),
        (ThermometerEncoding((0, 1), 4), images(), (3, 6, 5, 12), "float32"),
        (ImageResize(9, 8), images(), (3, 9, 8, 3), "float32"),
        (FeatureSqueezing((0, 255), 3), np.zeros((3, 7), np.uint8), (3, 7), "float32"),
    ],
    ids=["recordings", "videos", "codes", "sizes", "integers"],
)
def test_shape_and_dtype_are_known_before_anything_runs(defence, x, shape, dtype):
    with dask.config.set(scheduler=never):
        out = defence.transform(cut(x, 1))
    assert (out.shape, out.dtype) == (shape, np.dtype(dtype))
    assert out._meta.dtype == out.dtype


class Flat(Preprocessor):
    """Images as rows."""

    domains = ("image",)
    changes_shape = True

    def _transform(self, x, draw):
        return x.reshape(len(x), -1)

    def _gradient(self, x, grad, draw):
        return grad.reshape(x.shape)

    def _output_shape(self, shape):
        return (shape[0], int(np.prod(shape[1:])))


def test_a_defence_that_changes_the_number_of_axes():
    out = Flat().transform(cut(X, 5))
    assert out.chunks == ((5, 7), (48,))
    np.testing.assert_array_equal(out.compute(), X.reshape(12, -1))
    grad = np.random.default_rng(1).random((12, 48))
    pulled = Flat().estimate_gradient(cut(X, 5), cut(grad, 2))
    np.testing.assert_array_equal(pulled.compute(), grad.reshape(X.shape))


def test_gradients_of_classes_and_of_arrays_in_memory():
    defence = SpatialSmoothing(3, gradient="exact")
    grad = np.random.default_rng(1).random((12, 2, 4, 4, 3), dtype=np.float32)
    expected = defence.estimate_gradient(X, grad)
    for x, g in ((cut(X, 5), cut(grad, 2)), (cut(X, 5), grad), (X, cut(grad, 2))):
        pulled = defence.estimate_gradient(x, g)
        assert (pulled.shape, pulled.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(pulled.compute(), expected)
    with pytest.raises(ArgumentError, match=r"`grad` must have the shape \(12, 4, 4, 3\) of the output"):
        defence.estimate_gradient(cut(X, 5), cut(grad[:, 0, 1:], 2))
    with pytest.raises(ArgumentError, match=r"pass grad.rechunk\({0: 'auto', 2: -1}\)"):
        defence.estimate_gradient(cut(X, 5), da.from_array(grad, chunks=(5, 2, 2, 4, 3)))


def test_the_gradient_is_in_memory_of_its_own():
    grad = np.ones_like(X)
    pulled = FeatureSqueezing((0, 1), 3).estimate_gradient(cut(X), grad).compute()
    pulled[...] = 7
    assert (grad == 1).all()


# What is refused


def test_a_split_of_samples_is_refused_with_the_line_to_write():
    x = da.from_array(X, chunks=(3, 2, 4, 2))
    defence = SpatialSmoothing(3)
    with pytest.raises(ArgumentError, match=r"`x` must be split along its first axis alone") as refused:
        defence.transform(x)
    (line,) = re.findall(r"pass (x\.rechunk\(.*\))\.$", str(refused.value))
    assert line == "x.rechunk({0: 'auto', 1: -1, 3: -1})"
    np.testing.assert_array_equal(defence.transform(eval(line)).compute(), defence.transform(X))


def test_unknown_shapes_are_refused():
    x = cut(X, 5)
    some = x[x.sum(axis=(1, 2, 3)) > 0]
    with pytest.raises(ArgumentError, match=r"call x.compute_chunk_sizes\(\) first"):
        SpatialSmoothing(3).transform(some)
    assert SpatialSmoothing(3).transform(some.compute_chunk_sizes()).shape == X.shape


@pytest.mark.parametrize(
    ("defence", "message"),
    [
        (Mixup(3), r"makes a sample of several; take one batch at a time into memory"),
        (Chain([SpatialSmoothing(3), Mixup(3)]), "makes a sample of several"),
        (
            GaussianAugmentation(0.1, ratio=0.5),
            "number of samples; .* or pass augmentation=False",
        ),
        (Chain([GaussianAugmentation(0.1)]), "number of samples; .* or pass augmentation=False"),
    ],
    ids=str,
)
def test_samples_that_depend_on_each_other_are_refused(defence, message):
    with pytest.raises(ArgumentError, match=message):
        defence(cut(X, 5), da.from_array(np.arange(12) % 3, chunks=5))


def test_values_are_checked_where_they_are_computed():
    out = SpatialSmoothing(3).transform(cut(np.where(X > 0.9, np.nan, X), 5))
    with pytest.raises(ArgumentError, match="`x` must be finite"):
        out.compute()


# Labels


def test_labels_are_lazy_where_they_change():
    y = np.arange(12) % 3
    smooth = LabelSmoothing(0.9, num_classes=3)
    expected = smooth(X, y)[1]
    for defence in (smooth, Chain([SpatialSmoothing(3), smooth]), Chain([of_stages(), smooth])):
        with dask.config.set(scheduler=never):
            _, lazy = defence(cut(X, 5), da.from_array(y, chunks=4))
        assert (lazy.shape, lazy.dtype) == ((12, 3), expected.dtype)
        np.testing.assert_array_equal(lazy.compute(), expected)
        in_memory = defence(cut(X, 5), y)[1]
        assert isinstance(in_memory, np.ndarray)
        np.testing.assert_array_equal(in_memory, expected)
        np.testing.assert_array_equal(defence(cut(X, 5), y.tolist())[1], expected)
    np.testing.assert_array_equal(smooth(X, da.from_array(y, chunks=4))[1].compute(), expected)


def test_other_labels_pass():
    y = da.arange(12, chunks=4)
    for x in (X, cut(X, 5)):
        assert SpatialSmoothing(3)(x, y)[1] is y
    with pytest.raises(ArgumentError, match=r"`y` must be in memory where `x` is"):
        Chain([SpatialSmoothing(3), LabelSmoothing(num_classes=12)])(X, y)
    with pytest.raises(ArgumentError, match="`y` must have one label for each of the 12 samples"):
        Chain([SpatialSmoothing(3), LabelSmoothing(num_classes=12)])(cut(X, 5), y[1:])


class Style(Preprocessor):
    """As written for ART: data that depend on the labels."""

    def __call__(self, x, y=None):
        return (x if y is None else x + y[:, None, None, None]), (None if y is None else 2 * y)


class Drawing(Preprocessor):
    """As written for ART, drawing itself."""

    def __call__(self, x, y=None):
        return x + np.random.random(x.shape).astype(x.dtype), y


def test_classes_written_for_art():
    y = np.arange(12.0)
    for labels in (y, da.from_array(y, chunks=4)):
        out, relabelled = Style()(cut(X, 5), labels)
        np.testing.assert_array_equal(out.compute(), Style()(X, y)[0])
        np.testing.assert_array_equal(relabelled.compute(), 2 * y)
    with pytest.raises(ArgumentError, match="its own methods draw"):
        Drawing().transform(cut(X, 5)).compute()
    known = Drawing()
    known.transform(X)
    with pytest.raises(ArgumentError, match=r"draws in its own methods; draw in `_draw\(x, rng\)`"):
        known.transform(cut(X, 5))


def test_an_output_of_another_shape_than_was_stated():
    flat = type("Wrong", (Flat,), {"_output_shape": Preprocessor._output_shape})()
    with pytest.raises(ArgumentError, match=r"returned the shape \(\d, 48\) in a graph that expects"):
        flat.transform(cut(X, 5)).compute()


def test_one_recording_needs_its_batch_axis():
    with pytest.raises(ArgumentError, match=r"add the batch axis with x\[None\]"):
        Resample(16000, 8000).transform(da.from_array(audio()[0], chunks=100))


def test_one_sample():
    defence = GaussianAugmentation(**NOISE, rng=0)
    out = defence.transform_one(cut(X, 5)[3], index=3)
    np.testing.assert_array_equal(out.compute(), defence.transform(X, index=0)[3])


# Names of results


def test_equal_calls_have_equal_names():
    x = cut(X, 5)
    assert SpatialSmoothing(3).transform(x).name == SpatialSmoothing(3).transform(x).name
    assert SpatialSmoothing(3).transform(x).name != SpatialSmoothing(5).transform(x).name
    noise = GaussianAugmentation(**NOISE, rng=0)
    assert noise.transform(x, index=0).name == noise.transform(x, index=0).name
    assert noise.transform(x, index=0).name != noise.transform(x, index=1).name
    assert noise.transform(x).name != noise.transform(x).name
