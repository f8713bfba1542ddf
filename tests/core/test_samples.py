"""One sample: the batch axis, images of Pillow, and what cannot be one."""

import numpy as np
import pytest
from PIL import Image

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    ImageResize,
    JpegCompression,
    LabelSmoothing,
    LFilter,
    Mp3Compression,
    Preprocessor,
    Resample,
    SpatialSmoothing,
    ThermometerEncoding,
    VideoCompression,
)
from preshield._core.remedies import Reading

LAST = np.random.default_rng(0).random((6, 5, 3), dtype=np.float32)
FIRST = np.ascontiguousarray(np.moveaxis(LAST, -1, 0))


class Double(Preprocessor):
    """Twice the values, of whatever, with the exact gradient."""

    domains = ("image", "audio")
    gradient_kind = "exact"

    def _transform(self, x, draw):
        return 2 * x

    def _gradient(self, x, grad, draw):
        return 2 * grad


class Transpose(Preprocessor):
    """Height and width change places."""

    changes_shape = True

    def _transform(self, x, draw):
        return np.swapaxes(x, 1, 2)

    def _output_shape(self, shape):
        return (shape[0], shape[2], shape[1], shape[3])


# Arrays and tensors


@pytest.mark.parametrize(
    ("defence", "x"),
    [
        (SpatialSmoothing(3), LAST),
        (SpatialSmoothing(3, channels_first=True), FIRST),
        (ThermometerEncoding((0, 1), 4), LAST),
        (Chain([SpatialSmoothing(3), JpegCompression((0, 1))]), LAST),
        (Resample(16000, 8000), np.sin(np.arange(400) / 9)),
        (Resample(16000, 8000), np.sin(np.arange(800) / 9).reshape(400, 2)),
        (Resample(16000, 8000, channels_first=True), np.sin(np.arange(800) / 9).reshape(2, 400)),
        (Mp3Compression(16000), np.sin(np.arange(4000) / 9)),
        (FeatureSqueezing((0, 1), 3), np.linspace(0, 1, 9)),
        (VideoCompression(video_format="mp4", clip_values=(0, 1)), np.stack([LAST] * 2)),
    ],
    ids=lambda v: v.shape if isinstance(v, np.ndarray) else type(v).__name__,
)
def test_a_sample_is_a_batch_of_one_without_its_axis(defence, x):
    before = x.copy()
    out = defence.transform_one(x)
    expected = defence.transform(x[None])
    np.testing.assert_array_equal(out, expected[0])
    assert out.dtype == expected.dtype
    np.testing.assert_array_equal(x, before)


def test_bytes_as_numpy_gives_them():
    x = np.array([[[0], [100], [101]]], np.uint8)
    out = FeatureSqueezing((0, 255), 1).transform_one(x)
    np.testing.assert_array_equal(out, [[[0], [0], [0]]])
    assert out.dtype == np.float32
    np.testing.assert_array_equal(Double().transform_one([[[1], [2]]]), [[[2], [4]]])


def test_torch():
    torch = pytest.importorskip("torch")
    x = torch.tensor(LAST, requires_grad=True)
    out = Double().transform_one(x)
    assert out.shape == x.shape
    (out * torch.arange(3)).sum().backward()
    np.testing.assert_array_equal(x.grad, np.broadcast_to([0.0, 2.0, 4.0], LAST.shape))
    wave = torch.linspace(-1, 1, 10, dtype=torch.float64)
    np.testing.assert_array_equal(Double().transform_one(wave), 2 * wave)


def test_tensorflow():
    tf = pytest.importorskip("tensorflow")
    x = tf.Variable(LAST)
    with tf.GradientTape() as tape:
        out = Double().transform_one(x)
        loss = tf.reduce_sum(out * tf.range(3.0))
    np.testing.assert_array_equal(tape.gradient(loss, x), np.broadcast_to([0.0, 2.0, 4.0], LAST.shape))


