"""Resampling: tones, resampy, there and back, the gradient in every framework, its rules."""

import re
import tracemalloc

import numpy as np
import pytest
import resampy
from hypothesis import given, settings
from hypothesis import strategies as st

from preshield import Resample
from preshield._core.layout import object_array

FILTERS = ("sinc_window", "kaiser_best", "kaiser_fast")


def tone(frequency, rate, seconds=0.5):
    """A sine of amplitude 1, shape `(1, length)`."""
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)[None]


def noise(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


# Known answers


@pytest.mark.parametrize("filter_name", FILTERS)
@pytest.mark.parametrize("rates", [(16000, 8000), (16000, 22050), (8000, 48000)])
def test_a_tone_stays_a_tone(rates, filter_name):
    out = Resample(*rates, filter=filter_name).transform(tone(440, rates[0]))
    expected = tone(440, rates[1])
    assert out.shape == expected.shape
    middle = slice(1000, -1000)  # beyond the ends there is silence, which rings
    np.testing.assert_allclose(out[:, middle], expected[:, middle], rtol=0, atol=1e-3)


@pytest.mark.parametrize("filter_name", FILTERS)
def test_what_the_lower_rate_cannot_hold_is_gone(filter_name):
    high = tone(5000, 16000)
    for restore in (False, True):
        out = Resample(16000, 8000, filter=filter_name, restore=restore).transform(high)
        assert np.abs(out[:, 500:-500]).max() < 1e-3
    assert np.abs(Resample(16000, 12000).transform(high)[:, 500:-500]).max() > 0.99


@pytest.mark.parametrize(
    ("rates", "gain"), [((44100, 16000), 1.0027), ((300, 1), 1.7044), ((2, 1), 1), ((3, 7), 1)]
)
def test_the_gain_of_resampy(rates, gain):
    # A step of 512 * 160 / 441 = 185.76 entries of the table is taken as 185, one of 512 / 300 as 1.
    out = Resample(*rates).transform(np.ones((1, 60000)))
    third = out.shape[1] // 3
    np.testing.assert_allclose(out[:, third:-third].mean(), gain, rtol=1e-4)


@pytest.mark.parametrize("restore", [False, True])
def test_silence_stays_silence(restore):
    out = Resample(16000, 11025, restore=restore).transform(np.zeros((2, 500, 2), np.int16))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.float16, bool])
@pytest.mark.parametrize("restore", [False, True])
def test_equal_rates_change_nothing(dtype, restore):
    x = np.array([[0, 1, 3, -2, 5]]).astype(dtype)
    out = Resample(44100, 44100, restore=restore).transform(x)
    assert out.dtype == (dtype if np.dtype(dtype).kind == "f" else np.float32)
    np.testing.assert_array_equal(out, x.astype(float))
    grad = np.arange(5.0)[None]
    np.testing.assert_array_equal(Resample(7, 7, restore=restore).estimate_gradient(x, grad), grad)


@pytest.mark.parametrize(
    ("rates", "length", "new_length"),
    [((16000, 8000), 2, 1), ((16000, 8000), 3, 1), ((3, 2), 5, 3), ((8000, 11025), 1, 1), ((1, 7), 1, 7)],
)
def test_lengths(rates, length, new_length):
    x = noise(1, length)
    expected = resampy.resample(x, *rates, filter="sinc_window")
    assert expected.shape == (1, new_length)
    np.testing.assert_allclose(Resample(*rates).transform(x), expected, rtol=0, atol=1e-9)
    assert Resample(*rates, restore=True).transform(x).shape == x.shape


# resampy


@settings(max_examples=60, deadline=None)
@given(
    old=st.integers(1, 100_000),
    factor=st.floats(0.01, 10),
    filter_name=st.sampled_from(FILTERS),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 2000), st.integers(1, 3)),
    channels_first=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64, np.int16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_resampy(old, factor, filter_name, shape, channels_first, dtype, seed):
    new = max(1, round(old * factor))
    if shape[1] * new < old or old == new:
        return
    scale = 32767 if dtype is np.int16 else 1
    x = (noise(*shape, seed=seed) * scale).astype(dtype)
    expected = resampy.resample(x, old, new, axis=1, filter=filter_name)
    if channels_first:
        x, expected = np.moveaxis(x, 1, 2), np.moveaxis(expected, 1, 2)
    out = Resample(old, new, channels_first, filter=filter_name).transform(x)
    assert out.dtype == expected.dtype
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("rates", [(16000, 8000), (8000, 11025), (44100, 16000), (44100, 44101)])
@pytest.mark.parametrize("length", [7, 1001])
def test_there_and_back_is_resampy_twice(rates, length):
    x = noise(2, length)
    there = resampy.resample(x, *rates, filter="kaiser_fast")
    expected = resampy.resample(there, *rates[::-1], filter="kaiser_fast")
    out = Resample(*rates, filter="kaiser_fast", restore=True).transform(x)
    assert out.shape == x.shape
    np.testing.assert_allclose(out[:, : expected.shape[1]], expected, rtol=0, atol=1e-9)


