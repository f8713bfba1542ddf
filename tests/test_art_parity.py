"""Every defence beside the installed ART: equal where ART is right, and both sides where it is not."""

import inspect
import re
import shutil
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import NumbaError
from numpy.testing import assert_allclose, assert_array_equal

import preshield
from preshield.codecs import ffmpeg, h264, h264_ffmpeg, mp3, mp3_pydub

art = pytest.importorskip("art.defences.preprocessor")


def tools():
    """ART's classes outside of `art.defences.preprocessor` that preshield has too, by name.

    Those for images import OpenCV, of which only one of them needs more than a number.
    """
    missing = find_spec("cv2") is None
    if missing:
        sys.modules["cv2"] = SimpleNamespace(INTER_LINEAR=1)
    from art.preprocessing import audio, image, standardisation_mean_std

    if missing:
        del sys.modules["cv2"]
    modules = (audio, image, standardisation_mean_std)
    return {name: value for m in modules for name, value in vars(m).items() if isinstance(value, type)}


TOOLS = tools()
from art.estimators.classification.classifier import ClassifierMixin  # noqa: E402
from art.estimators.estimator import NeuralNetworkMixin  # noqa: E402

NAMES = [
    "CutMix",
    "Cutout",
    "FeatureSqueezing",
    "GaussianAugmentation",
    "ImageResize",
    "ImageSquarePad",
    "JpegCompression",
    "LFilter",
    "LabelSmoothing",
    "Mixup",
    "Mp3Compression",
    "PixelDefend",
    "Resample",
    "SpatialSmoothing",
    "StandardisationMeanStd",
    "ThermometerEncoding",
    "TotalVarMin",
    "VideoCompression",
]
VARIANTS = [  # ART's names for a framework
    name
    for name in {**vars(art), **TOOLS}
    if re.fullmatch(r"[A-Z]\w+(PyTorch|TensorFlow|TensorFlowV2)", name)
]
REQUIRED = {  # positional parameters without a default
    "CutMix": (10,),
    "Cutout": (4,),
    "ImageResize": (6, 5),
    "Mixup": (10,),
    "FeatureSqueezing": ((0, 1),),
    "JpegCompression": ((0, 1),),
    "Mp3Compression": (16000,),
    "Resample": (3, 2),
    "ThermometerEncoding": ((0, 1),),
}


class PixelClassifier(ClassifierMixin, NeuralNetworkMixin):
    """What ART takes for a PixelCNN: a classifier of its own whose last layer scores the levels."""

    def __init__(self, seed=0):
        self.seed = seed

    def get_activations(self, x, layer, batch_size, framework=False):
        assert layer == -1
        rng = np.random.default_rng([self.seed, int(x.astype(float).sum() * 1000)])
        return rng.random((len(x), x[0].size * 256), dtype=np.float32)

    def fit(self, x, y, batch_size, nb_epochs, **kwargs):
        raise NotImplementedError

    predict = fit


KEYWORDS = {"PixelDefend": {"pixel_cnn": PixelClassifier()}, "VideoCompression": {"video_format": "mp4"}}
names = pytest.mark.parametrize("name", NAMES)
seeds = st.integers(0, 2**32 - 1)
oblong = st.tuples(  # N, H, W, C: frames of which no side equals another, so that the layout is clear
    st.integers(1, 3), st.integers(1, 9), st.integers(10, 14), st.integers(1, 4)
)


def of_art(name):
    return TOOLS[name] if name in TOOLS else getattr(art, name)


def both(name, *args, **kwargs):
    """The defence of preshield and that of ART, constructed alike."""
    return getattr(preshield, name)(*args, **kwargs), of_art(name)(*args, **kwargs)


def layout(x, channels_first):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if channels_first else x


# The constructor


def positional(cls):
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return [(p.name, p.default) for p in parameters if p.kind is not p.KEYWORD_ONLY], parameters


@names
def test_positional_parameters_and_defaults_are_those_of_art(name):
    ours, _ = positional(getattr(preshield, name))
    theirs, _ = positional(of_art(name))
    assert ours == theirs


@names
def test_what_we_add_is_keyword_only_and_has_a_default(name):
    _, ours = positional(getattr(preshield, name))
    _, theirs = positional(of_art(name))
    added = [p for p in ours if p.name not in {q.name for q in theirs}]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in added)


@names
def test_parameters_have_the_names_of_art(name):
    theirs = {p.removeprefix("_") for p in of_art(name).params}
    assert theirs <= set(getattr(preshield, name).params)


SAME_DEFAULTS = {"bilinear": 1, "CONSTANT": "constant"}  # as words and as a number, in either case


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_take_the_arguments_of_art(name):
    def arguments(parameters, *kinds):
        return [(p.name, SAME_DEFAULTS.get(str(p.default), p.default)) for p in parameters if p.kind in kinds]

    kind = inspect.Parameter
    ours = inspect.signature(getattr(preshield, name)).parameters.values()
    theirs = inspect.signature(of_art(name)).parameters.values()
    positional = arguments(theirs, kind.POSITIONAL_OR_KEYWORD)
    assert arguments(ours, kind.POSITIONAL_OR_KEYWORD) == positional
    by_name = {name for name, _ in arguments(theirs, kind.KEYWORD_ONLY)}
    assert by_name <= {name for name, _ in arguments(ours, kind.KEYWORD_ONLY)}


def test_no_class_of_art_is_left_undefined():
    namespace = {}
    exec("from preshield import *", namespace)
    classes = {name for name, value in vars(art).items() if isinstance(value, type)} | set(TOOLS)
    assert len(classes) > 30
    assert classes - set(namespace) == set()
    assert {"Mp3CompressionTensorFlowV2"} <= set(namespace)  # which ART lacks


def test_deviation_the_device_is_that_of_the_tensors():
    torch = pytest.importorskip("torch")
    x = torch.rand((1, 5, 5, 1))
    assert art.CutoutPyTorch(3, device_type="cpu").forward(x)[0].shape == x.shape
    for cls in (preshield.CutoutPyTorch, preshield.Cutout):
        with pytest.warns(
            UserWarning, match="`device_type` is ignored, got 'cpu': results lie on the device"
        ):
            ours = cls(3, device_type="cpu")
        assert ours.transform(x).device == x.device
        assert "device_type" not in ours.get_params()


# Feature squeezing


def limits(kind, low, span, shape):
    if kind == "arrays":
        return np.full(shape[-1], low), low + span * np.linspace(1, 2, shape[-1])
    return tuple(
        {"numbers": float, "float64": np.float64, "float32": np.float32}[kind](v) for v in (low, low + span)
    )


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple),
    dtype=st.sampled_from([np.float32, np.float64]),
    kind=st.sampled_from(["numbers", "float64", "float32", "arrays"]),
    low=st.sampled_from([0, -1, 0.25, -100]),
    span=st.sampled_from([1, 2, 3, 255]),
    bit_depth=st.integers(1, 12),
    on_ties=st.booleans(),
    seed=seeds,
)
def test_feature_squeezing(shape, dtype, kind, low, span, bit_depth, on_ties, seed):
    rng = np.random.default_rng(seed)
    x = rng.random(shape)
    if on_ties:
        x = (rng.integers(0, 2**bit_depth, shape) + 0.5) / (2**bit_depth - 1)
    x = (low + span * x).astype(dtype)
    # Limits in one dimension would be one for each sample, which ART takes.
    clip_values = limits("numbers" if len(shape) == 1 else kind, low, span, shape)
    ours, theirs = both("FeatureSqueezing", clip_values, bit_depth)
    assert_allclose(ours.transform(x), theirs(x)[0], rtol=1e-6, atol=1e-6 * (abs(low) + 2 * span))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("bit_depth", [1, 2, 3, 5])
@pytest.mark.parametrize("high", [6, 10, 62, 255])
def test_feature_squeezing_of_integers(dtype, bit_depth, high):
    x = np.arange(high + 1, dtype=dtype)[:, None]
    ours, theirs = both("FeatureSqueezing", (0, high), bit_depth)
    assert_allclose(ours.transform(x), theirs(x)[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["numbers", "float64", "float32", "arrays"])
@pytest.mark.parametrize("bit_depth", range(1, 9))
def test_feature_squeezing_half_way_between_levels(dtype, kind, bit_depth):
    levels = 2**bit_depth - 1
    for low, span in ((0, 1), (0, 3), (-1, 2), (0, 255), (0.25, 7)):
        x = (low + span * (np.arange(levels) + 0.5) / levels).astype(dtype)[:, None]
        clip_values = limits(kind, low, span, x.shape)
        ours, theirs = both("FeatureSqueezing", clip_values, bit_depth)
        assert_allclose(ours.transform(x), theirs(x)[0], rtol=1e-6, atol=1e-6 * span)


def test_deviation_feature_squeezing_limits_are_those_of_a_sample():
    x = np.array([0.2, 0.6, 7.9])
    ours, theirs = both("FeatureSqueezing", (np.zeros(3), np.array([1, 1, 10.0])), 1)
    assert_allclose(theirs(x)[0], [0, 1, 10])
    with pytest.raises(ValueError, match="broadcast against one sample"):
        ours.transform(x)


def test_deviation_feature_squeezing_keeps_single_precision():
    torch = pytest.importorskip("torch")
    ours, theirs = both("FeatureSqueezing", (0, 1), 3)
    x = np.random.default_rng(0).random((2, 4), dtype=np.float32)
    model = torch.nn.Linear(4, 2)
    squeezed = theirs(x)[0]
    assert squeezed.dtype == np.float64
    with pytest.raises(RuntimeError, match="must have the same dtype"):
        model(torch.from_numpy(squeezed))
    squeezed = ours.transform(x)
    assert squeezed.dtype == np.float32
    assert model(torch.from_numpy(squeezed)).shape == (2, 2)


def test_deviation_feature_squeezing_of_integers_below_the_range():
    x = np.array([[5]], dtype=np.uint8)
    ours, theirs = both("FeatureSqueezing", (10, 20), 1)
    assert theirs(x)[0] == 260  # 5 - 10 wraps to 251
    assert ours.transform(x) == 10  # half-way between the levels 0 and 10, numbers -1 and 0: to the even one


def test_deviation_lists_as_limits():
    ours, theirs = both("FeatureSqueezing", ([0, 0], [1, 255]), 1)
    x = np.array([[0.7, 200.0]])
    with pytest.raises(TypeError, match="unsupported operand"):
        theirs(x)
    assert_array_equal(ours.transform(x), [[1, 255]])


# Gaussian augmentation


@settings(max_examples=20, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple),
    ratio=st.floats(0.01, 4),
    seed=seeds,
)
def test_gaussian_augmentation_without_noise(shape, ratio, seed):
    x = np.random.default_rng(seed).random(shape, dtype=np.float32)
    y = np.arange(len(x))
    ours, theirs = both("GaussianAugmentation", 0.0, True, ratio)
    if len(shape) == 1:  # ART's vstack wants two axes
        x = x[:, None]
    for out, labels in (ours(x, y), theirs(x, y)):
        assert out.dtype == np.float32
        assert len(out) == len(labels) == len(x) + int(len(x) * ratio)
        assert_array_equal(out, x[labels])
        assert_array_equal(labels[: len(y)], y)


@pytest.mark.parametrize("clip_values", [None, (-1, 2)])
def test_gaussian_augmentation_has_the_same_distribution(clip_values):
    from scipy.stats import ks_2samp

    x = np.full((200, 100), 0.5, dtype=np.float32)
    ours, theirs = both("GaussianAugmentation", 1.5, False, clip_values=clip_values)
    a, b = ours.transform(x).ravel(), theirs(x)[0].ravel()
    # the two-sample statistic exceeds 2.23 * sqrt(2 / n) with a probability of 1e-4
    assert ks_2samp(a, b, method="asymp").statistic < 2.23 * np.sqrt(2 / x.size)
    assert a.dtype == b.dtype


