"""Ranges that data do not have: what warns, what does not, once, and with which remedy."""

import warnings

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    Mp3Compression,
    Preprocessor,
    SpatialSmoothing,
    VideoCompression,
)
from preshield._core.checks import check_batch
from preshield._core.layout import object_array
from preshield._core.ranges import are_images, fits, in_unit_range, looks_normalised, misfit, most_of
from tests.cases import ALL, images

DTYPES = (np.float16, np.float32, np.float64, ">f4", np.longdouble, np.uint8, np.int16, np.int64, bool)


class Halve(Preprocessor):
    """Anybody's subclass."""

    domains = ("image", "features")

    def __init__(self, clip_values=None):
        self.clip_values = clip_values

    def _transform(self, x, draw):
        return x / 2


def peaks_of(x):
    peaks = []
    check_batch(x, ("features",), None, ragged=True, peaks=peaks)
    return peaks


# What fits


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda x: x[:, ::2]])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.longdouble])
@pytest.mark.parametrize("takes", ["view", "copy"])
def test_the_largest_magnitude_comes_with_the_check(layout, dtype, takes):
    for values in ([0.5, -0.25], [0.25, -0.5], [-0.0, 0.0], [-3.0, -7.5], [2.0, 7.5]):
        peaks = []
        x = layout(np.resize(np.array(values), (4, 6)).astype(dtype))
        check_batch(x, ("features",), None, takes=takes, peaks=peaks)
        assert max(peaks) == np.abs(x).max()


def test_the_largest_magnitude_of_each_sample():
    x = object_array([np.array([0.5]), np.array([1, 2]), np.array([-4.0, 3]), np.zeros(0)])
    assert sorted(peaks_of(x)) == [0.5, 4]


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ((0, 1), 1),
        ([-3, 2], 3),
        (np.array([0, 255]), 255),
        ((np.float32(0), np.array([1])), 1),
        (([0, 0, 0], [255, 255, 255]), 255),
        ((np.full((3, 1, 1), -2.0), 1), 2),
    ],
)
def test_pairs_of_numbers(limits, most):
    assert most_of(limits) == most


@pytest.mark.parametrize(
    "limits",
    [None, "01", (0, 1, 2), (np.zeros(3), np.arange(1, 4)), (0, []), {0: 1, 2: 3}, (None, 1), 7, np.array(7)],
)
def test_what_is_no_pair_of_numbers_says_nothing(limits):
    assert most_of(limits) is None
    Halve(limits).transform(np.full((1, 3), 1e6))