def test_a_tf_data_pipeline_knows_the_shape():
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices(np.stack([LAST, 1 - LAST]))
    mapped = data.map(Transpose().transform_one)
    assert mapped.element_spec == tf.TensorSpec((5, 6, 3), tf.float32)
    (batch,) = mapped.batch(2)
    np.testing.assert_array_equal(batch, np.swapaxes(np.stack([LAST, 1 - LAST]), 1, 2))


def test_a_tf_data_pipeline_of_unknown_rank():
    tf = pytest.importorskip("tensorflow")

    def generate():
        yield LAST

    data = tf.data.Dataset.from_generator(generate, output_signature=tf.TensorSpec(None, tf.float32))
    assert data.element_spec.shape.rank is None
    mapped = data.map(SpatialSmoothing(3).transform_one)
    assert mapped.element_spec.shape.as_list() == [None, None, None]
    (out,) = mapped
    np.testing.assert_array_equal(out, SpatialSmoothing(3).transform_one(LAST))
    with pytest.raises(
        Exception, match=r"`x` must be one sample, an image \(H, W, C\), got shape \(2, 6, 5, 3\)"
    ):
        data.batch(2).map(lambda x: tf.ensure_shape(x, (2, 6, 5, 3))).map(SpatialSmoothing(3).transform_one)


def test_jax():
    jax = pytest.importorskip("jax")
    out = jax.jit(Transpose().transform_one)(LAST)
    np.testing.assert_array_equal(out, np.swapaxes(LAST, 0, 1))
    grad = jax.grad(lambda x: (Double().transform_one(x) * np.arange(3.0)).sum())(jax.numpy.asarray(LAST))
    np.testing.assert_array_equal(grad, np.broadcast_to([0.0, 2.0, 4.0], LAST.shape))


# What is refused


@pytest.mark.parametrize(
    ("defence", "x", "message"),
    [
        (
            SpatialSmoothing(3),
            LAST[None],
            r"an image \(H, W, C\), got .* to `transform`, and one video as transform\(x\[None\]\)\[0\]",
        ),
        (
            Double(),
            LAST[None],
            r"or a recording \(length, C\) or .* \(length,\), got .*; pass a batch to `transform`\.$",
        ),
        (
            JpegCompression((0, 1), channels_first=True),
            FIRST[None],
            r"an image \(C, H, W\), got shape \(1, 3, 6, 5\); pass a batch",
        ),
        (
            SpatialSmoothing(3),
            LAST[..., 0],
            r"got shape \(6, 5\); a grey image needs an axis of channels: x\[\.\.\., None\]",
        ),
        (
            SpatialSmoothing(3, channels_first=True),
            FIRST[0],
            r"got shape \(6, 5\); a grey image needs an axis of channels: x\[None\]",
        ),
        (
            VideoCompression(video_format="mp4"),
            np.zeros((2, 3, 6, 5, 3)),
            r"one sample, a video, got shape \(2, 3, 6, 5, 3\); pass a b",
        ),
        (
            Mp3Compression(8000),
            np.zeros((3, 2, 90)),
            r"a recording \(length, C\) or a recording \(length,\), got s",
        ),
        (
            Resample(16000, 8000),
            np.zeros((8, 400)),
            r"400 channels and 8 values with .*=False; pass channels_first=True, or a batch of recordings",
        ),
        (
            Resample(16000, 8000, channels_first=True),
            np.zeros((400, 2)),
            r"400 channels and 2 values with channels_first=True; pass channels_first=False",
        ),
        (FeatureSqueezing((0, 1)), 0.5, r"or a vector, got shape \(\); pass a batch to `transform`"),
    ],
)
def test_what_is_no_sample(defence, x, message):
    with pytest.raises(ValueError, match=message):
        defence.transform_one(x)


@pytest.mark.parametrize("shape", [(5, 28, 28), (64, 28, 28), (5, 20, 24)])
def test_grey_images_without_their_channels_are_no_image(shape):
    """Refused in words before anything runs: the last axis would be one of 28 channels."""
    x = np.zeros(shape, dtype=np.float32)
    for defence in (SpatialSmoothing(3), Chain([FeatureSqueezing((0, 1)), JpegCompression((0, 1))])):
        with pytest.raises(
            ValueError,
            match=rf"of {shape[-1]} channels; .* as x\[\.\.\., None\], or layout='NHWC'",
        ):
            defence.transform_one(x)
        assert defence.transform(x[..., None]).shape == (*shape, 1)
    assert SpatialSmoothing(3, layout="NHWC").transform_one(x).shape == shape
    with pytest.raises(ValueError, match=r"of 16 channels; .* as x\[:, None\], or layout='NCHW'"):
        SpatialSmoothing(3, channels_first=True).transform_one(np.zeros((16, 28, 28)))