def test_deviation_gaussian_augmentation_is_single_precision():
    x = np.zeros((2, 3))
    ours, theirs = both("GaussianAugmentation")
    assert theirs(x)[0].dtype == np.float64
    assert ours.transform(x).dtype == np.float32
    ours, theirs = both("GaussianAugmentation", augmentation=False, clip_values=(np.zeros(3), np.ones(3)))
    x = x.astype(np.float32)
    assert theirs(x)[0].dtype == np.float64
    assert ours.transform(x).dtype == np.float32


def test_deviation_gaussian_augmentation_sums_the_gradients_of_copies():
    ours, theirs = both("GaussianAugmentation")
    x, grad = np.zeros((2, 3)), np.ones((4, 3))
    assert theirs.estimate_gradient(x, grad).shape == (4, 3)
    assert ours.estimate_gradient(x, grad).shape == (2, 3)
    assert ours.estimate_gradient(x, grad).sum() == 12


def test_deviation_gaussian_augmentation_appends_nothing_in_prediction():
    x = np.zeros((2, 3))
    assert len(art.GaussianAugmentation(apply_predict=True)(x)[0]) == 4
    with pytest.raises(ValueError, match="`apply_predict` must be False with augmentation=True"):
        preshield.GaussianAugmentation(apply_predict=True)


def test_deviation_labels_are_one_for_each_sample():
    x, y = np.zeros((4, 2)), np.arange(9)
    assert [len(part) for part in art.GaussianAugmentation()(x, y)] == [8, 13]
    with pytest.raises(ValueError, match="`y` must have one label for each of the 4 samples"):
        preshield.GaussianAugmentation()(x, y)


# JPEG


@settings(max_examples=30, deadline=None)
@given(
    shape=oblong,
    frames=st.one_of(st.none(), st.integers(1, 3)),
    channels_first=st.booleans(),
    quality=st.integers(1, 100),
    dtype=st.sampled_from([np.uint8, np.int64, np.float32, np.float64]),
    seed=seeds,
)
def test_jpeg_bit_for_bit(shape, frames, channels_first, quality, dtype, seed):
    shape = shape if frames is None else (shape[0], frames, *shape[1:])
    x = layout(np.random.default_rng(seed).integers(0, 256, shape), channels_first)
    ours, theirs = both("JpegCompression", (0, 255), quality, channels_first)
    out, expected = ours.transform(x.astype(dtype)), theirs(x.astype(dtype))[0]
    assert out.dtype == expected.dtype
    assert_array_equal(out, expected)
    # a quarter above the level, truncation and rounding agree
    ours, theirs = both("JpegCompression", (0, 1), quality, channels_first)
    x = np.minimum((x + 0.25) / 255, 1)
    assert_array_equal(ours.transform(x), theirs(x)[0])


@pytest.mark.parametrize(
    ("x", "scale", "level", "arts"),
    [
        (0.5, 1, 128, 127),  # 127.5: truncated by ART
        (1.2, 1, 255, 50),  # 306 - 256: wrapped by ART, 0.196
        (300, 255, 255, 44),
        (254.9, 255, 255, 254),
    ],
)
def test_deviation_jpeg_rounds_and_saturates(x, scale, level, arts):
    x = np.full((1, 8, 8, 1), x)
    ours, theirs = both("JpegCompression", (0, scale), 100)
    assert_allclose(theirs(x)[0] * (255 / scale), arts, rtol=1e-6)
    assert_allclose(ours.transform(x) * (255 / scale), level, rtol=1e-6)


def test_deviation_jpeg_of_integers_above_one_saturates():
    x = np.full((1, 8, 8, 1), 2, dtype=np.uint8)
    ours, theirs = both("JpegCompression", (0, 1), 100)
    assert_allclose(theirs(x)[0], 254 / 255, rtol=1e-6)  # 2 * 255 wraps
    assert_array_equal(ours.transform(x), 1)


def test_deviation_jpeg_refuses_nan():
    x = np.full((1, 8, 8, 1), np.nan)
    ours, theirs = both("JpegCompression", (0, 1), 100)
    with pytest.warns(RuntimeWarning, match="invalid value encountered in cast"):
        assert theirs(x)[0].max() == 0
    with pytest.raises(ValueError, match="`x` must be finite, got 64 NaN"):
        ours.transform(x)


def test_deviation_jpeg_of_an_empty_batch():
    x = np.zeros((0, 8, 8, 3))
    ours, theirs = both("JpegCompression", (0, 1))
    with pytest.raises(ValueError, match="zero-size array"):
        theirs(x)
    assert ours.transform(x).shape == x.shape


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("JpegCompression", ((0, 1),)),
        ("SpatialSmoothing", ()),
        ("ThermometerEncoding", ((0, 1),)),
        ("TotalVarMin", ()),
    ],
)
def test_deviation_the_other_layout_is_noticed(name, args):
    for shape in ((1, 3, 8, 8), (1, 3, 16, 20), (1, 4, 16, 16), (1, 1, 20, 16)):
        x = np.random.default_rng(0).random(shape)
        ours, theirs = both(name, *args)
        assert (
            theirs(x.copy())[0].shape[:3] == shape[:3]
        )  # taken for pictures of 1 to 4 rows and many channels
        with pytest.raises(ValueError, match=r"has its channels first, .*pass channels_first=True"):
            ours.transform(x)


# Labels


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 20),
    classes=st.integers(2, 12),
    max_value=st.floats(0.5, 1),
    dtype=st.sampled_from([np.float32, np.float64]),
    soft=st.booleans(),
    seed=seeds,
)
def test_label_smoothing_bit_for_bit(n, classes, max_value, dtype, soft, seed):
    rng = np.random.default_rng(seed)
    y = np.eye(classes)[rng.integers(0, classes, n)].astype(dtype)
    if soft:
        y[::2] = rng.dirichlet(np.ones(classes), len(y[::2]))
    ours, theirs = both("LabelSmoothing", max_value)
    out, expected = ours(y, y)[1], theirs(y, y)[1]
    assert out.dtype == expected.dtype
    assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", [int, np.uint8])
def test_deviation_integer_one_hot_labels(dtype):
    y = np.eye(3, dtype=dtype)
    ours, theirs = both("LabelSmoothing", 0.8)
    assert_array_equal(theirs(y, y)[1], np.zeros((3, 3)))
    assert_allclose(ours(y, y)[1], 0.1 + 0.7 * np.eye(3), rtol=1e-6)


def test_deviation_boolean_one_hot_labels():
    y = np.eye(2, dtype=bool)
    ours, theirs = both("LabelSmoothing")
    assert_array_equal(theirs(y, y)[1], np.ones((2, 2), bool))
    assert_allclose(ours(y, y)[1], [[0.9, 0.1], [0.1, 0.9]], rtol=1e-6)


def test_deviation_class_indices():
    y = np.array([1, 0])
    with pytest.raises(IndexError, match="out of range"):
        art.LabelSmoothing()(y, y)
    assert_allclose(preshield.LabelSmoothing(num_classes=2)(y, y)[1], [[0.1, 0.9], [0.9, 0.1]], rtol=1e-6)


def test_deviation_labels_that_cannot_be_smoothed_are_refused_in_words():
    ours, theirs = both("LabelSmoothing", 0.2)
    with pytest.raises(AssertionError, match=r"^$"):
        theirs(None, np.eye(3))
    with pytest.raises(ValueError, match="`max_value` must be at least 1 / classes"):
        ours(np.eye(3), np.eye(3))
    ours, theirs = both("LabelSmoothing")
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        theirs(None, np.ones((2, 1)))
    with pytest.raises(ValueError, match="`y` must have at least two classes"):
        ours(np.ones((2, 1)), np.ones((2, 1)))
    y = np.array([[np.nan, 1]])
    assert np.isnan(theirs(None, y)[1]).any()
    with pytest.raises(ValueError, match="`y` must be finite, got 1 NaN"):
        ours(y, y)


# Median


@settings(max_examples=30, deadline=None)
@given(
    shape=oblong,
    frames=st.one_of(st.none(), st.integers(1, 3)),
    channels_first=st.booleans(),
    window_size=st.integers(1, 8),
    clip=st.sampled_from([None, (20, 60)]),
    dtype=st.sampled_from([np.uint8, np.int32, np.int64, np.float32, np.float64]),
    seed=seeds,
)
def test_spatial_smoothing_bit_for_bit(shape, frames, channels_first, window_size, clip, dtype, seed):
    shape = shape if frames is None else (shape[0], frames, *shape[1:])
    x = layout(np.random.default_rng(seed).integers(0, 90, shape).astype(dtype), channels_first)
    ours, theirs = both("SpatialSmoothing", window_size, channels_first, clip)
    out, expected = ours.transform(x), theirs(x)[0]
    assert out.dtype == expected.dtype
    assert_array_equal(out, expected)


def test_deviation_one_median_for_every_framework():
    tensorflow = pytest.importorskip("art.defences.preprocessor.spatial_smoothing_tensorflow")
    pytest.importorskip("tensorflow")
    other = tensorflow.SpatialSmoothingTensorFlowV2
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    ours, theirs = both("SpatialSmoothing", 3)
    assert_array_equal(theirs(x)[0].ravel(), [2, 3, 3, 4, 5, 6, 7, 7, 8])
    # the edge is left out of the reflection: the first window is [[5, 4, 5], [2, 1, 2], [5, 4, 5]]
    assert_array_equal(other(3)(x)[0].ravel(), [4, 4, 5, 5, 5, 5, 5, 6, 6])
    assert_array_equal(ours.transform(x).ravel(), [2, 3, 3, 4, 5, 6, 7, 7, 8])
    with pytest.raises(ValueError, match="filter_size must be an odd integer"):
        other(2)(x)
    with pytest.raises(AttributeError, match="clip_by_value"):
        other(3, clip_values=(0, 1))(x)
    import tensorflow as tf

    for parameters in ({"window_size": 2}, {"clip_values": (2, 5)}):
        ours = preshield.SpatialSmoothing(**parameters)
        assert_array_equal(ours.transform(tf.constant(x)).numpy(), ours.transform(x))


def test_deviation_half_precision_medians():
    x = np.arange(9, dtype=np.float16).reshape(1, 3, 3, 1)
    ours, theirs = both("SpatialSmoothing")
    with pytest.raises(RuntimeError, match="array type not supported"):
        theirs(x)
    assert_array_equal(ours.transform(x), theirs(x.astype(np.float32))[0])


def test_deviation_integers_with_limits_that_are_not():
    x = np.full((1, 3, 3, 1), 3, dtype=np.uint8)
    for name, args in (
        ("SpatialSmoothing", (3, False, (0.0, 2.0))),
        ("ThermometerEncoding", ((0.0, 2.0), 2)),
    ):
        ours, theirs = both(name, *args)
        with pytest.raises(TypeError, match="Cannot cast ufunc 'clip'"):
            theirs(x.copy())
        assert ours.transform(x).max() == (2 if name == "SpatialSmoothing" else 1)


def test_deviation_medians_of_integers_with_limits_outside_their_dtype():
    x = np.zeros((1, 3, 3, 1), dtype=np.int8)
    ours, theirs = both("SpatialSmoothing", 3, False, (-300, -200))
    with pytest.raises(OverflowError, match="out of bounds for int8"):
        theirs(x)
    assert ours.transform(x).max() == -128


def test_deviation_medians_of_large_integers():
    x = np.full((1, 3, 3, 1), 2**62 + 1)
    ours, theirs = both("SpatialSmoothing", 2)
    assert theirs(x)[0].max() == 2**62  # through double precision
    assert_array_equal(ours.transform(x), x)