def test_half_precision():
    x = noise(2, 400, 1, dtype=np.float16)
    out = Resample(3, 2).transform(x)
    assert out.dtype == np.float16
    expected = Resample(3, 2).transform(x.astype(np.float32))
    np.testing.assert_array_equal(out, expected.astype(np.float16))


# Samples of different lengths


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("restore", [False, True])
def test_samples_of_different_lengths(channels_first, restore):
    samples = [noise(900, 2), noise(20, dtype=np.float32), noise(2, 1), (noise(333) * 32767).astype(np.int16)]
    defence = Resample(3, 2, channels_first, restore=restore)
    x = object_array([s.T if channels_first else s for s in samples])
    out = defence.transform(x)
    assert out.dtype == object
    assert [o.dtype for o in out] == [np.float64, np.float32, np.float64, np.float32]
    grads = object_array([noise(*o.shape, seed=1) for o in out])
    pulled = defence.estimate_gradient(x, grads)
    for sample, one, grad, back in zip(x, out, grads, pulled, strict=True):
        np.testing.assert_array_equal(one, defence.transform(sample[None])[0])
        np.testing.assert_array_equal(back, defence.estimate_gradient(sample[None], grad[None])[0])


def test_a_sample_that_is_too_short_is_named():
    x = object_array([noise(5), noise(1)])
    with pytest.raises(ValueError, match=r"`x\[1\]\[None\]` must have at least 2 along time"):
        Resample(2, 1).transform(x)


def test_no_samples():
    assert Resample(2, 1).transform(np.zeros((0, 10, 1))).shape == (0, 5, 1)
    assert Resample(2, 1).transform(np.zeros((2, 10, 0))).shape == (2, 5, 0)
    assert len(Resample(2, 1).transform(np.empty(0, dtype=object))) == 0


# The gradient is the transpose