def test_the_other_layout_of_one_image_is_named_by_its_own_shape():
    with pytest.raises(ValueError, match=r"`x` of shape \(3, 20, 24\) has its channels first.*=True, or"):
        SpatialSmoothing(3).transform_one(np.zeros((3, 20, 24)))


def test_one_recording_of_a_filter_along_any_axis():
    """A filter has no `channels_first`: its axis says where time is."""
    x = np.array([[1.0, 3.0, 5.0, 7.0], [2.0, 2.0, 2.0, 2.0]])
    expected = [[0.5, 2.0, 4.0, 6.0], [1.0, 2.0, 2.0, 2.0]]
    for axis in (-1, 1):
        np.testing.assert_array_equal(LFilter([0.5, 0.5], axis=axis).transform_one(x), expected)
    np.testing.assert_array_equal(LFilter([0.5, 0.5], axis=0).transform_one(x.T).T, expected)


def test_remedies_can_be_pasted():
    x = LAST[..., 0]
    assert SpatialSmoothing(3).transform_one(x[..., None]).shape == (6, 5, 1)
    assert SpatialSmoothing(3, channels_first=True).transform_one(x[None]).shape == (1, 6, 5)
    video = np.stack([LAST, LAST])
    assert SpatialSmoothing(3).transform(video[None])[0].shape == video.shape


