"""Batches as people have them: one waveform, numbers of Python's, data frames, half precision."""

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    LabelSmoothing,
    LFilter,
    Mixup,
    Mp3Compression,
    Resample,
    SpatialSmoothing,
    ThermometerEncoding,
    TotalVarMin,
    VideoCompression,
)
from tests.cases import ALL, audio, images, videos

WAVEFORM = audio()[0].astype(np.float32)
OF_AUDIO = [
    Mp3Compression(16000),
    Resample(16000, 8000),
    Resample(16000, 8000, restore=True, channels_first=True),
    Chain([Resample(16000, 8000), Mp3Compression(8000)]),
    Chain([GaussianAugmentation(0.1, augmentation=False, rng=0), Mp3Compression(16000, full_scale=1.0)]),
]


# One waveform, as ART's speech recognisers pass it


@pytest.mark.parametrize("defence", OF_AUDIO, ids=str)
def test_one_waveform(defence):
    with defence.frozen(0):
        out, labels = defence(WAVEFORM, "a transcription")
        expected = defence.transform(WAVEFORM[None])
        grad = np.random.default_rng(0).standard_normal(expected.shape[1:])
        pulled = defence.estimate_gradient(WAVEFORM, grad)
        np.testing.assert_array_equal(pulled, defence.estimate_gradient(WAVEFORM[None], grad[None])[0])
    np.testing.assert_array_equal(out, expected[0])
    assert labels == "a transcription"
    assert pulled.shape == WAVEFORM.shape


def test_one_waveform_as_a_list_or_as_numbers_of_python():
    resample = Resample(16000, 8000)
    expected = resample.transform(WAVEFORM.astype(float))
    np.testing.assert_array_equal(resample.transform(WAVEFORM.tolist()), expected)
    out = resample.transform(WAVEFORM.astype(float).astype(object))
    assert out.dtype == object
    np.testing.assert_array_equal(out.astype(float), expected)


@pytest.mark.parametrize("defence", [*OF_AUDIO, LFilter([0.5, 0.5])], ids=str)
def test_the_gradient_at_one_waveform_as_lists(defence):
    with defence.frozen(0):
        grad = np.linspace(-1, 1, len(defence.transform(WAVEFORM)))
        expected = defence.estimate_gradient(WAVEFORM, grad)
        for x in (WAVEFORM, WAVEFORM.tolist()):
            np.testing.assert_array_equal(defence.estimate_gradient(x, grad.tolist()), expected)


def test_one_waveform_in_a_graph_that_does_not_know_its_rank():
    tf = pytest.importorskip("tensorflow")
    halve = LFilter([0.5, 0.5])

    @tf.function(input_signature=[tf.TensorSpec(None)])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = halve.transform(x)
            total = tf.reduce_sum(out)
        return out, tape.gradient(total, x)

    out, grad = step(tf.constant([1.0, 3.0, 5.0]))
    np.testing.assert_array_equal(out, [0.5, 2, 4])
    np.testing.assert_array_equal(grad, [1, 1, 0.5])
    np.testing.assert_array_equal(step(tf.constant([[1.0, 3.0, 5.0]]))[0], [[0.5, 2, 4]])