@settings(max_examples=40, deadline=None)
@given(
    rates=st.tuples(st.integers(1, 50), st.integers(1, 50))
    | st.sampled_from([(16000, 8000), (16000, 22050), (44100, 16000), (44100, 44101), (8000, 48000)]),
    restore=st.booleans(),
    channels_first=st.booleans(),
    filter_name=st.sampled_from(FILTERS),
    length=st.integers(50, 5000),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_dot_products_agree(rates, restore, channels_first, filter_name, length, dtype, seed):
    shape = (2, 2, length) if channels_first else (2, length, 2)
    x = noise(*shape, dtype=dtype, seed=seed)
    defence = Resample(*rates, channels_first, filter=filter_name, restore=restore)
    out = defence.transform(x).astype(float)
    y = noise(*out.shape, dtype=dtype, seed=seed + 1)
    pulled = defence.estimate_gradient(x, y).astype(float)
    bound = np.linalg.norm(out) * np.linalg.norm(y)
    assert abs((out * y).sum() - (x * pulled).sum()) <= 1e-5 * bound


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("framework", ["torch", "tensorflow", "traced tensorflow"])
def test_dot_products_agree_in_frameworks(framework, restore):
    defence = Resample(44100, 16000, restore=restore)
    x = noise(2, 3000, 1, dtype=np.float32)
    y = noise(*defence._output_shape(x.shape), dtype=np.float32, seed=1)
    if framework == "torch":
        torch = pytest.importorskip("torch")
        tensor = torch.tensor(x, requires_grad=True)
        out = defence.transform(tensor)
        (out * torch.from_numpy(y)).sum().backward()
        out, pulled = out.detach().numpy(), tensor.grad.numpy()
    else:
        tf = pytest.importorskip("tensorflow")

        def run(tensor):
            with tf.GradientTape() as tape:
                tape.watch(tensor)
                out = defence.transform(tensor)
                product = tf.reduce_sum(out * y)
            return out, tape.gradient(product, tensor)

        run = tf.function(run) if framework == "traced tensorflow" else run
        out, pulled = (result.numpy() for result in run(tf.constant(x)))
    np.testing.assert_array_equal(out, defence.transform(x))
    left, right = (out.astype(float) * y).sum(), (pulled.astype(float) * x).sum()
    assert abs(left - right) <= 1e-5 * np.linalg.norm(out) * np.linalg.norm(y)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_inside_a_classifier_of_art(framework):
    classification = pytest.importorskip("art.estimators.classification")
    stages = [Resample(44100, 16000, restore=True), Resample(3, 2)]
    x, weights = noise(1, 60, 1, dtype=np.float32), noise(40, 2, dtype=np.float32)
    if framework == "torch":
        torch = pytest.importorskip("torch")
        linear = torch.nn.Linear(40, 2, bias=False)
        linear.weight.data = torch.from_numpy(weights.T.copy())
        model, loss = torch.nn.Sequential(torch.nn.Flatten(), linear), torch.nn.CrossEntropyLoss()
        classifier = classification.PyTorchClassifier(
            model, loss, (60, 1), 2, preprocessing_defences=stages, device_type="cpu"
        )
    else:
        tf = pytest.importorskip("tensorflow")
        classifier = classification.TensorFlowV2Classifier(
            lambda batch, training: tf.reshape(batch, (-1, 40)) @ weights,
            nb_classes=2,
            input_shape=(60, 1),
            loss_object=tf.keras.losses.CategoricalCrossentropy(from_logits=True),
            preprocessing_defences=stages,
        )
    both = stages[1].transform(stages[0].transform(np.eye(60)))  # rows: what becomes of one input
    logits = x[..., 0] @ both @ weights
    np.testing.assert_allclose(classifier.predict(x), logits, rtol=0, atol=1e-5)
    odds = np.exp(logits) / np.exp(logits).sum()
    expected = (odds - [[0, 1]]) @ weights.T @ both.T
    found = classifier.loss_gradient(x, np.array([[0.0, 1.0]], np.float32))
    np.testing.assert_allclose(found[..., 0], expected, rtol=0, atol=1e-5)


# Memory and threads


@pytest.mark.parametrize("restore", [False, True])
def test_memory(restore):
    x = np.zeros(
        (1, 16000 * 60 * 5), np.float32
    )  # five minutes; what is needed beside the result is constant
    defence = Resample(16000, 8000, restore=restore)
    tracemalloc.start()
    out = defence.transform(x)
    defence.estimate_gradient(x, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * x.nbytes


def test_threads_make_no_difference(monkeypatch):
    x = noise(40, 3000, 2, dtype=np.float32)
    defence = Resample(16000, 22050, restore=True)
    results = []
    for threads in ("1", "4"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        results.append((defence.transform(x), defence.estimate_gradient(x, x)))
    for one, four in zip(*results, strict=True):
        np.testing.assert_array_equal(one, four)


# Rules


def test_channel_index():
    with pytest.warns(FutureWarning, match="use channels_first=True instead of channel_index=1"):
        old = Resample(3, 2, channel_index=1)
    x = noise(1, 2, 30)
    np.testing.assert_array_equal(old.transform(x), Resample(3, 2, channels_first=True).transform(x))


def test_numpy_integers_are_integers():
    x = noise(1, 3000)
    out = Resample(np.int16(16000), np.int16(8000)).transform(x)
    np.testing.assert_array_equal(out, Resample(16000, 8000).transform(x))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"sr_original": 0}, ValueError, "`sr_original` must be at least 1, got 0"),
        ({"sr_new": -8000}, ValueError, "`sr_new` must be at least 1, got -8000"),
        ({"sr_new": 8000.5}, TypeError, r"`sr_new` must be an integer, got 8000\.5 of type float"),
        ({"sr_original": True}, TypeError, "`sr_original` must be an integer, got True"),
        ({"sr_original": "16k"}, TypeError, "`sr_original` must be an integer, got '16k'"),
        ({"filter": "sinc"}, ValueError, "one of 'sinc_window', 'kaiser_best', 'kaiser_fast', got 'sinc'"),
        ({"sr_new": 31}, ValueError, "`sr_new` must be 512 times `sr_original` at most, and 1/512 .* got 31"),
        ({"sr_original": 1, "sr_new": 513, "filter": "kaiser_fast"}, ValueError, "with filter='kaiser_fast'"),
        ({"sr_new": 1, "filter": "kaiser_best"}, ValueError, "must be 8192 times"),
        ({"restore": 1}, TypeError, "`restore` must be True or False, got 1"),
        ({"channels_first": None}, TypeError, "`channels_first` must be True or False, got None"),
        ({"channel_index": 7}, ValueError, "`channel_index` must be 1"),
        ({"apply_fit": "no"}, TypeError, "`apply_fit` must be True or False, got 'no'"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        Resample(**{"sr_original": 16000, "sr_new": 8000, **parameters})


@pytest.mark.parametrize("rates", [(512, 1), (1, 512)])
def test_the_largest_factors(rates):
    x = noise(1, 1100)
    expected = resampy.resample(x, *rates, filter="sinc_window")
    np.testing.assert_allclose(Resample(*rates).transform(x), expected, rtol=0, atol=1e-9)
    assert Resample(*rates, restore=True).transform(x).shape == x.shape


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (noise(1, 2, 3, 4), ValueError, r"`x` must be an audio batch .* got shape \(1, 2, 3, 4\)"),
        (np.float32(1), ValueError, "`x` must have a batch axis"),
        (np.full((1, 9), np.nan), ValueError, "`x` must be finite, got 9 NaN"),
        (np.full((1, 9), np.inf), ValueError, "`x` must be finite, got 0 NaN and 9 infinite"),
        (np.full((1, 9), "a"), TypeError, "`x` must hold real numbers"),
        (
            noise(2, 1, 100),
            ValueError,
            r"`x` must have at least 2 along time, axis 1 of \(2, 1, 100\), to be resampled from 16000 to ",
        ),
        (noise(1, 0), ValueError, "at least 2 along time, .* got 0"),
        (object_array([noise(9), noise(3, 3, 3)]), ValueError, r"`x\[1\]` must be a sample \(length,\)"),
    ],
)
def test_bad_arrays(x, error, message):
    for restore in (False, True):
        with pytest.raises(error, match=message):
            Resample(16000, 8000, restore=restore).transform(x)