def test_deviation_medians_of_nan():
    x = np.full((1, 3, 3, 1), np.nan)
    ours, theirs = both("SpatialSmoothing")
    assert np.isnan(theirs(x)[0]).all()
    with pytest.raises(ValueError, match="`x` must be finite, got 9 NaN"):
        ours.transform(x)


# Thermometer code


@settings(max_examples=30, deadline=None)
@given(
    shape=st.one_of(st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple), oblong),
    frames=st.integers(0, 2),
    channels_first=st.booleans(),
    num_space=st.integers(1, 15),
    clip=st.sampled_from(
        [(0, 1), (0, 255), (-1.5, 2.25), (np.float64(0), np.float64(7)), (np.float32(0), np.float32(1))]
    ),
    dtype=st.sampled_from([np.float32, np.float64]),
    on_levels=st.booleans(),
    seed=seeds,
)
def test_thermometer_bit_for_bit(shape, frames, channels_first, num_space, clip, dtype, on_levels, seed):
    rng = np.random.default_rng(seed)
    if frames and len(shape) == 4:
        shape = (shape[0], frames, *shape[1:])
    position = (
        rng.integers(0, num_space + 1, shape) / num_space if on_levels else rng.uniform(-0.2, 1.2, shape)
    )
    x = layout((clip[0] + (clip[1] - clip[0]) * position).astype(dtype), channels_first)
    ours, theirs = both("ThermometerEncoding", clip, num_space, channels_first)
    out, expected = ours.transform(x), theirs(x.copy())[0]
    assert out.dtype == expected.dtype
    assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("num_space", [1, 3, 5, 10, 17])
def test_thermometer_of_integers_bit_for_bit(dtype, num_space):
    x = np.arange(256, dtype=dtype).reshape(-1, 1)
    ours, theirs = both("ThermometerEncoding", (0, 255), num_space)
    assert_array_equal(ours.transform(x), theirs(x.copy())[0])


@settings(max_examples=20, deadline=None)
@given(shape=oblong, channels_first=st.booleans(), num_space=st.integers(1, 12), seed=seeds)
def test_thermometer_gradient_for_the_unit_range(shape, channels_first, num_space, seed):
    rng = np.random.default_rng(seed)
    x = layout(rng.random(shape), channels_first)
    grad = layout(rng.normal(size=(*shape[:-1], shape[-1] * num_space)), channels_first)
    ours, theirs = both("ThermometerEncoding", (0, 1), num_space, channels_first)
    assert_allclose(
        ours.estimate_gradient(x, grad), theirs.estimate_gradient(x, grad), rtol=1e-12, atol=1e-12
    )


def test_deviation_thermometer_does_not_write_into_the_callers_array():
    ours, theirs = both("ThermometerEncoding", (0, 1))
    x = np.array([[1.5, -1.0]])
    ours.transform(x)
    assert_array_equal(x, [[1.5, -1.0]])
    theirs(x)
    assert_array_equal(x, [[1.0, 0.0]])
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        theirs(x)
    assert ours.transform(x).shape == (1, 20)


def test_deviation_thermometer_needs_an_axis_of_channels():
    ours, theirs = both("ThermometerEncoding", (0, 1), 3)
    x = np.array([0.2, 0.5, 0.9])
    assert theirs(x.copy())[0].shape == (9,)  # nine samples of three, for three labels
    with pytest.raises(ValueError, match=r"must have an axis of channels, got shape \(3,\).*x\[:, None\]"):
        ours.transform(x)
    assert_array_equal(ours.transform(x[:, None]).ravel(), theirs(x)[0])


def test_deviation_thermometer_gradient_knows_the_range():
    ours, theirs = both("ThermometerEncoding", (0, 255), 4)
    x, grad = np.array([[102.0]]), np.array([[1.0, 2, 3, 4]])
    # 102 is 0.4 of the range: above the levels 0 and 0.25 alone
    assert_allclose(ours.estimate_gradient(x, grad), (1 + 2) / 255)
    assert_allclose(theirs.estimate_gradient(x, grad), (1 + 2 + 3 + 4) / 255)


def test_deviation_thermometer_gradient_for_classes():
    ours, theirs = both("ThermometerEncoding", (0, 1), 4)
    x, grad = np.random.default_rng(0).random((2, 3)), np.ones((2, 5, 12))
    with pytest.raises(ValueError, match="could not be broadcast together"):
        theirs.estimate_gradient(x, grad)
    out = ours.estimate_gradient(x, grad)
    for k in range(5):
        assert_allclose(out[:, k], theirs.estimate_gradient(x, grad[:, k]))


def test_deviation_thermometer_limits_for_each_channel():
    limits = (np.zeros(2), np.array([1, 255]))
    with pytest.raises(ValueError, match="truth value of an array"):
        art.ThermometerEncoding(limits, 2)
    out = preshield.ThermometerEncoding(limits, 2).transform(np.array([[0.6, 0.6]]))
    assert_array_equal(out, [[1, 1, 1, 0]])


# PixelDefend


@settings(max_examples=15, deadline=None)
@given(shape=oblong, channels_first=st.booleans(), eps=st.integers(0, 60), seed=seeds)
def test_pixel_defend_in_one_pass(shape, channels_first, eps, seed):
    # ART truncates to 8 bits and, under NumPy 2, wraps where the reach leaves the range: keep clear of both.
    x = np.random.default_rng(seed).integers(eps, 255 - eps, (shape[0], shape[1] // 2 + 1, 4, shape[3]))
    x = layout(((x + 0.25) / 255).astype(np.float32), channels_first)
    ours = preshield.PixelDefend(
        (0.0, 1.0), eps, PixelClassifier(seed), decoding="one-pass", channels_first=channels_first
    )
    theirs = art.PixelDefend((0.0, 1.0), eps, PixelClassifier(seed))
    out, labels = theirs(x)
    assert labels is None
    assert_array_equal(ours.transform(x), out)
    assert ours.transform(x).dtype == out.dtype == np.float32


@settings(max_examples=10, deadline=None)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 9)), eps=st.integers(0, 60), seed=seeds)
def test_pixel_defend_of_feature_vectors(shape, eps, seed):
    x = ((np.random.default_rng(seed).integers(eps, 255 - eps, shape) + 0.25) / 255).astype(np.float32)
    ours, theirs = both("PixelDefend", (0.0, 1.0), eps, PixelClassifier(seed))
    out = theirs(x)[0]
    assert out.shape == shape
    assert_array_equal(ours.set_params(decoding="one-pass").transform(x), out)


def test_deviation_pixel_defend_takes_images_and_feature_vectors():
    ours, theirs = both("PixelDefend", (0.0, 1.0), 0, PixelClassifier())
    for shape in ((2, 3, 4), (1, 2, 2, 3, 1)):
        x = np.full(shape, 0.5, np.float32)
        assert theirs(x)[0].shape == shape
        with pytest.raises(ValueError, match=r"images \(NHWC\) or of feature vectors \(N, D\), got"):
            ours.transform(x)


@pytest.mark.filterwarnings("ignore:overflow encountered in scalar:RuntimeWarning")
@pytest.mark.parametrize("level", [0, 10, 250, 255])
def test_deviation_pixel_defend_of_dark_and_bright_pixels(level):
    x = np.full((1, 2, 3, 1), level / 255, dtype=np.float32)
    ours, theirs = both("PixelDefend", pixel_cnn=PixelClassifier())
    with pytest.raises(OverflowError, match="-1 out of bounds for uint8"):  # 10 - 16 wraps to 250
        theirs(x)
    assert np.abs(255 * ours.set_params(decoding="one-pass").transform(x) - level).max() < 16.5


def test_deviation_pixel_defend_rounds_and_saturates():
    x = np.array([99.9 / 255, 1.2], dtype=np.float32).reshape(1, 1, 2, 1)
    ours, theirs = both("PixelDefend", eps=0, pixel_cnn=PixelClassifier())
    assert_allclose(255 * theirs(x)[0].ravel(), [99, 50], rtol=1e-6)  # 306 wraps to 50
    assert_allclose(255 * ours.transform(x).ravel(), [100, 255], rtol=1e-6)


def test_deviation_pixel_defend_decodes_one_value_after_the_other():
    class Previous(PixelClassifier):
        """Each value is probably the one before it."""

        def get_activations(self, x, layer, batch_size, framework=False):
            before = np.pad(255 * x.reshape(len(x), -1), ((0, 0), (1, 0)))[:, :-1]
            return 1 / (1 + np.abs(before[..., None] - np.arange(256))).reshape(len(x), -1)

    x = np.array([20.2, 30.2, 40.2], dtype=np.float32).reshape(1, 1, 3, 1) / 255
    ours, theirs = both("PixelDefend", pixel_cnn=Previous())
    assert_allclose(255 * theirs(x)[0].ravel(), [4, 20, 30], rtol=1e-6)
    assert_allclose(255 * ours.transform(x).ravel(), [4, 14, 24], rtol=1e-6)


def test_deviation_pixel_defend_trains_its_default_model():
    pytest.importorskip("tensorflow")
    with pytest.raises(TypeError, match="PixelCNN model must be of type Classifier"):
        art.PixelDefend()
    x = np.full((4, 2, 2, 1), 0.2)
    ours = preshield.PixelDefend(pixel_cnn=preshield.PixelCNN(2, 0)).fit(x, epochs=1)
    assert np.abs(ours.transform(x) - x).max() <= 16.5 / 255


def test_deviation_pixel_defend_on_other_ranges():
    with pytest.raises(ValueError, match="max value must be 1"):
        art.PixelDefend((0, 255), pixel_cnn=PixelClassifier())
    x = np.array([3.0, 255]).reshape(1, 1, 2, 1)
    assert_array_equal(preshield.PixelDefend((0, 255), 0, PixelClassifier()).transform(x), x)


def test_deviation_pixel_defend_refuses_nan():
    class Even(PixelClassifier):
        def get_activations(self, x, layer, batch_size, framework=False):
            return np.ones((len(x), x[0].size * 256))

    ours, theirs = both("PixelDefend", eps=0, pixel_cnn=Even())
    x = np.full((1, 1, 2, 1), np.nan, dtype=np.float32)
    with pytest.warns(RuntimeWarning, match="invalid value encountered in cast"):
        assert_array_equal(theirs(x)[0], 0)
    with pytest.raises(ValueError, match="`x` must be finite, got 2 NaN"):
        ours.transform(x)


# Total variance minimisation


def photograph_crops(seed, n, size):
    """Grey crops of photographs in [0, 1], and masks."""
    data = pytest.importorskip("skimage.data")
    rng = np.random.default_rng(seed)
    pictures = [data.astronaut(), data.coffee(), data.chelsea()]
    crops = []
    for k in range(n):
        picture = pictures[k % 3]
        row, column = (rng.integers(0, side - size + 1) for side in picture.shape[:2])
        crops.append(picture[row : row + size, column : column + size, rng.integers(3)] / 255)
    return np.array(crops), rng.random((n, size, size)) < 0.3


def arts_loss(z, x, mask, norm=2, lamb=0.5):
    return art.TotalVarMin._loss_func(z.ravel(), x, mask.astype(int), norm, lamb)


def objectives(x, masks, norm, solver, max_iter):
    """ART's own objective where preshield ends and where ART ends."""
    ours, theirs = both("TotalVarMin", norm=norm, solver=solver, max_iter=max_iter)
    smooth = ours._smooth(x, masks)
    a = [arts_loss(z, *plane, norm) for z, *plane in zip(smooth, x, masks, strict=True)]
    b = []
    for plane, mask in zip(x, masks, strict=True):
        z = theirs._minimize(plane[..., None], mask[..., None].astype(int))
        b.append(arts_loss(z[..., 0], plane, mask, norm))
    return np.mean(a), np.mean(b)