def test_arrays_of_brain_floats():
    """What TensorFlow and JAX make of their tensors of this type is an array that NumPy does not know."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.array([[0.25, 0.75]], dtype=ml_dtypes.bfloat16)
    out = FeatureSqueezing((0, 1), 1).transform(x)
    assert out.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(out.astype(np.float32), [[0, 1]])
    pulled = FeatureSqueezing((0, 1), 1).estimate_gradient(x, x)
    assert pulled.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(pulled.astype(np.float32), [[0.25, 0.75]])


def test_one_waveform_with_nan_is_refused():
    with pytest.raises(ValueError, match="must be finite, got 1 NaN"):
        Mp3Compression(16000).transform(np.array([0.0, np.nan]))


@pytest.mark.parametrize("traced", [False, True])
def test_one_waveform_of_every_framework(traced):
    torch = pytest.importorskip("torch")
    tf = pytest.importorskip("tensorflow")
    jax = pytest.importorskip("jax")
    resample = Resample(16000, 8000)
    expected = resample.transform(WAVEFORM)
    weights = np.random.default_rng(0).standard_normal(expected.shape).astype(np.float32)
    pulled = resample.estimate_gradient(WAVEFORM, weights)

    x = torch.tensor(WAVEFORM, requires_grad=True)
    out = resample.transform(x)
    (out * torch.tensor(weights)).sum().backward()
    np.testing.assert_array_equal(out.detach(), expected)
    np.testing.assert_allclose(x.grad, pulled, rtol=1e-5, atol=1e-7)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = resample.transform(x)
            product = tf.reduce_sum(out * weights)
        return out, tape.gradient(product, x)

    out, grad = (tf.function(step) if traced else step)(tf.constant(WAVEFORM))
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(grad, pulled, rtol=1e-5, atol=1e-7)

    slope = jax.grad(lambda x: (resample.transform(x) * weights).sum())
    slope, forward = (jax.jit(slope), jax.jit(resample.transform)) if traced else (slope, resample.transform)
    found = forward(jax.numpy.asarray(WAVEFORM))
    np.testing.assert_allclose(found, expected, atol=2e-6 if traced else 0)  # JAX itself, and the kernel
    np.testing.assert_allclose(slope(jax.numpy.asarray(WAVEFORM)), pulled, rtol=1e-5, atol=1e-7)


# Arrays of Python's numbers


def test_columns_of_a_data_frame():
    """Booleans beside floats: True is 1."""
    rows = np.array([[True, 0.24], [False, 0.76]], dtype=object)
    np.testing.assert_allclose(FeatureSqueezing((0, 1), 2).transform(rows), [[1, 1 / 3], [0, 2 / 3]])
    from decimal import Decimal

    rows = np.array([[Decimal("0.24"), 1]], dtype=object)
    np.testing.assert_allclose(FeatureSqueezing((0, 1), 2).transform(rows), [[1 / 3, 1]])


@pytest.mark.parametrize("defence", [GaussianAugmentation(0.1, rng=0), Mixup(3, rng=0)], ids=str)
def test_samples_of_a_list_are_counted_too(defence):
    """Else the labels of others, or an IndexError of NumPy's."""
    for labels in (2, 4):
        with pytest.raises(ValueError, match="one label for each of the 3 samples"):
            defence([[0.0], [0.5], [1.0]], np.eye(3)[np.zeros(labels, int)])


def test_a_missing_value_is_named():
    with pytest.raises(TypeError, match="that holds None of type NoneType; fill missing values"):
        FeatureSqueezing((0, 1)).transform(np.array([[True, None]], dtype=object))
    with pytest.raises(TypeError, match=r"that holds 'yes' of type str; .* encode text as numbers"):
        FeatureSqueezing((0, 1)).transform(np.array([[0.5, "yes"]], dtype=object))
    with pytest.raises(TypeError, match="must be an array of numbers, got an object array that holds None"):
        Resample(16000, 8000).transform(np.array([[0.5, None]], dtype=object))


def test_nullable_columns_of_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [True, False], "b": [0.2, 0.8]}).astype({"a": "boolean"})
    np.testing.assert_allclose(FeatureSqueezing((0, 1), 1).transform(frame), [[1, 0], [0, 1]])
    frame.loc[0, "a"] = pandas.NA
    with pytest.raises(TypeError, match="that holds <NA> of type NAType; fill missing values"):
        FeatureSqueezing((0, 1), 1).transform(frame)