@pytest.mark.parametrize("shape", [(2, 2, 100), (1, 2, 16000), (2, 8, 64), (3, 6, 400)])
@pytest.mark.parametrize("restore", [False, True])
def test_channels_are_not_resampled_in_place_of_time(shape, restore):
    x = noise(*shape)
    message = r"time along axis 1 with channels_first=False, got .*pass channels_first=True\.$"
    for call in (
        lambda d: d.transform(x),
        lambda d: d.transform(object_array(list(x))),
        lambda d: d.estimate_gradient(x, np.zeros(d._output_shape(shape))),
    ):
        with pytest.raises(ValueError, match=message):
            call(Resample(2, 1, restore=restore))
    remedy = Resample(2, 1, channels_first=True, restore=restore)
    assert remedy.transform(x).shape == (*shape[:2], shape[2] if restore else shape[2] // 2)
    last = np.moveaxis(x, 1, 2)
    with pytest.raises(ValueError, match=r"along axis 2 with .*; pass channels_first=False\.$"):
        remedy.transform(last)
    expected = np.moveaxis(remedy.transform(x), 1, 2)
    np.testing.assert_array_equal(Resample(2, 1, restore=restore).transform(last), expected)


def test_a_gradient_of_a_batch_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match=r"at least 2 along time, .* got 1; pad it\.$"):
        Resample(2, 1).estimate_gradient(np.zeros((1, 1)), np.zeros((1, 0)))


def test_a_tensorflow_graph_does_not_claim_a_length_that_it_does_not_know():
    tf = pytest.importorskip("tensorflow")
    spec = [tf.TensorSpec((None, None, 1), tf.float32)]
    traced = tf.function(Resample(3, 1).transform, input_signature=spec).get_concrete_function()
    assert traced.output_shapes.as_list() == [None, None, 1]


@pytest.mark.parametrize(
    ("channels_first", "remedy", "shape"), [(False, "x[None]", (1, 2, 3)), (True, "x.T[None]", (1, 3, 2))]
)
def test_one_recording_with_channels_is_told_its_axes(channels_first, remedy, shape):
    defence, x = Resample(4, 1, channels_first=channels_first), np.zeros((8, 3), np.float32)
    wanted = rf"got 3; pad it, or pass {re.escape(remedy)} for one recording with 3 channels\.$"
    with pytest.raises(ValueError, match=wanted):
        defence.transform(x)
    assert defence.transform(eval(remedy)).shape == shape