@pytest.mark.parametrize(
    ("x", "most", "expected"),
    [
        ([0.0, 1.0], 1, True),
        ([0.0, 8.0], 1, True),  # noise of standard deviation 1 on an image in [0, 1]
        ([0.0, 8.5], 1, False),
        ([-9.0, 0.0], 1, False),
        ([0.0, 255.0], 1, False),
        ([0.0, 255.0], 255, True),
        ([0.0, 300.0], 255, True),
        ([0.0, 65535.0], 255, False),
        ([0.0, 1.0], 255, False),
        ([0.0, 1e-30], 255, False),
        ([-1.0, 0.5], 255, False),
        ([0.0, 1.03], 255, False),  # attacked
        ([0.0, 3.0], 255, True),  # steps of a dark image
        ([0.0, 8.5], 255, True),
        ([0.0, -0.0], 255, True),
        ([0.0, 0.01], 2, True),
        ([0.0, 1.0], 100, True),
        ([0.0, 0.9], 32768, False),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f8"])
def test_floats(x, most, expected, dtype):
    x = np.array([x], dtype)
    assert fits(x, peaks_of(x), most) == expected


@pytest.mark.parametrize(
    ("x", "most", "expected"),
    [
        ([0, 1], 1, True),
        ([0, 8], 1, True),
        ([0, 9], 1, False),
        ([-9, 0], 1, False),
        ([0, 127], 255, True),
        ([0, 2], 255, True),
        ([0, 1], 255, False),
        ([-1, 0], 255, False),
        ([0, 0], 255, True),
    ],
)
@pytest.mark.parametrize("dtype", [np.int8, np.int64, ">i2", np.uint8, np.uint64])
@pytest.mark.parametrize("length", [1, 10**5])
def test_integers(x, most, expected, dtype, length):
    if min(x) < np.iinfo(dtype).min:
        x = np.abs(x)
    x = np.array([x], dtype)
    x = np.concatenate((np.zeros((length, 2), dtype), x))  # the last ones settle it
    for layout in (np.ascontiguousarray, np.asfortranarray):
        assert fits(layout(x), [], most) == expected


def test_booleans_and_nothing():
    true, empty = np.ones((1, 2), bool), np.zeros((0, 2))
    assert fits(true, [], 1)
    assert not fits(true, [], 255)
    assert fits(~true, [], 255)
    for dtype in (float, int, bool):
        assert fits(empty.astype(dtype), [], 255)


def test_samples_of_different_lengths_are_seen_together():
    dark, bright = np.full(3, 0.5), np.full(4, 200.0)
    assert fits(object_array([dark, bright]), [0.5, 200.0], 255)
    assert not fits(object_array([dark, dark]), [0.5, 0.5], 255)
    assert not fits(object_array([dark, bright]), [0.5, 200.0], 1)
    assert fits(object_array([dark, np.array([3])]), [0.5], 255)


def test_the_unit_range_and_a_little_more():
    for value, dtype, expected in (
        (1, float, True),
        (1.0014, float, True),
        (8, float, False),  # a whole number: a quiet recording of 16 bits
        (7.5, float, True),
        (8.5, float, False),
        (1, int, True),
        (2, int, False),
    ):
        assert in_unit_range(np.full(3, value, dtype), value) == expected


# What is said


FIRST = r"; pass the range of the data as `clip_values`, or bring `x` into this one first"


@pytest.mark.parametrize(
    ("x", "limits", "end"),
    [
        (
            [0, 1.0],
            (0, 255),
            r"0 to 1; pass clip_values=\(0, 1\), or scale the data, for example with x \* 255",
        ),
        ([0, 255.0], (0, 1), r"; pass clip_values=\(0, 255\), or scale the data, for example with x / 255"),
        ([0, 255.0], (0, 2), r"; pass clip_values=\(0, 255\), or scale the .* with x / 127\.5"),
        ([0, 265.0], (0, 1), r"; pass clip_values=\(0, 255\), or scale the data, for example with x / 255"),
        ([0, 1000.0], (0, 1), r"; scale the data, for example with x / 1023"),
        ([0, 4000.0], (0, 255), r"; scale the data, for example with x / 16\.0588"),
        ([0, 6e4], (0, 255), r"; scale the data, for example with x / 257"),
        ([0, 1e9], (0, 1), FIRST),
        ([-1, 1.0], (0, 255), FIRST),
        ([0, 1.0], (-128, 127), FIRST),
    ],
)
def test_remedies(x, limits, end):
    with pytest.warns(
        UserWarning, match=rf"^Halve: `clip_values` should be the .* for values from .*{end}\.$"
    ):
        Halve(limits).transform(np.array([x]))


def test_limits_for_each_channel_say_what_one_pair_says():
    for x, limits, remedy in (
        (np.full((2, 8, 8, 3), 0.5), ([0, 0, 0], [255, 255, 255]), r"x \* 255"),
        (np.full((2, 8, 8, 3), 200.0), (np.zeros(3), np.ones(3)), r"x / 255"),
    ):
        defence = FeatureSqueezing(limits, bit_depth=4)
        with pytest.warns(UserWarning, match=rf"clip_values.*{remedy}"):
            defence.transform(x)
        defence.transform(x)  # a second warning would be an error


@pytest.mark.parametrize("value", [0.9, 1.0])
def test_remedies_are_right_when_pasted(value):
    x = np.full((1, 8, 8, 1), value, np.float32)
    with pytest.warns(UserWarning, match="pass clip_values"):
        JpegCompression((0, 255)).transform(x)
    expected = JpegCompression((0, 1)).transform(x)
    np.testing.assert_allclose(JpegCompression((0, 255)).transform(x * 255), 255 * expected, rtol=1e-6)
    with pytest.warns(UserWarning, match="pass clip_values"):
        JpegCompression((0, 1)).transform(x * 255)
    np.testing.assert_allclose(JpegCompression((0, 1)).transform(x * 255 / 255), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("peak", "end"),
    [
        (0.5, "pass full_scale=1."),
        (32800.0, "pass full_scale=32768."),
        (1e7, "pass full_scale=8388608."),
        (2.0**31, "pass full_scale=2147483648."),
        (1e12, "for values from 0 to 1e+12."),
    ],
)
def test_remedies_of_full_scale(peak, end):
    text = misfit(np.array([0, peak]), "full_scale", 2.0, 2.0)
    assert text.startswith(
        "`full_scale` should be the largest value of a signal, got 2.0 for values from 0 to "
    )
    assert text.endswith(end)


# When


def test_the_line_of_the_caller_is_named():
    with pytest.warns(UserWarning, match="should be the range") as caught:
        Halve((0, 255)).transform(np.ones((1, 2)))
    assert caught[0].filename == __file__


def test_once_for_each_object_and_again_for_new_limits():
    x = np.full((1, 2), 0.5)
    defence = Halve((0, 255))
    with pytest.warns(UserWarning, match="should be the range"):
        defence.transform(x)
    defence.transform(x)  # a second warning would be an error here
    defence.estimate_gradient(x, x)
    with pytest.warns(UserWarning, match="should be the range"):
        Halve((0, 255)).transform(x)
    defence.set_params(clip_values=(0, 1000))
    with pytest.warns(UserWarning, match=r"got \(0, 1000\)"):
        defence.fit(x)


def test_a_batch_that_fits_does_not_hide_one_that_does_not():
    defence = Halve((0, 1))
    defence.transform(np.ones((2, 2)))
    with pytest.warns(UserWarning, match=r"got \(0, 1\) for values from 0 to 200"):
        defence.transform(np.array([[0.0, 1], [1, 200]]))


def test_dark_batches_are_legal():
    for dtype in DTYPES:
        FeatureSqueezing((0, 255)).transform(np.zeros((2, 3), dtype))
    with pytest.warns(UserWarning, match="should be the range"):
        FeatureSqueezing((0, 255)).transform(np.ones((2, 3), np.uint8))


def test_noise_and_attacks_do_not_warn():
    x = images()
    noisy = GaussianAugmentation(1.0, augmentation=False, rng=0).transform(np.tile(x, (20, 10, 10, 1)))
    assert noisy.max() > 5
    assert noisy.min() < -4
    FeatureSqueezing((0, 1)).transform(noisy)


NORMALISED = (np.random.default_rng(0).random((4, 3, 16, 16), dtype=np.float32) - 0.45) / 0.225


def test_images_that_were_normalised():
    """Values of ImageNet's normalisation lie on both sides of (-1, 1), and within its bounds."""
    assert looks_normalised(NORMALISED)
    assert looks_normalised(np.moveaxis(NORMALISED, 1, -1))
    noise = np.random.default_rng(0).normal(size=NORMALISED.shape).astype(np.float32)
    for x in (
        (NORMALISED + 2) / 4.5,  # pixels
        np.clip(NORMALISED, -1, 1),
        np.clip(NORMALISED, -1, 3),
        np.clip(NORMALISED, -3, 1),
        3 * NORMALISED,  # of another kind
        noise * 2,
        NORMALISED[:, 0],  # no images
        NORMALISED[:, [0, 1]],
        np.rint(NORMALISED).astype(np.int8),
        NORMALISED[:0],
    ):
        assert not looks_normalised(x)
    assert are_images(NORMALISED[:, :1])
    assert not are_images(NORMALISED[:, :2])


def test_a_defence_warns_of_normalised_images():
    with pytest.warns(
        UserWarning,
        match=r"^FeatureSqueezing: `clip_values` .* got \(0, 1\) for values from -1.99\d* to 2.4\d*, as if "
        r"they were normalised for a model; defend the pixels and let the model normalise them, such as",
    ):
        FeatureSqueezing((0, 1)).transform(NORMALISED)
    FeatureSqueezing((-2, 2.5)).transform(NORMALISED)
    with pytest.warns(UserWarning, match=r"got \(0, 255\) .* as if they were normalised for a model"):
        FeatureSqueezing((0, 255)).transform(NORMALISED)


STATED = [c for c in ALL if most_of(getattr(c.make(), "clip_values", None)) is not None]


@pytest.mark.parametrize("case", STATED, ids=str)
def test_every_defence_with_two_limits_warns(case):
    defence, x = case.make(), case.sample
    wrong = x / 255 if most_of(defence.clip_values) >= 255 else np.abs(x) * 255
    with pytest.warns(
        UserWarning, match=rf"^{type(defence).__name__}: `clip_values` should be the range of the data"
    ):
        defence(wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case.make()(x)


def test_stages_in_the_middle_of_a_chain_warn():
    chain = Chain([SpatialSmoothing(3), FeatureSqueezing((0, 255)), SpatialSmoothing(2)])
    with pytest.warns(UserWarning, match="^FeatureSqueezing: `clip_values`"):
        chain.transform(images())


def test_traced_graphs_warn_when_they_run():
    tf = pytest.importorskip("tensorflow")
    defence = FeatureSqueezing((0, 255))
    function = tf.function(defence.transform)
    function.get_concrete_function(tf.TensorSpec((3, 6, 5, 3), tf.float32))
    with pytest.warns(UserWarning, match="^FeatureSqueezing: `clip_values`"):
        function(tf.constant(images()))


def test_compiled_functions_of_jax_warn_when_they_run():
    """Those that call NumPy: what computes in JAX itself does not look at values."""
    jax = pytest.importorskip("jax")

    class OnHost(FeatureSqueezing):
        """Without a twin."""

        def _arithmetic(self, shape, dtype):
            return None

    defence = OnHost((0, 255))
    function = jax.jit(defence.transform).lower(jax.numpy.asarray(images())).compile()
    with pytest.warns(UserWarning, match="^OnHost: `clip_values`"):
        jax.block_until_ready(function(jax.numpy.asarray(images())))


def test_torch_tensors_warn():
    torch = pytest.importorskip("torch")
    with pytest.warns(UserWarning, match="^FeatureSqueezing: `clip_values`"):
        FeatureSqueezing((0, 255)).transform(torch.tensor(images()))


def test_full_scale_is_a_range_too():
    x = np.sin(np.arange(2000))[None]
    for full_scale, scale in ((32768, 0.5), (1.0, 2e4)):
        with pytest.warns(
            UserWarning, match=f"^Mp3Compression: `full_scale` should be .* got {full_scale} for"
        ):
            Mp3Compression(16000, full_scale=full_scale).transform(scale * x)
        Mp3Compression(16000, full_scale=full_scale).transform(0.5 * full_scale * x)


def test_an_error_of_the_batch_comes_first_for_videos_in_the_wrong_range():
    video = np.full((1, 2, 4, 4, 3), np.nan)
    with pytest.raises(ValueError, match="must be finite"):
        VideoCompression(video_format="mp4", clip_values=(0, 255)).transform(video)