@settings(max_examples=20, deadline=None)
@given(
    norm=st.integers(1, 4),
    lamb=st.floats(0, 3),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    seed=seeds,
)
def test_total_variation_is_arts_objective(norm, lamb, height, width, seed):
    from preshield._core.kernels.total_variation import total_variation

    rng = np.random.default_rng(seed)
    z, x = rng.normal(size=(2, 1, height, width))
    mask = rng.random((1, height, width)) < 0.5
    value, grad = np.empty(1), np.empty_like(z)
    total_variation(value, grad, z, x, mask, norm, lamb)
    assert_allclose(value[0], arts_loss(z[0], x[0], mask[0], norm, lamb), rtol=1e-12)


@pytest.mark.parametrize("norm", [1, 2, 3])
@pytest.mark.parametrize("solver", ["L-BFGS-B", "CG"])
@pytest.mark.parametrize("size", [24, 32])
def test_total_var_min_ends_no_higher_than_art(solver, norm, size):
    x, masks = photograph_crops(norm, 36, size)
    ours, theirs = objectives(x, masks, norm, solver, 10)
    assert ours <= theirs


@pytest.mark.parametrize("norm", [1, 2, 3])
def test_total_var_min_by_newton_ends_no_higher_than_art(norm):
    x, masks = photograph_crops(norm, 6, 8)
    ours, theirs = objectives(x, masks, norm, "Newton-CG", 5)
    assert ours <= theirs


@pytest.mark.parametrize(("norm", "factor"), [(2, 2), (3, None)])
def test_deviation_total_var_min_follows_the_true_gradient(norm, factor):
    from preshield._core.kernels.total_variation import total_variation

    rng = np.random.default_rng(0)
    z, x = rng.normal(size=(2, 5, 6))
    mask = np.zeros((5, 6), dtype=int)  # the total variation alone
    expected = np.empty(z.size)
    for k in range(z.size):
        h = 1e-6 * np.eye(z.size)[k].reshape(z.shape)
        expected[k] = (arts_loss(z + h, x, mask, norm) - arts_loss(z - h, x, mask, norm)) / 2e-6
    value, grad = np.empty(1), np.empty((1, 5, 6))
    total_variation(value, grad, z[None], x[None], mask[None].astype(bool), norm, 0.5)
    assert_allclose(grad.ravel(), expected, rtol=1e-6, atol=1e-8)
    theirs = art.TotalVarMin._deri_loss_func(z.ravel(), x, mask, norm, 0.5)
    if factor:
        assert_allclose(theirs, factor * expected, rtol=1e-6, atol=1e-8)
    else:  # not even parallel: the differences are squared without their sign
        cosine = theirs @ expected / np.linalg.norm(theirs) / np.linalg.norm(expected)
        assert cosine < 0.9


def test_deviation_total_var_min_of_integers_is_not_rounded():
    x = np.random.default_rng(0).integers(0, 2, (1, 8, 8, 1), dtype=np.uint8)
    ours, theirs = both("TotalVarMin")
    smoothed = theirs(x)[0]
    assert smoothed.dtype == np.float32
    assert_array_equal(smoothed, np.trunc(smoothed))  # the result went through uint8
    out = ours.transform(x)
    assert (out != np.trunc(out)).any()


def test_deviation_total_var_min_takes_images_and_videos():
    ours, theirs = both("TotalVarMin", max_iter=1)
    x = np.random.default_rng(0).random((1, 4, 5, 2, 3, 2))
    assert theirs(x)[0].shape == x.shape  # differences along axes 1 and 2 alone, norms of all that follows
    with pytest.raises(ValueError, match=r"`x` must be a .* got shape \(1, 4, 5, 2, 3, 2\)"):
        ours.transform(x)


def test_deviation_total_var_min_of_videos():
    video = np.zeros((1, 2, 6, 7, 1))
    video[:, 1] = 1  # two constant frames
    ours, theirs = both("TotalVarMin", 1.0, lamb=5.0)
    assert_array_equal(ours.transform(video), video)
    assert (np.abs(theirs(video)[0] - video) > 0.1).any()  # one frame leaks into the other


# Resampling


@settings(max_examples=30, deadline=None)
@given(
    rates=st.tuples(st.integers(1, 60), st.integers(1, 60))
    | st.sampled_from([(16000, 8000), (16000, 22050), (44100, 16000), (44100, 44101)]),
    shape=st.tuples(st.integers(1, 3), st.integers(60, 2000), st.integers(1, 3)),
    channels_first=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64, np.int16]),
    seed=seeds,
)
def test_resample(rates, shape, channels_first, dtype, seed):
    scale = 32767 if dtype is np.int16 else 1
    x = (scale * np.random.default_rng(seed).uniform(-1, 1, shape)).astype(dtype)
    x = layout(x, channels_first)
    ours, theirs = both("Resample", *rates, channels_first)
    out, expected = ours.transform(x), theirs(x)[0]
    assert out.shape == expected.shape
    assert_allclose(out, expected, rtol=0, atol=1e-5 * scale)


def test_deviation_resample_pulls_the_gradient_back():
    x = np.random.default_rng(0).random((1, 60, 1))
    ours, theirs = both("Resample", 3, 2)
    grad = np.random.default_rng(1).random((1, 40, 1))
    assert theirs.estimate_gradient(x, grad).shape == (1, 40, 1)  # not that of `x`
    pulled = ours.estimate_gradient(x, grad)
    assert pulled.shape == x.shape
    assert_allclose((pulled * x).sum(), (grad * theirs(x)[0]).sum(), rtol=1e-6)


def test_deviation_resample_without_channels_and_of_different_lengths():
    x = np.random.default_rng(0).random((1, 60, 1))
    ours, theirs = both("Resample", 3, 2)
    ragged = np.empty(2, dtype=object)
    ragged[:] = x[0], x[0, :30, 0]
    for batch in (x[..., 0], ragged):
        with pytest.raises(ValueError, match="can only be applied to temporal data across at least one chan"):
            theirs(batch)
    assert_allclose(ours.transform(x[..., 0])[..., None], theirs(x)[0], rtol=0, atol=1e-6)
    assert [len(sample) for sample in ours.transform(ragged)] == [40, 20]


def test_deviation_resample_of_channels_in_place_of_time():
    x = np.random.default_rng(0).random((1, 2, 600))
    ours, theirs = both("Resample", 2, 1)
    assert theirs(x.copy())[0].shape == (1, 1, 600)
    with pytest.raises(ValueError, match=r"must have time along axis 1 .*; pass channels_first=True\.$"):
        ours.transform(x)
    assert preshield.Resample(2, 1, channels_first=True).transform(x).shape == (1, 2, 300)


def test_deviation_resample_refuses_nan():
    x = np.zeros((1, 60, 1))
    x[0, 5] = np.nan
    ours, theirs = both("Resample", 3, 2)
    assert np.isnan(theirs(x)[0]).all()
    with pytest.raises(ValueError, match="`x` must be finite, got 1 NaN"):
        ours.transform(x)


def test_deviation_resample_by_more_than_resampy_can():
    x = np.ones((1, 60000, 1))
    assert_array_equal(art.Resample(600, 1)(x)[0], 0)
    with pytest.raises(ValueError, match="`sr_new` must be 512 times `sr_original` at most"):
        preshield.Resample(600, 1)


@pytest.mark.parametrize("dtype", [bool, ">f4", np.longdouble])
def test_deviation_resample_of_other_dtypes(dtype):
    x = (np.random.default_rng(0).random((1, 60, 1)) > 0.5).astype(dtype)
    ours, theirs = both("Resample", 3, 2)
    with pytest.raises((TypeError, NumbaError), match=r"Cannot cast|Unsupported array dtype"):
        theirs(x)
    assert_allclose(ours.transform(x), theirs(x.astype(float))[0], rtol=0, atol=1e-6)


def test_deviation_resample_of_integers_at_the_same_rate():
    x = np.arange(6, dtype=np.int16).reshape(1, 6, 1)
    ours, theirs = both("Resample", 3, 3)
    assert theirs(x)[0].dtype == np.int16  # `float32` at any other rate
    assert ours.transform(x).dtype == np.float32
    assert_array_equal(ours.transform(x), x)


# MP3. ART runs the programs ffmpeg and ffprobe


@pytest.fixture(scope="module")
def programs():
    """What ART's MP3 compression needs, with the version of LAME that PyAV has, so that results are equal."""
    missing = [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]
    missing += [name for name in ("pydub", "imageio_ffmpeg") if find_spec(name) is None]
    if missing:
        pytest.skip(f"ART's MP3 compression needs {' and '.join(missing)}")
    mp3_pydub._pydub()  # importing it warns


@pytest.fixture(scope="module")
def same_lame(programs):
    """Skip where the program ffmpeg has another version of LAME, which decides otherwise."""
    x = np.zeros((44100, 1), np.int16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ffmpeg, "executable", lambda: shutil.which("ffmpeg"))
        encoded = [codec.encode(x, 44100) for codec in (mp3, mp3_pydub)]
    ours, theirs = (re.search(rb"LAME\d\.\d+", stream).group() for stream in encoded)
    if ours != theirs:
        pytest.skip(f"PyAV has {ours.decode()}, ffmpeg {theirs.decode()}")