def test_one_hot_labels_of_python_numbers():
    y = np.array([[1, 0], [0, 1]], dtype=object)
    x = np.zeros((2, 3))
    np.testing.assert_allclose(LabelSmoothing(0.75)(x, y)[1], [[0.75, 0.25], [0.25, 0.75]])
    names = np.array(["cat", "dog"], dtype=object)  # labels that are only repeated may be anything
    _, labels = GaussianAugmentation(0.1, ratio=1.0, rng=0)(x, names)
    assert labels[:2].tolist() == ["cat", "dog"]
    assert set(labels[2:]) <= {"cat", "dog"}


@pytest.mark.parametrize(
    ("defence", "x"),
    [
        (Mp3Compression(16000), audio(1)),
        (Resample(16000, 8000, channels_first=True), audio(2, channels_first=True)),
        (VideoCompression(video_format="mp4", clip_values=(0, 1)), videos()),
    ],
    ids=["mp3", "resample", "video"],
)
def test_samples_of_one_length_in_an_object_array(defence, x):
    """They stay an object array, as the next batch may hold samples that differ, and so does the gradient."""
    given = x.astype(object)
    out = defence.transform(given)
    assert out.dtype == object
    expected = defence.transform(x)
    np.testing.assert_array_equal(out.astype(float), expected)
    grad = np.random.default_rng(0).standard_normal(expected.shape)
    pulled = defence.estimate_gradient(given, grad.astype(object))
    assert pulled.dtype == object
    np.testing.assert_array_equal(pulled.astype(float), defence.estimate_gradient(x, grad))


# Half precision

OF_HALF = [case for case in ALL if case.make().domains != ("labels",) and case.sample.dtype.kind == "f"]


@pytest.mark.parametrize("case", OF_HALF, ids=str)
def test_half_precision_stays(case):
    """A model in half precision takes what comes back, and the values are those of single precision."""
    torch = pytest.importorskip("torch")
    x = np.clip(case.sample, -1000, 1000).astype(np.float16)
    defence = case.make()
    y = np.eye(3, dtype=np.float32)[np.arange(len(x)) % 3]
    if not defence.is_fitted:
        defence.fit(x.astype(np.float32), y)
    with defence.frozen(0):
        expected = defence(x.astype(np.float32), y)[0]
        half, bfloat = (
            defence(torch.tensor(x).to(dtype), torch.tensor(y))[0]
            for dtype in (torch.float16, torch.bfloat16)
        )
        single = defence(x.astype(np.float64), y)[0]
    assert half.dtype == torch.float16
    assert bfloat.dtype == torch.bfloat16
    assert single.dtype == (
        np.float64 if defence._output_dtype(np.dtype(float)) == np.float64 else np.float32
    )
    if isinstance(defence, Chain):
        return  # each stage rounds
    largest = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(half.float().numpy(), expected, atol=1e-3 * largest)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_in_half_precision_behind_a_defence(dtype):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, dtype)
    model = torch.nn.Linear(3, 2).to(dtype)
    for defence in (
        JpegCompression((0, 1)),
        TotalVarMin(max_iter=1),
        GaussianAugmentation(0.1, augmentation=False),
        ThermometerEncoding((0, 1), num_space=1),
    ):
        x = torch.tensor(images()).to(dtype).requires_grad_()
        model(defence.transform(x)).sum().backward()
        assert x.grad.dtype == dtype


def test_gradients_keep_their_type():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        grad = torch.ones(images().shape, dtype=dtype)
        assert SpatialSmoothing(3, gradient="exact").estimate_gradient(images(), grad).dtype == dtype


# The order of memory


@pytest.mark.parametrize("limits", [(0, 1), (np.zeros(3), np.ones(3)), (0.1, 0.9)])
def test_the_last_bit_of_squeezed_features_does_not_depend_on_the_order_of_memory(limits):
    x = np.random.default_rng(0).random((40, 30, 20, 3))
    squeeze = FeatureSqueezing(limits, 7)
    expected = squeeze.transform(x)
    for order in ("F", "K"):
        np.testing.assert_array_equal(squeeze.transform(x.copy(order=order)), expected)
        np.testing.assert_array_equal(squeeze.transform(x.transpose(3, 2, 1, 0).copy(order="C").T), expected)