class Half(Preprocessor):
    """Drops every other sample."""

    changes_shape = True

    def _transform(self, x, draw):
        return x[::2]

    def _output_shape(self, shape):
        return (-(-shape[0] // 2), *shape[1:])


@pytest.mark.parametrize(
    "defence",
    [GaussianAugmentation(0.1), LabelSmoothing(), Chain([SpatialSmoothing(3), LabelSmoothing()]), Half()],
    ids=lambda d: type(d).__name__,
)
@pytest.mark.parametrize("x", [LAST, Image.new("RGB", (5, 6))], ids=["array", "image"])
def test_defences_that_change_labels_or_the_number_of_samples(defence, x):
    with pytest.raises(
        ValueError, match="`transform_one` takes a defence that changes neither labels nor the num"
    ):
        defence.transform_one(x)


# Images of Pillow


def picture(mode="RGB", size=(5, 4)):
    channels = len(mode)
    levels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(levels[..., 0] if channels == 1 else levels, mode=None)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("channels_first", [False, True])
def test_an_image_comes_back_as_one(mode, channels_first):
    image = picture(mode)
    out = SpatialSmoothing(3, channels_first=channels_first).transform_one(image)
    assert isinstance(out, Image.Image)
    assert (out.mode, out.size) == (mode, image.size)
    levels, colours = np.asarray(image).reshape(4, 5, -1), len(mode.replace("A", ""))
    expected = levels.copy()
    expected[..., :colours] = SpatialSmoothing(3).transform(levels[None, ..., :colours])[0]
    np.testing.assert_array_equal(np.asarray(out).reshape(4, 5, -1), expected)


@pytest.mark.parametrize(
    "clip_values", [(0, 1), (0, 255), (-1.0, 1.0), (np.zeros(3), np.array([1.0, 2.0, 255.0]))]
)
def test_the_levels_span_the_range_of_the_defence(clip_values):
    """Two levels are left: the ends of the range, to the nearer of which each value goes."""
    image = picture()
    out = FeatureSqueezing(clip_values, 1).transform_one(image)
    np.testing.assert_array_equal(np.asarray(out), np.where(np.asarray(image) > 127, 255, 0))
    every = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    if np.ndim(clip_values[0]) == 0:
        np.testing.assert_array_equal(
            FeatureSqueezing(clip_values, 8).transform_one(every), np.asarray(every)
        )


def test_without_a_range_the_levels_span_0_to_1():
    class Invert(Preprocessor):
        def _transform(self, x, draw):
            assert x.dtype == np.float32
            return 1 - x

    image = picture()
    np.testing.assert_array_equal(Invert().transform_one(image), 255 - np.asarray(image))
    grey = Image.new("L", (9, 9), 77)
    assert GaussianBlur(3).transform_one(grey).getextrema() == (77, 77)


def test_values_outside_the_range_saturate():
    out = np.asarray(Double().transform_one(picture()))
    np.testing.assert_array_equal(out, np.minimum(2 * np.asarray(picture()).astype(int), 255))


def test_an_image_that_changes_its_size():
    image = picture("RGB")
    out = Transpose().transform_one(image)
    assert out.size == (4, 5)
    np.testing.assert_array_equal(out, np.swapaxes(np.asarray(image), 0, 1))
    with pytest.raises(
        ValueError, match=r"`x` must stay an image, got one of shape \(4, 5, 3\) that Transpose turns"
    ):
        Transpose().transform_one(picture("RGBA"))  # where would alpha go?


def test_an_image_through_a_chain_is_rounded_once():
    chain = Chain([SpatialSmoothing(3, channels_first=True), JpegCompression((0, 255), channels_first=True)])
    image = picture()
    expected = chain.transform(np.moveaxis(np.asarray(image, np.float32), -1, 0)[None])[0]
    np.testing.assert_array_equal(chain.transform_one(image), np.rint(np.moveaxis(expected, 0, -1)))


@pytest.mark.parametrize(
    ("defence", "image", "message"),
    [
        (
            SpatialSmoothing(3),
            Image.new("CMYK", (4, 4)),
            r"of mode L, LA, RGB, RGBA, got mode 'CMYK'; convert it first",
        ),
        (SpatialSmoothing(3), Image.new("P", (4, 4)), r'got mode \'P\'; .*x\.convert\("RGB"\)'),
        (SpatialSmoothing(3), Image.new("1", (4, 4)), "got mode '1'"),
        (
            SpatialSmoothing(3),
            Image.new("I;16", (4, 4)),
            r"'I;16'; pass numpy.asarray\(x\)\[\.\.\., None\]",
        ),
        (
            SpatialSmoothing(3),
            Image.new("F", (4, 4)),
            r"mode 'F'; pass numpy.asarray\(x\)\[\.\.\., None\]",
        ),
        (
            ThermometerEncoding((0, 1), 4),
            picture(),
            r"turns into \(4, 5, 12\); pass numpy\.asarray\(x\), scaled to \(0, 1\)",
        ),
        (ImageResize(2, 3), picture("LA"), r'; leave its alpha out with x\.convert\("L"\), or pass numpy'),
        (Resample(2, 1), picture(), "`x` must not be an image: Resample is for audio"),
        (
            Chain([FeatureSqueezing((0, 1), 2), JpegCompression((0, 255))]),
            picture(),
            r"for stages of different ranges, \(0, 1\), \(0, 255\), got an image of Pillow; pass numpy\.",
        ),
        (
            Chain([SpatialSmoothing(3), SpatialSmoothing(3, channels_first=True)]),
            picture(),
            "`channels_first` must be the same in all stages, got False, True",
        ),
    ],
)
def test_images_that_are_refused(defence, image, message):
    with pytest.raises(ValueError, match=message):
        defence.transform_one(image)


def test_a_defence_of_few_shapes():
    class Narrow(Preprocessor):
        def _transform(self, x, draw):
            return x

        def _output_shape(self, shape):
            if shape[-1] != 3:
                raise ValueError("colours only")
            return shape

    np.testing.assert_array_equal(Narrow().transform_one(LAST), LAST)


@pytest.mark.parametrize(
    ("count", "purpose"), [(0, "0 grey images"), (1, "one grey image"), (2, "2 grey images")]
)
def test_a_remedy_counts_the_images(count, purpose):
    assert Reading((count, 5, 6), "NHWC", "C").purpose == purpose