def recordings(rate, channels, dtype):
    """A tone in noise and a quieter one, half a second, in the scale that is usual for the dtype."""
    rng = np.random.default_rng(rate)
    wave = np.sin(np.arange(rate // 2)[:, None] / rate * 2 * np.pi * np.array([440.0, 600.0])[:channels])
    x = np.stack([0.5 * wave, 0.1 * wave]) + rng.uniform(-0.1, 0.1, (2, rate // 2, channels))
    return (x * 32768).astype(dtype) if np.dtype(dtype).kind == "i" else x.astype(dtype)


@pytest.mark.usefixtures("same_lame")
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_mp3(rate, channels, dtype):
    x = recordings(rate, channels, dtype)
    ours, theirs = both("Mp3Compression", rate)
    expected = theirs(x)[0]
    out = ours.transform(x)
    assert out.dtype == expected.dtype == dtype
    step = 1 if dtype == np.int16 else 1 / 32768
    assert np.abs(out.astype(float) - expected).max() <= step


@pytest.mark.usefixtures("same_lame")
@pytest.mark.parametrize("channels_first", [False, True])
def test_mp3_of_different_lengths_and_layouts(channels_first):
    stereo = recordings(16000, 2, np.float32)[0][:5000]
    x = np.empty(3, dtype=object)
    x[:] = recordings(16000, 1, np.float32)[0, :3000, 0], stereo.T if channels_first else stereo, np.zeros(40)
    ours, theirs = both("Mp3Compression", 16000, channels_first)
    for out, expected in zip(ours.transform(x), theirs(x)[0], strict=True):
        assert out.dtype == expected.dtype
        assert_allclose(out, expected, rtol=0, atol=1 / 32768)
    batch = np.stack([x[1], x[1]])
    assert_allclose(ours.transform(batch), theirs(batch)[0], rtol=0, atol=1 / 32768)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    ("value", "dtype", "arts"), [(1, "f4", -0.95), (40000, "f4", -24262), (40000, "i4", -24262)]
)
def test_deviation_mp3_saturates(value, dtype, arts):
    x = np.full((1, 4000, 1), value, dtype)
    ours, theirs = both("Mp3Compression", 16000)
    assert_allclose(theirs(x)[0][0, 1000:3000], arts, rtol=0.01)  # LAME turns the level down by 5%
    assert_allclose(ours.transform(x)[0, 1000:3000], 0.95 if value == 1 else 0.95 * 32767, rtol=0.01)


def test_deviation_mp3_needs_no_program(monkeypatch):
    if find_spec("pydub") is None:
        pytest.skip("ART's MP3 compression needs pydub")
    mp3_pydub._pydub()
    monkeypatch.setenv("PATH", "")
    x = recordings(16000, 1, np.float32)
    ours, theirs = both("Mp3Compression", 16000)
    with pytest.raises(FileNotFoundError, match=r"ffmpeg|ffprobe|avconv"):
        theirs(x)
    assert ours.transform(x).shape == x.shape


@pytest.mark.usefixtures("programs")
def test_deviation_mp3_one_value_beyond_the_range():
    x = recordings(16000, 1, np.float64)
    x[:, 4000] = 1.0014
    ours, theirs = both("Mp3Compression", 16000)
    assert np.abs(theirs(x)[0] - x).mean() > 0.9 * np.abs(x).mean()  # all but the one value are cut off to 0
    with pytest.warns(UserWarning, match=r"taken for audio in \[-1, 1\].* pass full_scale=1\.0"):
        out = ours.transform(x)
    assert_array_equal(out, ours.set_params(full_scale=1.0).transform(x))
    assert np.abs(out - 0.95 * x).mean() < 0.2 * np.abs(x).mean()


@pytest.mark.usefixtures("programs")
def test_deviation_mp3_of_quiet_integers():
    x = (np.arange(3000) // 50 % 2).astype(np.int16).reshape(1, 3000, 1)
    ours, theirs = both("Mp3Compression", 16000)
    assert not theirs(x)[0].any()
    assert ours.transform(x).any()


@pytest.mark.usefixtures("programs")
def test_deviation_mp3_without_an_axis_of_channels():
    x = np.ones((1, 3000))
    ours, theirs = both("Mp3Compression", 16000)
    with pytest.raises(OverflowError, match="32768 out of bounds for int16"):
        theirs(x)
    assert_allclose(ours.transform(x)[0, 1000:2000], 0.95, rtol=0.01)


@pytest.mark.usefixtures("programs")
def test_deviation_mp3_refuses_rates_that_it_lacks():
    x = recordings(16000, 1, np.float32)
    assert art.Mp3Compression(16001)(x)[0].shape == x.shape  # ffmpeg resampled it on the way
    with pytest.raises(ValueError, match="could not broadcast"):
        art.Mp3Compression(96000)(x)
    for rate in (16001, 96000):
        with pytest.raises(ValueError, match=rf"8000, .* or 48000 Hz, got {rate}; Resample"):
            preshield.Mp3Compression(rate)


@pytest.mark.usefixtures("programs")
def test_deviation_mp3_refuses_nan_and_three_channels():
    ours, theirs = both("Mp3Compression", 16000)
    x = np.full((1, 3000, 1), np.nan)
    with pytest.warns(RuntimeWarning, match="invalid value encountered in cast"):
        assert not theirs(x)[0].any()
    with pytest.raises(ValueError, match="`x` must be finite, got 3000 NaN"):
        ours.transform(x)
    x = np.zeros((1, 3000, 3))
    with pytest.raises(ValueError, match="could not broadcast"):
        theirs(x)
    with pytest.raises(ValueError, match="one or two channels, as MP3 has, got 3"):
        ours.transform(x)


# Video. ART runs the program ffmpeg through the package ffmpeg-python


@pytest.fixture
def video_program(monkeypatch, tmp_path):
    """What ART's video compression needs: here with the program of imageio-ffmpeg on the path."""
    if find_spec("ffmpeg") is None or find_spec("imageio_ffmpeg") is None:
        pytest.skip("ART's video compression needs ffmpeg-python, and here imageio-ffmpeg")
    (tmp_path / "ffmpeg").symlink_to(ffmpeg.executable())
    monkeypatch.setenv("PATH", str(tmp_path))


def runs_the_program(test):
    """ART leaves pipes open."""
    test = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")(test)
    return pytest.mark.usefixtures("video_program")(test)


def films(n=2, frames=6, width=128):
    """Squares that move over a ramp, in whole numbers up to 255.

    In rows of 128 pixels no vector of x264 is left half empty, which makes its results depend on rubbish in
    memory where the processor has AVX-512, and in frames of 32 rows it uses one thread.
    """
    y, x = np.indices((32, width))
    pixels = np.empty((n, frames, 32, width, 3))
    pixels[:] = np.minimum(y + 2 * x, 255)[..., None]
    for i in range(n):
        for f in range(frames):
            pixels[i, f, 2 + f : 12 + f, 3 + i + 2 * f : 13 + i + 2 * f] = (200, 180 - 40 * i, 60)
    return pixels


def assert_same_film(actual, desired, levels):
    """Equal, unless the program has another release of x264, which may decide otherwise."""
    assert actual.dtype == desired.dtype
    assert actual.shape == desired.shape
    frame = films(1, 1)[0].astype(np.uint8)
    ours, theirs = (codec.encode(frame, "avi", 28) for codec in (h264, h264_ffmpeg))
    ours, theirs = (re.search(rb"x264 - core \d+ \S*", data).group() for data in (ours, theirs))
    if ours == theirs:
        assert_array_equal(actual, desired)
    else:
        assert np.abs(actual.astype(float) - desired).mean() < levels


@runs_the_program
@pytest.mark.parametrize("video_format", ["mp4", "mkv", "avi", "mov"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_video_in_0_to_255(video_format, dtype):
    x = films().astype(dtype)
    ours, theirs = both("VideoCompression", video_format=video_format)
    assert_same_film(ours.transform(x), theirs(x.copy())[0], 1)


@runs_the_program
@pytest.mark.parametrize("crf", [0, 18, 51])
@pytest.mark.parametrize("channels_first", [False, True])
def test_video_in_0_to_1(crf, channels_first):
    x = layout(films(frames=12) / 255, channels_first)
    ours, theirs = both(
        "VideoCompression", video_format="mp4", constant_rate_factor=crf, channels_first=channels_first
    )
    assert_same_film(ours.transform(x), theirs(x.copy())[0], 1 / 255)


@runs_the_program
def test_deviation_video_does_not_write_into_the_callers_array():
    x = films() / 255
    ours, theirs = both("VideoCompression", video_format="mp4")
    kept = x.copy()
    ours.transform(x)
    assert_array_equal(x, kept)
    theirs(x)
    assert_array_equal(x, 255 * kept)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        theirs(x)
    ours.transform(x)


@runs_the_program
def test_deviation_video_rounds_and_saturates():
    ours, theirs = both("VideoCompression", video_format="mp4")
    for value, level, arts in ((100.9, 101, 100), (256.0, 255, 0), (300.0, 255, 44)):
        x = np.full((1, 2, 32, 128, 3), value)
        for defence, same_as in ((ours, level), (theirs, arts)):
            exact = np.full(x.shape, float(same_as))
            assert np.abs(defence(x)[0] - exact).max() <= 1  # 219 levels of brightness
    unit = preshield.VideoCompression(video_format="mp4", clip_values=(0, 1))
    above = np.full((1, 2, 32, 128, 3), 1.2)
    assert theirs(above.copy())[0].max() <= 1  # of 255
    assert_array_equal(unit.transform(above), 1)


@runs_the_program
def test_deviation_video_one_value_beyond_the_range():
    x = films() / 255
    x[0, 0, 0, 0, 0] = 1.001
    ours, theirs = both("VideoCompression", video_format="mp4")
    assert set(np.unique(theirs(x.copy())[0])) <= {0, 1, 2}  # of 255
    with pytest.warns(UserWarning, match=r"taken for video in \[0, 1\].* pass clip_values=\(0, 1\)"):
        out = ours.transform(x)
    assert np.abs(out - x).mean() < 0.02


@runs_the_program
def test_deviation_video_ranges_are_those_of_each_video():
    x = films()
    x[0] /= 255
    ours, theirs = both("VideoCompression", video_format="mp4")
    assert theirs(x.copy())[0][0].mean() < x[0].mean() / 2
    assert np.abs(ours.transform(x) / x.max(axis=(1, 2, 3, 4), keepdims=True) - films() / 255).mean() < 0.02


@runs_the_program
def test_deviation_video_of_integers_in_0_to_1_is_rounded():
    x = np.ones((1, 3, 32, 16, 8, 3), np.uint8)
    x[:, :, :, ::2] = 0  # stripes of 8 pixels
    x = x.reshape(1, 3, 32, 128, 3)
    ours, theirs = both("VideoCompression", video_format="mp4", constant_rate_factor=30)
    assert (theirs(x.copy())[0] != x).any()  # 254 / 255 becomes 0
    assert_array_equal(ours.transform(x), x)
    with pytest.raises(TypeError, match="Cannot cast"):
        theirs(x.astype(bool))
    assert_array_equal(ours.transform(x.astype(bool)), x.astype(bool))


@runs_the_program
def test_deviation_video_of_odd_sides():
    x = films(1, 3)[:, :, :31, :127]
    ours, theirs = both("VideoCompression", video_format="mp4")
    with pytest.raises(Exception, match="ffmpeg error"), pytest.warns(match="even number of pixels"):
        theirs(x.copy())
    assert np.abs(ours.transform(x) - x).mean() < 5


@runs_the_program
def test_deviation_video_refuses_nan_and_what_is_not_rgb():
    ours, theirs = both("VideoCompression", video_format="mp4")
    nan = films(1, 3)
    nan[0, 0, 0, 0, 0] = np.nan
    with pytest.warns(RuntimeWarning, match="invalid value encountered in cast"):
        assert np.isfinite(theirs(nan.copy())[0]).all()
    with pytest.raises(ValueError, match="must be finite, got 1 NaN"):
        ours.transform(nan)
    grey = films(1, 3)[..., :1]
    assert theirs(grey.copy())[0].shape == grey.shape  # three rows of grey are a row of colour
    with pytest.raises(ValueError, match=r"3 channels, RGB, got 1 .*; pass np\.repeat\(x, 3, axis=4\)"):
        ours.transform(grey)


@runs_the_program
def test_deviation_video_formats_are_checked_at_once():
    theirs = art.VideoCompression(video_format="webm")
    with pytest.raises(Exception, match="ffmpeg error"):
        theirs(films(1, 1))
    with pytest.raises(ValueError, match="must be one of 'mp4', 'mkv', 'avi', 'mov', got 'webm'"):
        preshield.VideoCompression(video_format="webm")


def test_deviation_video_needs_no_program(monkeypatch):
    pytest.importorskip("ffmpeg")
    monkeypatch.setenv("PATH", "")
    ours, theirs = both("VideoCompression", video_format="mp4")
    with pytest.raises(FileNotFoundError, match="ffmpeg"):
        theirs(films(1, 1))
    assert ours.transform(films(1, 1)).shape == (1, 1, 32, 128, 3)


def test_deviation_video_of_an_empty_batch():
    ours, theirs = both("VideoCompression", video_format="mp4")
    x = films()[:0]
    with pytest.raises(ValueError, match="zero-size array"):
        theirs(x)
    assert ours.transform(x).shape == x.shape


def test_deviation_videos_of_different_lengths():
    ours, theirs = both("VideoCompression", video_format="mp4")
    x = np.empty(2, dtype=object)
    x[:] = [films(1, 2)[0], films(1, 5)[0]]
    with pytest.raises(ValueError, match="spatio-temporal data"):
        theirs(x)
    for found, video in zip(ours.transform(x), x, strict=True):
        assert_array_equal(found, ours.transform(video[None])[0])


@runs_the_program
def test_deviation_video_results_repeat(monkeypatch):
    """ART's depend on what the memory held, where the processor has AVX-512 and rows do not fill vectors."""
    board = np.kron(np.random.default_rng(0).integers(0, 256, (40, 40, 3)), np.ones((8, 8, 1)))
    x = np.stack([board[2 * f : 2 * f + 48, 3 * f : 3 * f + 96] for f in range(16)])[None]
    ours, theirs = both("VideoCompression", video_format="mp4")
    program = preshield.VideoCompression(video_format="mp4", engine="imageio-ffmpeg")
    expected, arts = program.transform(x), []
    for rubbish in ("0", "1"):
        monkeypatch.setenv("MALLOC_PERTURB_", rubbish)  # with which glibc fills the memory of a new process
        assert_array_equal(program.transform(x), expected)
        assert_array_equal(ours.transform(x), ours.transform(x))
        arts.append(theirs(x.copy())[0])
    if all((result == arts[0]).all() for result in arts):
        pytest.skip("this processor or this release of x264 repeats ART's results")


# Augmentations for training. Both libraries are given the same draws


class Given:
    """A generator whose draws were worked out beforehand."""

    xp = np

    def __init__(self, **draws):
        self.draws = {name: list(values) for name, values in draws.items()}

    def __getattr__(self, name):
        return lambda *args: self.draws[name].pop(0)


def give(monkeypatch, **draws):
    """Let NumPy's global state, from which ART draws, yield these."""
    for name, values in draws.items():
        monkeypatch.setattr(np.random, name, getattr(Given(**{name: values}), name))


@pytest.mark.parametrize("shape", [(5, 8, 8, 3), (5, 2, 8, 8, 3)])
@pytest.mark.parametrize("channels_first", [False, True])
def test_cutout(shape, channels_first, monkeypatch):
    x = layout(np.random.default_rng(0).random(shape), channels_first)
    frames = int(np.prod(shape[:-3]))
    rows, columns = np.random.default_rng(1).integers(0, 8, (2, frames))
    ours, theirs = both("Cutout", 4, channels_first)
    # square images: what ART draws for the height is used for the columns
    give(monkeypatch, randint=np.stack([columns, rows], axis=1).ravel())
    draw = ours._draw(x, Given(integers=[rows, columns]))
    assert_array_equal(ours._transform(x.copy(), draw), theirs(x)[0])


def test_deviation_cutout_reaches_all_of_an_oblong_image():
    x = np.ones((300, 4, 40, 1))
    ours, theirs = both("Cutout", 2)
    np.random.seed(0)
    assert_array_equal(np.flatnonzero((theirs(x)[0] == 0).any(axis=(0, 1, 3))), range(4))
    np.random.seed(0)
    assert_array_equal(np.flatnonzero((ours.transform(x) == 0).any(axis=(0, 1, 3))), range(40))


def test_deviation_cutout_of_odd_length():
    x = np.ones((50, 9, 9, 1))
    for length in (1, 3, 5):
        ours, theirs = both("Cutout", length)
        assert (theirs(x)[0] == 0).sum(axis=(1, 2, 3)).max() == (length - 1) ** 2
        assert (ours.transform(x) == 0).sum(axis=(1, 2, 3)).max() == length**2


def test_deviation_cutout_is_one_class_for_every_framework():
    tf = pytest.importorskip("tensorflow")
    x = tf.ones((20, 4, 4, 1))
    theirs = art.CutoutTensorFlowV2(4)  # squares inside the image only, each with the same share of pixels
    assert not theirs.forward(x)[0].numpy().any()
    erased = (preshield.CutoutTensorFlowV2(4).transform(x).numpy() == 0).mean(axis=(1, 2, 3))
    assert erased.min() < 1


@pytest.mark.parametrize("num_mix", [2, 4])
@pytest.mark.parametrize("indices", [False, True])
def test_mixup(num_mix, indices, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 3, 5)), np.eye(4)[rng.integers(0, 4, 6)]
    shares = rng.dirichlet(np.ones(num_mix))
    orders = [rng.permutation(6) for _ in range(num_mix - 1)]
    ours, theirs = both("Mixup", 4, 1.0, num_mix)
    given = y.argmax(axis=1) if indices else y
    give(monkeypatch, dirichlet=[shares], permutation=orders)
    expected, labels = theirs(x, given)
    draw = ours._draw(x, Given(shares=[shares], order=orders))
    assert_allclose(ours._transform(x, draw), expected, rtol=1e-12)
    assert_allclose(ours._transform_labels(given, draw), labels, rtol=1e-6, atol=1e-7)


def test_deviation_mixup_keeps_single_precision():
    x, y = np.zeros((2, 3), np.float32), np.eye(2, dtype=np.float32)
    ours, theirs = both("Mixup", 2)
    assert [part.dtype for part in theirs(x, y)] == [np.float64, np.float64]
    assert [part.dtype for part in ours(x, y)] == [np.float32, np.float32]


@pytest.mark.parametrize("frames", [(), (2,)])
@pytest.mark.parametrize("channels_first", [False, True])
def test_cut_mix(frames, channels_first, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = layout(rng.random((6, *frames, 8, 8, 3)), channels_first), np.eye(6)
    stays, partners, chosen = 0.75, rng.permutation(6), np.array([0.1, 0.9, 0.1, 0.1, 0.9, 0.1])
    rows, columns = rng.integers(2, 7, (2, 6))  # rectangles of 4 x 4, all of them inside
    ours, theirs = both("CutMix", 6, 1.0, 0.5, channels_first)
    middles = np.stack([columns, rows], axis=1)[chosen < 0.5].ravel()
    give(monkeypatch, beta=[stays], permutation=[partners], rand=chosen, randint=middles)
    expected, labels = theirs(x, y)
    given = Given(
        shares=[np.array([1 - stays, stays])], order=[partners], integers=[rows, columns], random=[chosen]
    )
    draw = ours._draw(x, given)
    assert_array_equal(ours._transform(x, draw), expected)
    assert_allclose(ours._transform_labels(y, draw), labels, rtol=1e-12)


def test_deviation_cut_mix_weights_labels_by_the_pixels():
    x = np.stack([np.zeros((8, 8, 1)), np.ones((8, 8, 1))])
    y = np.eye(2)
    ours, theirs = both("CutMix", 2, probability=1.0)
    wrong = {}
    for seed in range(20):
        for name, defence in (("ours", ours), ("theirs", theirs)):
            np.random.seed(seed)
            out, labels = defence(x, y)
            wrong.setdefault(name, []).append(np.abs(labels[:, 1] - out.mean(axis=(1, 2, 3))).max())
    assert max(wrong["theirs"]) > 0.3
    assert max(wrong["ours"]) < 1e-12


def test_deviation_cut_mix_reaches_all_of_an_oblong_image():
    x = np.broadcast_to(np.arange(100).reshape(-1, 1, 1, 1), (100, 4, 40, 1))
    ours, theirs = both("CutMix", 100, 50.0, 1.0)  # about half of the pixels stay: 2 x 28 are pasted
    for defence, last in ((theirs, 3), (ours, 39)):
        np.random.seed(0)
        pasted = (defence(x, np.eye(100))[0] != x).any(axis=(0, 1, 3))
        assert np.flatnonzero(pasted).max() == last


def test_deviation_cut_mix_of_odd_size(monkeypatch):
    x, y = np.stack([np.zeros((10, 10, 1)), np.ones((10, 10, 1))]), np.eye(2)
    ours, theirs = both("CutMix", 2, probability=1.0)
    swap, middle = np.array([1, 0]), np.array([5, 5])
    give(monkeypatch, beta=[0.75], permutation=[swap], rand=[0, 0], randint=[5] * 4)  # 5 x 5 pixels
    assert theirs(x, y)[0][0].sum() == 16
    shares = np.array([0.25, 0.75])
    draw = ours._draw(x, Given(shares=[shares], order=[swap], integers=[middle] * 2, random=[np.zeros(2)]))
    assert ours._transform(x, draw)[0].sum() == 25


def test_deviation_cut_mix_of_integer_labels():
    x, y = np.zeros((2, 8, 8, 1)), np.eye(2, dtype=int)
    ours, theirs = both("CutMix", 2, probability=1.0)
    truncated = []
    for seed in range(5):
        np.random.seed(seed)
        truncated.append(theirs(x, y)[1])
        assert_allclose(ours(x, y)[1].sum(axis=1), 1, rtol=1e-6)
    assert any(not labels.any() for labels in truncated)  # of no class at all


@pytest.mark.parametrize("name", ["CutMix", "Mixup"])
def test_deviation_labels_of_another_number_of_classes(name):
    x, y = np.zeros((2, 4, 4, 1)), np.array([[0.0], [1.0]])  # indices in a column
    ours, theirs = both(name, 10)
    assert theirs(x, y)[1].shape == (2, 1)
    with pytest.raises(ValueError, match=r"`y` must have shape \(N, 10\), got \(2, 1\)"):
        ours(x, y)


def test_augmentations_in_a_pytorch_classifier():
    torch = pytest.importorskip("torch")
    from art.estimators.classification import PyTorchClassifier

    rng = np.random.default_rng(0)
    x, y = rng.random((20, 3, 6, 5), dtype=np.float32), np.eye(3, dtype=np.float32)[rng.integers(0, 3, 20)]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(90, 3))
    stages = [
        preshield.CutoutPyTorch(2, channels_first=True),
        preshield.MixupPyTorch(3),
        preshield.CutMixPyTorch(3, channels_first=True),
    ]
    classifier = PyTorchClassifier(
        model,
        torch.nn.CrossEntropyLoss(),
        (3, 6, 5),
        3,
        torch.optim.SGD(model.parameters(), lr=0.1),
        preprocessing_defences=stages,
        device_type="cpu",
    )
    before = model[1].weight.detach().clone()
    classifier.fit(x, y, batch_size=10, nb_epochs=1)
    assert (model[1].weight != before).any()
    with torch.no_grad():  # none of them is applied in prediction
        assert_allclose(classifier.predict(x), model(torch.from_numpy(x)), rtol=1e-6)


# Linear filters


@settings(max_examples=30, deadline=None)
@given(
    b=st.lists(st.floats(-1, 1), min_size=1, max_size=5),
    a=st.lists(st.floats(-0.2, 0.2), max_size=3),
    first=st.sampled_from([1.0, 2.0, -0.5]),
    shape=st.sampled_from([(1, 1), (3, 20), (2, 3, 9)]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    clip_values=st.sampled_from([None, (-0.3, 0.4)]),
    seed=seeds,
)
def test_lfilter(b, a, first, shape, dtype, clip_values, seed):
    x = np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)
    ours, theirs = both("LFilter", np.array(b), np.array([first, *a]), clip_values=clip_values)
    out, expected = ours.transform(x), theirs(x)[0]
    assert out.dtype == expected.dtype
    assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


def test_lfilter_of_samples_of_different_lengths():
    x = np.empty(2, dtype=object)
    x[:] = np.arange(5.0), np.arange(3.0)
    ours, theirs = both("LFilter", np.array([0.5, 0.5]), np.array([1.0, 0.2]))
    for mine, other in zip(ours.transform(x), theirs(x)[0], strict=True):
        assert_allclose(mine, other, rtol=1e-12)


def test_lfilter_gradient_of_finite_filters():
    rng = np.random.default_rng(0)
    x, grad = rng.random((3, 9)), rng.random((3, 9))
    ours, theirs = both("LFilter", np.array([0.3, -0.2, 0.5]))
    assert_allclose(ours.estimate_gradient(x, grad), theirs.estimate_gradient(x, grad), rtol=1e-12)
    classes = rng.random((3, 4, 9))
    assert_allclose(ours.estimate_gradient(x, classes), theirs.estimate_gradient(x, classes), rtol=1e-12)


def test_deviation_lfilter_gradient_of_infinite_filters(caplog):
    x, grad = np.zeros((1, 4)), np.array([[0.0, 0, 0, 1]])
    ours, theirs = both("LFilter", np.array([1.0]), np.array([1.0, -0.5]))
    assert_array_equal(theirs.estimate_gradient(x, grad), grad)  # with a warning in the log
    assert "infinite response" in caplog.text
    assert_allclose(ours.estimate_gradient(x, grad), [[0.125, 0.25, 0.5, 1]])


def test_deviation_lfilter_gradient_where_the_coefficients_sum_to_one():
    x, grad = np.zeros((1, 4)), np.array([[0.0, 0, 0, 1]])
    ours, theirs = both("LFilter", np.array([1.0]), np.array([1.0, -0.5, 0.5]))
    assert_array_equal(theirs.estimate_gradient(x, grad), grad)  # taken for a finite filter
    # the response to an impulse: 1, 0.5, 0.25 - 0.5, -0.125 - 0.25
    assert_allclose(ours.estimate_gradient(x, grad), [[-0.375, -0.25, 0.5, 1]])


def test_deviation_lfilter_gradient_of_several_channels():
    x = np.random.default_rng(0).random((2, 3, 5))
    ours, theirs = both("LFilter", np.array([0.5, 0.5]))
    assert theirs(x)[0].shape == x.shape
    with pytest.raises(ValueError, match="could not be broadcast"):
        theirs.estimate_gradient(x, x)
    assert ours.estimate_gradient(x, x).shape == x.shape


def test_deviation_lfilter_starts_from_a_state():
    x = np.array([[1.0, 2.0]])
    ours, theirs = both("LFilter", np.array([1.0, 1.0]), initial_cond=np.array([5.0]))
    with pytest.raises(ValueError, match="setting an array element with a sequence"):
        theirs(x)
    assert_array_equal(ours.transform(x), [[6, 3]])


def test_deviation_lfilter_of_integers():
    x = np.array([[1, 2]])
    ours, theirs = both("LFilter", np.array([0.5]))
    assert_array_equal(theirs(x)[0], [[0, 1]])
    assert_array_equal(ours.transform(x), [[0.5, 1]])


def test_deviation_lfilter_along_the_channels():
    x = np.arange(40.0).reshape(1, 20, 2)
    ours, theirs = both("LFilter", np.array([0.0, 1.0]))
    assert_array_equal(theirs(x)[0][0, :, 1], x[0, :, 0])  # the left channel, in the right one
    with pytest.raises(ValueError, match=r"`axis` must be that of time, got -1 .*; pass axis=0"):
        ours.transform(x)
    assert_array_equal(preshield.LFilter([0.0, 1.0], axis=0).transform(x)[0, 1:], x[0, :-1])


def test_deviation_lfilter_refuses_what_overflows():
    x = np.ones((1, 1000))
    ours, theirs = both("LFilter", np.array([1.0]), np.array([1.0, -3.0]))
    assert not np.isfinite(theirs(x)[0]).all()
    with pytest.raises(ValueError, match="`denominator_coef` must make a stable filter"):
        ours.transform(x)


def test_deviation_lfilter_coefficients_may_be_lists():
    with pytest.raises(ValueError, match=r"has to be of type `np\.ndarray`"):
        TOOLS["LFilter"]([0.5])
    with pytest.raises(ValueError, match="must have the same length"):
        TOOLS["LFilterPyTorch"](np.array([0.5]), np.array([1.0, 0.1]))
    assert preshield.LFilterPyTorch([0.5], [1.0, 0.1]).transform(np.ones((1, 1))) == 0.5


# Standardisation


@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from([(7, 3), (2, 4, 5, 3), (2, 3, 4, 5), (2, 3, 6, 4, 5), (3, 4, 5), (2, 3, 9)]),
    vector=st.booleans(),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int64]),
    seed=seeds,
)
def test_standardisation(shape, vector, dtype, seed):
    rng = np.random.default_rng(seed)
    x, grad = (rng.random(shape) * 9).astype(dtype), rng.random(shape)
    size = (3,) if vector else ()
    ours, theirs = both("StandardisationMeanStd", rng.random(size), 0.1 + rng.random(size))
    assert_allclose(ours.transform(x), theirs(x)[0], rtol=1e-3 if dtype == np.float16 else 1e-5, atol=1e-5)
    assert_allclose(ours.estimate_gradient(x, grad), theirs.estimate_gradient(x, grad), rtol=1e-6)


def test_deviation_standardisation_looks_at_every_batch():
    first, last = np.ones((1, 3, 2, 2), np.float32), np.ones((1, 2, 2, 3), np.float32)
    ours, theirs = both("StandardisationMeanStd", [0.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    theirs(first)
    with pytest.raises(ValueError, match="could not be broadcast"):
        assert theirs(last)[0].shape == last.shape  # the axis of the first batch is remembered
    ours.transform(first)
    assert_array_equal(ours.transform(last)[0, 0, 0], [1, 0, -1])


def test_deviation_standardisation_of_bytes():
    x = np.full((1, 2), 3, np.uint8)
    ours, theirs = both("StandardisationMeanStd", 1.0, 4.0)
    with pytest.raises(TypeError, match="cannot represent negative values"):
        theirs(x)
    assert_array_equal(ours.transform(x), [[0.5, 0.5]])


def test_deviation_standardisation_never_takes_samples_for_channels():
    x = np.ones((3, 1, 4, 4), np.float32)  # three grey images
    ours, theirs = both("StandardisationMeanStd", [0.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    assert_array_equal(theirs(x)[0][:, 0, 0, 0], [1, 0, -1])
    with pytest.raises(ValueError, match="`mean` must be a number, hold one entry for each channel"):
        ours.transform(x)


def test_deviation_standardisation_by_a_number_and_a_vector():
    x = np.ones((1, 2), np.float32)
    ours, theirs = both("StandardisationMeanStd", 0.5, [1.0, 2.0])
    with pytest.raises(ValueError, match="must be identical"):
        theirs(x)
    assert_array_equal(ours.transform(x), [[0.5, 0.25]])


# Resizing and padding


PAD_MODES = ["constant", "edge", "linear_ramp", "maximum", "mean", "median", "minimum"]
PAD_MODES += ["reflect", "symmetric", "wrap"]


@pytest.mark.parametrize("mode", PAD_MODES)
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_square_pad(mode, channels_first, dtype):
    for shape in ((2, 7, 4, 3), (2, 5, 8, 3), (2, 5, 5, 3)):
        x = layout((np.random.default_rng(0).random(shape) * 200).astype(dtype), channels_first)
        y = [{"boxes": np.array([[1.0, 2, 3, 4]]), "labels": np.array([3])}] * 2
        ours, theirs = both("ImageSquarePad", channels_first, "object_detection", mode, clip_values=(20, 180))
        out, targets = ours(x, y)
        expected, wanted = theirs(x, y)
        assert out.dtype == expected.dtype
        assert_allclose(out, expected, rtol=1e-6)
        assert_array_equal(targets[1]["boxes"], wanted[1]["boxes"])


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest", "nearest-exact"])
@pytest.mark.parametrize("channels_first", [False, True])
def test_resize_of_tensors(mode, channels_first):
    torch = pytest.importorskip("torch")
    for size in ((9, 4), (3, 12), (7, 5)):
        x = torch.from_numpy(layout(np.random.default_rng(0).random((2, 7, 5, 3)), channels_first))
        y = [{"boxes": torch.tensor([[1.0, 2, 3, 4]]), "labels": torch.tensor([3])}] * 2
        arguments = (*size, channels_first, "object_detection", mode, (0.1, 0.8))
        ours = preshield.ImageResizePyTorch(*arguments)
        theirs = TOOLS["ImageResizePyTorch"](*arguments)
        (out, targets), (expected, wanted) = ours(x, y), theirs.forward(x, y)
        assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
        assert_allclose(targets[1]["boxes"], wanted[1]["boxes"], rtol=1e-6)


@pytest.mark.parametrize("flag", range(5))
@pytest.mark.parametrize("channels_first", [False, True])
def test_resize(flag, channels_first):
    pytest.importorskip("cv2")
    for size in ((9, 8), (3, 4), (7, 5)):
        x = layout(np.random.default_rng(0).random((2, 7, 5, 3), dtype=np.float32), channels_first)
        y = [{"boxes": np.array([[1.0, 2, 3, 4]]), "labels": np.array([3])}] * 2
        ours, theirs = both("ImageResize", *size, channels_first, "object_detection", flag, (0.1, 0.8))
        (out, targets), (expected, wanted) = ours(x, y), theirs(x, y)
        assert out.dtype == expected.dtype
        assert_allclose(out, expected, atol=1e-5)
        assert_allclose(targets[1]["boxes"], wanted[1]["boxes"], rtol=1e-12)
        assert_array_equal(y[0]["boxes"], [[1, 2, 3, 4]])


def test_deviation_resize_of_bytes_is_rounded():
    pytest.importorskip("cv2")
    x = np.random.default_rng(0).integers(0, 256, (2, 7, 5, 3), dtype=np.uint8)
    ours, theirs = both("ImageResize", 20, 30)
    out, expected = ours.transform(x), theirs(x)[0]
    assert out.dtype == expected.dtype == np.uint8
    exact = ours.transform(x.astype(float))
    assert np.abs(out - exact).max() < 0.501
    assert 0.501 < np.abs(expected - exact).max() < 1.01


def test_deviation_resize_of_grey_images():
    torch = pytest.importorskip("torch")
    x = torch.zeros((2, 1, 4, 5))
    assert TOOLS["ImageResizePyTorch"](3, 3).forward(x)[0].shape == (2, 3, 3)
    assert preshield.ImageResizePyTorch(3, 3).transform(x).shape == (2, 1, 3, 3)


def test_deviation_resize_by_area_is_one_definition():
    torch = pytest.importorskip("torch")
    x = torch.tensor([3.0, 6.0, 9.0]).reshape(1, 1, 1, 3)
    theirs = TOOLS["ImageResizePyTorch"](1, 2, interpolation="area").forward(x)[0]
    assert_allclose(theirs.ravel(), [4.5, 7.5])  # means of two windows that overlap
    ours = preshield.ImageResizePyTorch(1, 2, interpolation="area").transform(x)
    assert_allclose(ours.ravel(), [4, 8])  # (3 + 6 / 2) / 1.5 and (6 / 2 + 9) / 1.5, as OpenCV has it
    tf = pytest.importorskip("tensorflow")
    theirs = TOOLS["ImageResizeTensorFlowV2"](1, 2, True, interpolation="nearest").forward(
        tf.constant(x.numpy())
    )
    assert_array_equal(np.ravel(theirs[0]), [3, 9])  # the pixel that holds the middle: "nearest-exact"
    assert_array_equal(
        preshield.ImageResize(1, 2, True, interpolation="nearest").transform(x).ravel(), [3, 6]
    )


def test_deviation_resize_by_area_that_enlarges_one_axis():
    pytest.importorskip("cv2")
    x = np.array([0, 5, 10, 15, 20], dtype=np.float32).reshape(1, 1, 5, 1)
    theirs = TOOLS["ImageResize"](2, 2, interpolation=3)(x)[0]
    # Of two pixels each: 0.4 * 0 + 0.6 * 5 and 0.2 * 10 + 0.8 * 15.
    assert_allclose(theirs.reshape(2, 2), [[3, 14]] * 2, rtol=1e-6)
    ours = preshield.ImageResize(2, 2, interpolation=3).transform(x)
    assert_allclose(ours.reshape(2, 2), [[4, 16]] * 2, rtol=1e-6)  # (0 + 5 + 10 / 2) / 2.5, of all covered


def test_deviation_resize_of_integer_boxes():
    torch = pytest.importorskip("torch")
    x, y = torch.zeros((1, 3, 4, 4)), [{"boxes": torch.tensor([[0, 0, 1, 3]]), "labels": torch.tensor([1])}]
    arguments = (6, 6, True, "object_detection")
    with pytest.raises(RuntimeError, match="can't be cast"):
        TOOLS["ImageResizePyTorch"](*arguments).forward(x, y)
    moved = preshield.ImageResizePyTorch(*arguments)(x, y)[1]
    assert_array_equal(moved[0]["boxes"], [[0, 0, 1.5, 4.5]])


@pytest.mark.parametrize("name", ["ImageResizePyTorch", "ImageSquarePadPyTorch"])
def test_deviation_masks_move_with_the_image(name):
    torch = pytest.importorskip("torch")
    arguments = {"ImageResizePyTorch": (8, 8), "ImageSquarePadPyTorch": ()}[name]
    x, mask = torch.zeros((1, 3, 8, 4)), torch.ones((1, 8, 4), dtype=torch.uint8)
    y = [{"boxes": torch.tensor([[0.0, 0, 4, 8]]), "masks": mask}]
    keywords = {"channels_first": True, "label_type": "object_detection"}
    assert of_art(name)(*arguments, **keywords).forward(x, y)[1][0]["masks"].shape == (1, 8, 4)
    masks = getattr(preshield, name)(*arguments, **keywords)(x, y)[1][0]["masks"]
    assert masks.shape == (1, 8, 8)
    assert masks.sum() == {"ImageResizePyTorch": 64, "ImageSquarePadPyTorch": 32}[name]


def test_deviation_padding_is_never_left_to_chance():
    theirs = TOOLS["ImageSquarePad"](pad_mode="empty")
    assert theirs(np.zeros((1, 2, 3, 1)))[0].shape == (1, 3, 3, 1)  # whatever the memory held
    with pytest.raises(ValueError, match=r"`pad_mode` must be one of .*, got 'empty'"):
        preshield.ImageSquarePad(pad_mode="empty")


@pytest.mark.parametrize("name", ["ImageResize", "ImageSquarePad"])
def test_deviation_images_of_an_empty_batch(name):
    x = np.zeros((0, 4, 5, 3))
    ours, theirs = both(name, *REQUIRED.get(name, ()))
    with pytest.raises(ValueError, match="need at least one array to stack"):
        theirs(x)
    assert len(ours.transform(x)) == 0


def test_deviation_targets_that_are_not_dicts_are_refused_in_words():
    ours, theirs = both("ImageSquarePad", label_type="object_detection")
    x = np.zeros((1, 2, 3, 1))
    with pytest.raises(KeyError, match="boxes"):
        theirs(x, [{"labels": np.zeros(1)}])
    with pytest.raises(TypeError, match=r"`y` must be a list with a dict for each image, of 'boxes'"):
        ours(x, [{"labels": np.zeros(1)}])


# What all have in common


BAD = {  # which ART refuses for one parameter or another, with ValueError or TypeError as it comes
    "missing": None,
    "empty": "",
    "text": "1",
    "bytes": b"1",
    "no sequence": [],
    "three": (0, 1, 2),
    "backwards": (1, 0),
    "equal": (1, 1),
    "backward arrays": (np.ones(3), np.zeros(3)),
    "limits of text": ("0", "1"),
    "half a pair": (None, 1),
    "mapping": {},
    "complex": 1j,
    "object": object(),
    "array": np.array(3),
    "nan": float("nan"),
    "infinite": float("inf"),
    "least": -float("inf"),
    "negative": -1,
    "negative half": -0.5,
    "half": 0.5,
    "zero": 0,
    "huge": 10**400,
    "true": True,
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@names
def test_what_art_refuses_is_refused_with_an_error_that_the_same_clause_catches(name, value):
    given = dict(zip((p for p, _ in positional(of_art(name))[0]), REQUIRED.get(name, ()), strict=False))
    for parameter in inspect.signature(of_art(name)).parameters:
        kwargs = {**given, **KEYWORDS.get(name, {}), parameter: value}
        try:
            of_art(name)(**kwargs)
        except (TypeError, ValueError):
            if parameter == "pixel_cnn" and value is None:
                continue  # which is trained
            if name == "LFilter" and isinstance(value, tuple) and parameter != "clip_values":
                continue  # coefficients may be lists
            for kind in (TypeError, ValueError):
                with pytest.raises(kind, match=rf"`{parameter}` must "):
                    getattr(preshield, name)(**kwargs)
        except (IndexError, KeyError, OverflowError):  # of its own checks
            assert name in ("LFilter", "PixelDefend", "StandardisationMeanStd")


@names
def test_deviation_unknown_parameters_are_refused(name):
    ours, theirs = both(name, *REQUIRED.get(name, ()), **KEYWORDS.get(name, {}))
    assert theirs.set_params(strength=3) is None
    before = ours.get_params()
    with pytest.raises(TypeError, match=rf"{name} has no parameter 'strength'; it has "):
        ours.set_params(strength=3, apply_fit=not ours.apply_fit)
    assert ours.get_params() == before


@names
def test_deviation_apply_fit_can_be_set(name):
    kwargs = {"augmentation": False} if name == "GaussianAugmentation" else KEYWORDS.get(name, {})
    ours, theirs = both(name, *REQUIRED.get(name, ()), **kwargs)
    changed = not ours.apply_fit
    if name == "StandardisationMeanStd":
        with pytest.raises(AttributeError, match="has no setter"):
            theirs.set_params(apply_fit=changed)
    else:
        theirs.set_params(apply_fit=changed)
    assert theirs.apply_fit is not changed
    assert ours.set_params(apply_fit=changed).apply_fit is changed


def test_deviation_a_subclass_draws_once_for_both_passes():
    torch = pytest.importorskip("torch")

    def written(base):
        class Dims(base):
            def __init__(self):
                super().__init__(is_fitted=True)

            def __call__(self, x, y=None):
                return x * np.random.uniform(0.5, 1, x.shape), y

            def estimate_gradient(self, x, grad):
                return grad * np.random.uniform(0.5, 1, x.shape)

        return Dims()

    ones = np.ones((2, 8))
    theirs, ours = written(art.Preprocessor), written(preshield.Preprocessor)
    np.random.seed(0)
    out = theirs(ones)[0]
    assert (theirs.estimate_gradient(ones, ones) != out).all()
    np.random.seed(0)
    x = torch.tensor(ones, requires_grad=True)
    seen = ours(x)[0]
    seen.sum().backward()
    assert_array_equal(x.grad, seen.detach())
    assert (seen.detach().numpy() != out).all()


@pytest.mark.parametrize("name", ["CutMix", "Cutout", "GaussianAugmentation", "Mixup", "TotalVarMin"])
def test_deviation_the_same_seed_draws_other_numbers(name):
    kwargs = {"augmentation": False} if name == "GaussianAugmentation" else {}
    x, y = np.random.default_rng(0).random((4, 6, 7, 1)), np.eye(10)[:4]
    ours, theirs = both(name, *REQUIRED.get(name, ()), **kwargs)
    outs = []
    for defence in (ours, theirs, ours, theirs):
        np.random.seed(3)
        outs.append(defence(x, y)[0])
    assert_array_equal(outs[0], outs[2])
    assert_array_equal(outs[1], outs[3])
    assert (outs[0] != outs[1]).any()


@pytest.mark.parametrize(
    ("name", "kwargs", "error"),
    [
        ("CutMix", {"num_classes": True}, TypeError),
        ("Cutout", {"length": True}, TypeError),
        ("FeatureSqueezing", {"clip_values": (0, 1), "bit_depth": True}, TypeError),
        ("FeatureSqueezing", {"clip_values": (0, np.nan)}, ValueError),
        ("GaussianAugmentation", {"sigma": -1}, ValueError),
        ("ImageResize", {"width": 3, "height": True}, TypeError),
        ("ImageSquarePad", {"label_type": "boxes"}, ValueError),
        ("JpegCompression", {"clip_values": (0, 1), "quality": True}, TypeError),
        ("LFilter", {"numerator_coef": np.array([np.nan])}, ValueError),
        ("LabelSmoothing", {"max_value": np.nan}, ValueError),
        ("Mixup", {"num_classes": 2, "alpha": np.inf}, ValueError),
        ("Mp3Compression", {"sample_rate": True}, TypeError),
        ("Resample", {"sr_new": 2, "sr_original": True}, TypeError),
        ("SpatialSmoothing", {"channels_first": "no"}, TypeError),
        ("StandardisationMeanStd", {"std": 0.0}, ValueError),
        ("ThermometerEncoding", {"clip_values": (0, 1), "apply_fit": "no"}, TypeError),
        ("TotalVarMin", {"lamb": -1}, ValueError),
        ("VideoCompression", {"video_format": "mp4", "constant_rate_factor": True}, TypeError),
    ],
)
def test_deviation_parameters_are_checked(name, kwargs, error):
    assert of_art(name)(**kwargs)
    with pytest.raises(error, match=f"`{list(kwargs)[-1]}` must be"):
        getattr(preshield, name)(**kwargs)


@pytest.mark.parametrize(("limits", "top"), [((0, 255), 1), ((0, 1), 255)])
@pytest.mark.parametrize(
    "name", ["FeatureSqueezing", "GaussianAugmentation", "JpegCompression", "SpatialSmoothing", "TotalVarMin"]
)
def test_deviation_data_in_another_range_warn(name, limits, top):
    x = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3)).astype(np.float32) * top / 255
    ours, theirs = both(name, clip_values=limits)
    theirs(x)  # a warning would be an error
    with pytest.warns(UserWarning, match=rf"^{name}: `clip_values` should be .* clip_values=\(0, {top}\)"):
        ours(x)


def test_deviation_numpy_numbers_are_numbers():
    for name, kwargs in (
        ("JpegCompression", {"clip_values": (0, 1), "quality": np.int64(50)}),
        ("JpegCompression", {"clip_values": (0, 1), "quality": 50.0}),
        ("SpatialSmoothing", {"window_size": np.float64(3)}),
        ("SpatialSmoothing", {"window_size": np.int64(3)}),
        ("FeatureSqueezing", {"clip_values": (0, 1), "bit_depth": np.int64(3)}),
        ("TotalVarMin", {"prob": np.float32(0.3)}),
        ("VideoCompression", {"video_format": "mp4", "constant_rate_factor": np.int64(28)}),
        ("Mp3Compression", {"sample_rate": np.int64(16000)}),
        ("Resample", {"sr_original": np.int64(3), "sr_new": 2}),
    ):
        with pytest.raises(ValueError, match=r"must be|be must"):
            of_art(name)(**kwargs)
        assert getattr(preshield, name)(**kwargs)


def test_deviation_two_defences_in_a_pytorch_classifier():
    torch = pytest.importorskip("torch")
    from art.estimators.classification import PyTorchClassifier

    x = np.random.default_rng(0).random((2, 3, 6, 7), dtype=np.float32)

    def classify(library):
        stages = [
            library.SpatialSmoothing(channels_first=True),
            library.JpegCompression((0, 1), channels_first=True),
        ]
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 6 * 7, 2))
        loss = torch.nn.CrossEntropyLoss()
        return PyTorchClassifier(model, loss, (3, 6, 7), 2, preprocessing_defences=stages)

    with pytest.raises(
        NotImplementedError, match="current combination of preprocessing types is not supported"
    ):
        classify(art).loss_gradient(x, np.eye(2))
    assert classify(preshield).loss_gradient(x, np.eye(2)).shape == x.shape


def test_deviation_older_name_of_the_channel_axis():
    for name, args in (
        ("JpegCompression", ((0, 1),)),
        ("Mp3Compression", (16000,)),
        ("Resample", (3, 2)),
        ("SpatialSmoothing", ()),
        ("ThermometerEncoding", ((0, 1),)),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'channel_index'"):
            of_art(name)(*args, channel_index=1)
        with pytest.warns(FutureWarning, match="channels_first=True"):
            assert getattr(preshield, name)(*args, channel_index=1).channels_first
