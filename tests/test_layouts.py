"""Where the channels are: batches in another layout, the setting for it, and the remedies in messages."""

import re
from functools import partial

import jax
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

import preshield
from preshield import (
    BlurNet,
    Chain,
    DefenseGAN,
    FeatureSqueezing,
    GaussianBlur,
    JpegCompression,
    MajorityVote,
    PixelDefend,
    PixelDeflection,
    Preprocessor,
    SpatialSmoothing,
    ThermometerEncoding,
    TotalVarMin,
    VideoCompression,
)
from preshield._core.checks import check_batch
from preshield._core.layout import LAYOUTS, object_array, other_layouts
from tests.cases import images, videos

FRAMES = {  # everything that knows images and videos; gradients that read the batch
    "JPEG": partial(JpegCompression, (0, 1)),
    "median": partial(SpatialSmoothing, 3, gradient="exact"),
    "even median": partial(SpatialSmoothing, 2, clip_values=(0.1, 0.8)),
    "blur": partial(GaussianBlur, 3),
    "box": partial(BlurNet, 5),
    "thermometer": partial(ThermometerEncoding, (0, 1), 3),
    "total variation": partial(TotalVarMin, max_iter=2, clip_values=(0, 1), rng=0),
    "deflection": partial(PixelDeflection, (0, 1), 4, window=2, denoiser=None, gradient="exact", rng=0),
    "deflection and wavelets": partial(PixelDeflection, (0, 1), 4, rng=0),
}
OTHERS = {
    "video": partial(VideoCompression, video_format="mp4"),
    "PixelDefend": partial(PixelDefend, pixel_cnn=lambda x: np.zeros((*x.shape, 256))),
    "GAN": partial(DefenseGAN, gan=torch.nn.Linear(2, 2)),
}


def of_layout(last, layout):
    """A batch whose channels are the last axis, in another layout."""
    return np.ascontiguousarray(np.moveaxis(last, -1, layout.index("C")))


def sides(layout, **sizes):
    return tuple(sizes[axis] for axis in layout)


# Which shapes are in doubt. What is right was decided for each by what such data are.


PLAINLY_OTHER = [  # shape, as what it is taken, what it is
    ((2, 3, 480, 640), "NHWC", ["NCHW"]),
    ((2, 4, 64, 64), "NHWC", ["NCHW"]),  # latents of a diffusion model, frames of a game
    ((1, 3, 1248, 416), "NHWC", ["NCHW"]),
    ((8, 3, 224, 224), "NHWC", ["NCHW"]),
    ((60000, 1, 28, 28), "NHWC", ["NCHW"]),
    ((2, 3, 8, 8), "NHWC", ["NCHW"]),
    ((2, 1, 40, 101), "NHWC", ["NCHW"]),  # spectrograms
    ((2, 1, 22, 1000), "NHWC", ["NCHW"]),  # EEG as torch models take it
    ((2, 480, 640, 3), "NCHW", ["NHWC"]),
    ((2, 1248, 416, 4), "NCHW", ["NHWC"]),
    ((2, 28, 28, 1), "NCHW", ["NHWC"]),
    ((2, 8, 8, 3), "NCHW", ["NHWC"]),
    ((2, 3, 16, 112, 144), "NFHWC", ["NCFHW"]),
    ((2, 3, 64, 112, 112), "NFHWC", ["NCFHW"]),
    ((2, 3, 300, 240, 320), "NFHWC", ["NCFHW"]),  # more frames than rows
    ((2, 1, 32, 32, 32), "NFHWC", ["NCFHW"]),  # voxels
    ((2, 1, 4, 8, 8), "NFHWC", ["NCFHW", "NFCHW"]),
    ((2, 16, 3, 112, 112), "NFHWC", ["NFCHW"]),
    ((2, 8, 3, 224, 398), "NFHWC", ["NFCHW"]),
    ((2, 30, 1, 28, 28), "NFHWC", ["NFCHW"]),
    ((2, 3, 4, 112, 112), "NFHWC", ["NCFHW", "NFCHW"]),  # three of four or four of three
    ((2, 16, 112, 144, 3), "NCFHW", ["NFHWC"]),
    ((2, 3, 112, 112, 3), "NCFHW", ["NFHWC"]),  # three frames, not 112 frames of 112 x 3
    ((2, 4, 8, 8, 1), "NCFHW", ["NFHWC"]),
    ((2, 8, 112, 112, 4), "NCFHW", ["NFHWC"]),
    ((2, 64, 64, 64, 1), "NCFHW", ["NFHWC"]),
    ((2, 16, 3, 112, 112), "NCFHW", ["NFCHW"]),
    ((2, 32, 1, 64, 80), "NCFHW", ["NFCHW"]),
]
AS_EXPECTED = [
    ((2, 480, 640, 3), "NHWC"),
    ((2, 3, 480, 640), "NCHW"),
    ((60000, 28, 28, 1), "NHWC"),
    ((60000, 1, 28, 28), "NCHW"),
    ((3, 6, 5, 3), "NHWC"),  # small images of tests
    ((3, 3, 6, 5), "NHWC"),
    ((3, 6, 5, 3), "NCHW"),
    ((2, 3, 4, 1), "NHWC"),
    ((2, 3, 3, 3), "NCHW"),
    ((2, 3, 12, 9), "NHWC"),
    ((2, 8, 8, 8), "NHWC"),
    ((2, 8, 8, 8), "NCHW"),
    ((2, 64, 64, 2), "NHWC"),  # two or ten bands
    ((2, 2, 64, 64), "NCHW"),
    ((2, 64, 64, 10), "NHWC"),
    ((2, 10, 64, 64), "NCHW"),
    ((2, 145, 145, 200), "NHWC"),
    ((500, 3, 3, 200), "NHWC"),  # patches of hyperspectral images
    ((2, 4, 4, 512), "NHWC"),  # feature maps
    ((2, 1, 1, 2048), "NHWC"),
    ((2, 512, 4, 4), "NCHW"),
    ((2, 28, 28, 16), "NHWC"),  # thermometer codes
    ((2, 48, 32, 32), "NCHW"),
    ((2, 1, 100, 2), "NHWC"),  # rows of stereo sound, of accelerations, of an ECG
    ((2, 1, 128, 9), "NHWC"),
    ((2, 3, 1000, 12), "NHWC"),
    ((2, 4, 50, 8), "NHWC"),
    ((2, 3, 112, 112, 3), "NFHWC"),  # three and four frames
    ((2, 4, 112, 144, 3), "NFHWC"),
    ((2, 1, 480, 640, 3), "NFHWC"),
    ((2, 16, 112, 144, 3), "NFHWC"),
    ((2, 3, 112, 112, 10), "NFHWC"),
    ((2, 4, 112, 112, 30), "NFHWC"),  # their thermometer code
    ((2, 3, 120, 160, 48), "NFHWC"),
    ((2, 3, 3, 112, 112), "NCFHW"),
    ((2, 3, 4, 112, 112), "NCFHW"),
    ((2, 1, 1, 112, 112), "NCFHW"),
    ((2, 3, 16, 112, 144), "NCFHW"),
    ((2, 6, 3, 224, 224), "NCFHW"),  # six or thirteen bands at three times, from a satellite
    ((2, 13, 4, 224, 224), "NCFHW"),
    ((2, 1, 64, 64, 64), "NCFHW"),  # voxels
    ((2, 64, 64, 64, 1), "NFHWC"),
    ((0, 3, 5, 2), "NHWC"),
]


@pytest.mark.parametrize(("shape", "expected", "found"), PLAINLY_OTHER)
def test_a_batch_that_plainly_has_another_layout(shape, expected, found):
    assert list(other_layouts(shape, expected)) == found


@pytest.mark.parametrize(("shape", "expected"), AS_EXPECTED)
def test_a_batch_that_may_well_have_the_expected_layout(shape, expected):
    assert not other_layouts(shape, expected)


@given(
    layout=st.sampled_from([name for names in LAYOUTS.values() for name in names]),
    channels=st.sampled_from([1, 3, 4]),
    frames=st.integers(1, 64),
    height=st.integers(16, 600),
    width=st.integers(16, 600),
)
def test_usual_images_and_videos_are_never_refused_in_their_own_layout(
    layout, channels, frames, height, width
):
    if layout in {"NCFHW", "NFHWC"}:
        assert not other_layouts(sides(layout, N=2, C=channels, F=frames, H=height, W=width), layout)
    elif len(layout) == 4:
        shape = sides(layout, N=2, C=channels, H=height, W=width)
        assert not other_layouts(shape, layout)
        (other,) = {"NHWC", "NCHW"} - {layout}
        assert other_layouts(shape, other) == (layout,)


# Refused in words, and silenced by a keyword


@pytest.mark.parametrize(
    ("shape", "parameters", "message", "remedies"),
    [
        (
            (2, 3, 48, 64),
            {},
            (
                "has its channels first, but channels_first=False; pass channels_first=True, or layout='NHWC'"
                " if there are indeed 64 channels."
            ),
            [{"channels_first": True}, {"layout": "NHWC"}, {"layout": "NCHW"}],
        ),
        (
            (2, 48, 64, 3),
            {"channels_first": True},
            (
                "has its channels last, but channels_first=True; pass channels_first=False, or layout='NCHW'"
                " if there are indeed 48 channels."
            ),
            [{"channels_first": False}, {"channels_first": True, "layout": "NCHW"}, {"layout": "NHWC"}],
        ),
        (
            (2, 3, 16, 20, 24),
            {},
            (
                "has its channels first, but channels_first=False; pass channels_first=True, or "
                "layout='NFHWC' if there are indeed 24 channels."
            ),
            [{"channels_first": True}, {"layout": "NFHWC"}, {"layout": "NCFHW"}],
        ),
        (
            (2, 16, 3, 20, 24),
            {},
            (
                "has its channels after the frames, but channels_first=False; pass layout='NFCHW', or "
                "layout='NFHWC' if there are indeed 24 channels."
            ),
            [{"layout": "NFCHW"}, {"layout": "NFHWC"}],
        ),
        (
            (2, 16, 3, 20, 24),
            {"channels_first": True},
            (
                "has its channels after the frames, but channels_first=True; pass layout='NFCHW' in place of "
                "channels_first=True, or layout='NCFHW' if there are indeed 16 channels."
            ),
            [{"layout": "NFCHW"}, {"channels_first": True, "layout": "NCFHW"}],
        ),
        (
            (2, 3, 4, 20, 24),
            {},
            (
                "has its channels first or after the frames, but channels_first=False; pass "
                "channels_first=True for NCFHW or layout='NFCHW' for NFCHW, or layout='NFHWC' if there are "
                "indeed 24 channels."
            ),
            [{"channels_first": True}, {"layout": "NFCHW"}, {"layout": "NFHWC"}],
        ),
    ],
)
@pytest.mark.parametrize("name", ["median", "JPEG", "thermometer", "blur"])
def test_another_layout_is_refused_and_every_remedy_is_taken(name, shape, parameters, message, remedies):
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    for call in (x, torch.tensor(x), tf.constant(x)):
        with pytest.raises(ValueError, match=re.escape(f"`x` of shape {shape} {message}")):
            FRAMES[name](**parameters).transform(call)
    with pytest.raises(ValueError, match="has its channels"):
        FRAMES[name](**parameters).estimate_gradient(x, x)
    with pytest.raises(ValueError, match="has its channels"):
        FRAMES[name](**parameters).fit(x)
    for remedy in remedies:
        defence = FRAMES[name](**remedy)
        assert defence.transform(x).shape == defence._output_shape(shape)


def test_ragged_videos_are_looked_at_one_by_one():
    right, wrong = np.zeros((2, 20, 24, 3)), np.zeros((16, 3, 20, 24))
    video = VideoCompression(video_format="mp4")
    message = (
        r"`x\[1\]` of shape \(16, 3, 20, 24\) has its channels after the frames, .*; pass layout='NFCHW', "
    )
    with pytest.raises(ValueError, match=message):
        video.transform(object_array([right, wrong]))
    out = VideoCompression(video_format="mp4", layout="NFCHW").transform(object_array([wrong, wrong[:9]]))
    assert [sample.shape for sample in out] == [(16, 3, 20, 24), (9, 3, 20, 24)]


class LastOnly(Preprocessor):
    """What a class without a parameter can say: a class attribute."""

    channels_first = False

    def _transform(self, x, draw):
        return x - x.mean(axis=3, keepdims=True)


def test_a_class_without_the_parameters_is_offered_to_move_the_axis():
    x = np.random.default_rng(0).random((2, 3, 40, 50))
    with pytest.raises(ValueError, match=r"channels first, .*; pass np\.moveaxis\(x, 1, 3\)\.$"):
        LastOnly().transform(x)
    assert LastOnly().transform(np.moveaxis(x, 1, 3)).shape == (2, 40, 50, 3)


# The setting


@pytest.mark.parametrize("name", [*FRAMES, *OTHERS])
def test_the_setting_is_a_parameter_like_others(name):
    make = (FRAMES | OTHERS)[name]
    layouts = {"video": LAYOUTS["video"], "PixelDefend": LAYOUTS["image"], "GAN": LAYOUTS["image"]}
    legal = layouts.get(name, (*LAYOUTS["image"], *LAYOUTS["video"]))
    assert make().layout is None
    assert "layout" not in repr(make())
    for layout in legal:
        defence = make(layout=layout)
        assert f"layout='{layout}'" in repr(defence)
        assert defence.get_params()["layout"] == layout
        assert defence.channels_first is False
        assert make().set_params(layout=layout).layout == layout
        assert defence.set_params(layout=None).layout is None
        assert clone(make(layout=layout)).layout == layout
        if layout in ("NCHW", "NCFHW"):
            assert make(channels_first=True, layout=layout).layout == layout
        else:
            with pytest.raises(ValueError, match=rf"layout='{layout}' with channels_first=True, .* pass "):
                make(channels_first=True, layout=layout)
            with pytest.raises(ValueError, match="`layout` must agree with `channels_first`"):
                make(channels_first=True).set_params(layout=layout)
            changed = make(channels_first=True).set_params(layout=layout, channels_first=False)
            assert changed.layout == layout
    others = {name for names in LAYOUTS.values() for name in names} - set(legal)
    for wrong in (*others, "nhwc", "HWC", "", 1, True, ["NHWC"]):
        with pytest.raises(ValueError, match=r"`layout` must be None or one of 'N.*, got "):
            make(layout=wrong)


def test_every_defence_that_knows_channels_has_the_setting():
    classes = [getattr(preshield, row.name) for row in preshield.list_defences()]
    known = [c for c in classes if "channels_first" in getattr(c, "params", ()) and "audio" not in c.domains]
    assert len(known) >= 10
    for cls in known:
        assert "layout" in cls.params, cls


@pytest.mark.parametrize("layout", [name for names in LAYOUTS.values() for name in names])
@pytest.mark.parametrize("name", FRAMES)
def test_a_layout_gives_what_moving_the_axes_gives(name, layout):
    """Draws belong to pixels, so stochastic defences are no exception."""
    last = (images() if len(layout) == 4 else videos()).astype(np.float32)
    plain, defence = FRAMES[name](), FRAMES[name](layout=layout)
    axis, x = layout.index("C"), of_layout(last, layout)
    rng = np.random.default_rng(1)
    with plain.frozen(0), defence.frozen(0):
        expected, found = plain.transform(last), defence.transform(x)
        np.testing.assert_allclose(np.moveaxis(found, axis, -1), expected, rtol=0, atol=1e-6)
        assert defence._output_shape(x.shape) == found.shape
        grad = rng.standard_normal(expected.shape).astype(np.float32)
        pulled = plain.estimate_gradient(last, grad)
        back = defence.estimate_gradient(x, of_layout(grad, layout))
        np.testing.assert_allclose(np.moveaxis(back, axis, -1), pulled, rtol=0, atol=1e-5)
        classes = np.stack([of_layout(grad, layout), -2 * of_layout(grad, layout)], axis=1)
        back = defence.estimate_gradient(x, classes)
        np.testing.assert_allclose(np.moveaxis(back[:, 1], axis, -1), -2 * pulled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["median", "thermometer", "total variation"])
def test_a_layout_holds_for_tensors_and_in_graphs(name):
    last = videos().astype(np.float32)
    x, plain, defence = of_layout(last, "NFCHW"), FRAMES[name](), FRAMES[name](layout="NFCHW")
    with plain.frozen(0), defence.frozen(0):
        expected = plain.transform(last)
        weights = np.random.default_rng(0).standard_normal(expected.shape).astype(np.float32)
        pulled = of_layout(plain.estimate_gradient(last, weights), "NFCHW")
        expected, weights = of_layout(expected, "NFCHW"), of_layout(weights, "NFCHW")

        tensor = torch.tensor(x, requires_grad=True)
        out = defence.transform(tensor)
        (out * torch.tensor(weights)).sum().backward()
        np.testing.assert_allclose(out.detach(), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(tensor.grad, pulled, rtol=0, atol=1e-5)

        @tf.function
        def traced(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                out = defence.transform(x)
                product = tf.reduce_sum(out * weights)
            return out, tape.gradient(product, x)

        out, back = traced(tf.constant(x))
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(back, pulled, rtol=0, atol=1e-5)

        out = jax.jit(defence.transform)(x)
        back = jax.jit(jax.grad(lambda x: (defence.transform(x) * weights).sum()))(x)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(back, pulled, rtol=0, atol=1e-5)


def test_limits_and_maps_have_the_axes_of_the_batch():
    """In NFCHW limits for each channel are (3, 1, 1), which in NCFHW would be limits for each frame."""
    x = np.random.default_rng(0).random((2, 3, 3, 6, 5))
    low, high = np.array([0.2, 0.0, 0.4]), np.array([0.5, 1.0, 0.6])
    limits = low[:, None, None], high[:, None, None]
    out = SpatialSmoothing(1, clip_values=limits, layout="NFCHW").transform(x)
    for channel in range(3):
        expected = np.clip(x[:, :, channel], low[channel], high[channel])
        np.testing.assert_array_equal(out[:, :, channel], expected)
    seen = []

    def nowhere(batch):
        seen.append(batch.shape)
        return np.ones((2, 3, 6, 5))

    still = PixelDeflection((0, 1), 9, activation_map=nowhere, denoiser=None, layout="NFCHW", rng=0)
    np.testing.assert_array_equal(still.transform(x), x)
    assert seen == [(2, 3, 3, 6, 5)]
    code = ThermometerEncoding((low, high), 2, layout="NFCHW").transform(x)
    for channel in range(3):
        middle = low[channel] + (high[channel] - low[channel]) / 2
        np.testing.assert_array_equal(code[:, :, 2 * channel + 1], x[:, :, channel] > middle)


def test_videos_of_torch_through_h264():
    last = videos().astype(np.float32)
    expected = VideoCompression(video_format="mp4").transform(last)
    for layout in LAYOUTS["video"]:
        video = VideoCompression(video_format="mp4", layout=layout)
        out = video.transform(of_layout(last, layout))
        np.testing.assert_array_equal(np.moveaxis(out, layout.index("C"), -1), expected)
        ragged = video.transform(object_array(list(of_layout(last, layout))))
        np.testing.assert_array_equal(np.moveaxis(ragged[1], layout.index("C") - 1, -1), expected[1])


@pytest.mark.parametrize(
    ("shape", "setting", "remedy"),
    [
        ((2, 6, 5, 1), {}, r"pass np\.repeat\(x, 3, axis=3\)"),
        ((2, 4, 3, 6, 5), {}, "pass layout='NFCHW'"),
        ((2, 3, 4, 6, 5), {}, "pass channels_first=True"),
        ((2, 3, 4, 6, 5), {"layout": "NFCHW"}, "pass layout='NCFHW'"),
        ((2, 4, 6, 5, 3), {"layout": "NFCHW"}, "pass layout='NFHWC'"),
        ((2, 3, 3, 6, 5), {}, "pass channels_first=True for NCFHW or layout='NFCHW' for NFCHW"),
        ((2, 4, 6, 5, 1), {}, r"pass np\.repeat\(x, 3, axis=4\)"),
        ((2, 4, 1, 6, 5), {"layout": "NFCHW"}, r"pass np\.repeat\(x, 3, axis=2\)"),
        ((2, 4, 6, 5, 7), {}, "keep three of them"),
    ],
)
def test_videos_that_are_not_rgb(shape, setting, remedy):
    x, video = np.full(shape, 0.5, np.float32), partial(VideoCompression, video_format="mp4")
    if len(shape) == 4:  # one sample of a ragged batch
        x, remedy = object_array([x]), remedy.replace("x,", r"x\[0\],")
    with pytest.raises(ValueError, match=rf"must have 3 channels, RGB, got \d in shape .*; {remedy}\.$"):
        video(**setting).transform(x)


@pytest.mark.parametrize(
    ("layout", "shape", "wanted", "remedy"),
    [
        ("NHWC", (2, 5, 6, 7, 3), "4-D image", "; pass x with layout='NFHWC' for videos."),
        ("NCHW", (2, 5, 3, 6, 7), "4-D image", "; pass x with layout='NFCHW' for videos."),
        (
            "NFHWC",
            (2, 6, 7, 3),
            "5-D video",
            "; pass x with layout='NHWC' for images, or x[None] for one video",
        ),
        (
            "NFCHW",
            (2, 3, 6, 7),
            "5-D video",
            "; pass x with layout='NCHW' for images, or x[None] for one video",
        ),
        ("NFCHW", (2, 7), "5-D video", "."),
    ],
)
@pytest.mark.parametrize("name", ["median", "thermometer"])
def test_a_stated_layout_has_so_many_axes(name, layout, shape, wanted, remedy):
    message = f"`x` must be a {wanted} batch ({layout}), got shape {shape}{remedy}"
    with pytest.raises(ValueError, match=re.escape(message)):
        FRAMES[name](layout=layout).transform(np.zeros(shape))


def test_limits_of_a_stated_layout_are_those_of_its_shape():
    """Rows of sound features: one row, a hundred steps, forty channels."""
    x = np.random.default_rng(0).random((2, 1, 100, 40))
    with pytest.raises(ValueError, match="if there are indeed 40 channels"):
        SpatialSmoothing(3).transform(x)
    out = SpatialSmoothing(3, layout="NHWC").transform(x)
    padded = np.concatenate([x[:, 0, :1], x[:, 0], x[:, 0, -1:]], axis=1)
    windows = np.stack([padded[:, i : i + 100] for i in range(3)])
    np.testing.assert_array_equal(out[:, 0], np.median(windows, axis=0))


# Chains


def test_a_chain_does_not_doubt_what_its_own_stages_made():
    x = np.random.default_rng(0).random((2, 1, 100, 2))  # one row, a hundred steps, stereo
    code, median = ThermometerEncoding((0, 1), 10), SpatialSmoothing(3)
    expected = SpatialSmoothing(3, layout="NHWC").transform(code.transform(x))
    assert expected.shape == (2, 1, 100, 20)
    for chain in (
        Chain([code, median]),
        Chain([code, FeatureSqueezing((0, 1), 8), median]),
        Chain([Chain([code]), Chain([median])]),
        Chain([Chain([code, Chain([median])])]),
    ):
        np.testing.assert_array_equal(chain.transform(x), expected)
        assert chain.estimate_gradient(x, np.ones_like(expected)).shape == x.shape


@pytest.mark.parametrize("nested", [False, True])
def test_a_chain_names_the_stage_that_reads_another_layout(nested):
    x = np.random.default_rng(0).random((2, 3, 40, 50))
    median, jpeg = SpatialSmoothing(3, channels_first=True), JpegCompression((0, 1))
    chain = Chain([median, Chain([jpeg])] if nested else [median, jpeg])
    where = r"`defences\[1\]`, Chain: `defences\[0\]`" if nested else r"`defences\[1\]`"
    message = rf"^{where}, JpegCompression: `x` of shape .* channels first, but channels_first=False; pass "
    with pytest.raises(ValueError, match=message):
        chain.transform(x)
    right = Chain([median, JpegCompression((0, 1), channels_first=True)])
    assert right.transform(x).shape == x.shape


class ToLast(Preprocessor):
    """Moves the channels of images to the end."""

    changes_shape = True

    def _transform(self, x, draw):
        return np.ascontiguousarray(np.moveaxis(x, 1, 3))

    def _gradient(self, x, grad, draw):
        return np.moveaxis(grad, 3, 1)

    def _output_shape(self, shape):
        return shape[0], *shape[2:], shape[1]


def test_a_stage_may_move_the_axes():
    x = np.random.default_rng(0).random((2, 3, 40, 50))
    first, last = SpatialSmoothing(3, channels_first=True), SpatialSmoothing(5)
    expected = last.transform(np.moveaxis(first.transform(x), 1, 3))
    np.testing.assert_array_equal(Chain([first, ToLast(), last]).transform(x), expected)
    with pytest.raises(ValueError, match=r"`defences\[1\]`, SpatialSmoothing: .* has its channels last"):
        Chain([ToLast(), first]).transform(x)


# Others that have a layout


def test_the_default_views_of_a_vote_have_a_layout():
    x = np.random.default_rng(0).random((4, 1, 100, 40), dtype=np.float32)

    def predict(x):
        return (x.mean(axis=(1, 2, 3)) > 0.5).astype(int)

    with pytest.raises(ValueError, match=r"pass channels_first=True, or layout='NHWC' if"):
        MajorityVote(predict).predict(x)
    np.testing.assert_array_equal(MajorityVote(predict, layout="NHWC").predict(x), predict(x))
    with pytest.raises(ValueError, match=r"`layout` must be left out with `views`, .*, got 'NHWC'"):
        MajorityVote(predict, [None], layout="NHWC")
    with pytest.raises(ValueError, match="`layout` must be None or one of"):
        MajorityVote(predict, layout="HWC")


# Remedies, as someone who pastes them


REMEDY = re.compile(
    r"(x(?:\[[^\]]*\])?|np\.moveaxis\(x(?:\[None\])?, \d, \d\)|x\.reshape\([^;]*?\)(?= for| or))"
    r"(?: with ((?:channels_first|layout)=[\w']+)(?: in place of channels_first=True)?)?"
    r"(?: or x[^ ]*)* for ([^,.]+)"
)


def offered(error):
    """What a message says to pass, and what for."""
    text = str(error.value)
    assert "; pass " in text, text
    return [match.groups() for match in REMEDY.finditer(text.split("; pass ", 1)[1])]


def refused(defence, x):
    with pytest.raises(ValueError, match=r"got shape .*; pass ") as error:
        defence.transform(x)
    return offered(error)


def taken(make, setting, parameters, expression, x):
    """The batch and the defence after a remedy."""
    if setting:
        name, value = setting.split("=")
        parameters = {} if name == "layout" else parameters
        parameters = parameters | {name: {"True": True, "False": False}.get(value, value.strip("'"))}
    height, width, channels = 28, 28, 1
    names = {"x": x, "np": np, "height": height, "width": width, "channels": channels, "len": len}
    return make(**parameters), eval(expression, names)


SINGLE = {  # shape, parameters: expression, setting, and for what it is
    ((100, 28, 28), ()): [("x[..., None]", None, "100 grey images")],
    ((100, 28, 28), ("channels_first",)): [("x[:, None]", None, "100 grey images")],
    ((28, 28, 1), ()): [("x[None]", None, "one image")],
    ((480, 640, 3), ()): [("x[None]", None, "one image")],
    ((480, 640, 3), ("channels_first",)): [("x[None]", "channels_first=False", "one image")],
    ((3, 48, 64), ()): [
        ("x[..., None]", None, "3 grey images"),
        ("x[None]", "channels_first=True", "one image"),
    ],
    ((3, 48, 64), ("channels_first",)): [
        ("x[None]", None, "one image"),
        ("x[:, None]", None, "3 grey images"),
    ],
    ((64, 64, 10), ()): [
        ("x[None]", None, "one image with 10 channels"),
        ("x[..., None]", None, "64 grey images"),
    ],
    ((28, 30), ()): [
        ("x[None, ..., None]", None, "one grey image"),
        ("x.reshape(len(x), height, width, channels)", None, "flattened images"),
    ],
    ((28, 30), ("channels_first",)): [
        ("x[None, None]", None, "one grey image"),
        ("x.reshape(len(x), channels, height, width)", None, "flattened images"),
    ],
}


@pytest.mark.parametrize(("shape", "flags"), SINGLE)
@pytest.mark.parametrize("name", ["median", "JPEG", "blur"])
def test_what_is_offered_for_images_without_all_axes(name, shape, flags):
    defence = FRAMES[name](**dict.fromkeys(flags, True))
    assert refused(defence, np.zeros(shape, np.float32)) == SINGLE[shape, flags]


def plain_median(image):
    """Of one grey image, by hand."""
    padded = np.pad(image, 1, mode="symmetric")
    height, width = image.shape
    windows = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.median(windows, axis=0)


@settings(max_examples=40)
@given(
    sizes=st.tuples(*[st.sampled_from([1, 3, 4, 7, 10, 17, 20])] * 3),
    parameters=st.sampled_from(
        [{}, {"channels_first": True}, {"layout": "NHWC"}, {"layout": "NCHW"}, {"layout": "NFCHW"}]
    ),
)
def test_a_pasted_remedy_treats_images_as_meant(sizes, parameters):
    """The medians are those of each grey image on its own, or of each channel of the one image."""
    x = np.random.default_rng(0).random(sizes)
    make = partial(SpatialSmoothing, 3)
    for expression, setting, purpose in refused(make(**parameters), x):
        defence, batch = taken(make, setting, parameters, expression, x)
        found = defence.transform(batch).reshape(batch.shape)
        grey = "grey" in purpose  # the axes of the pictures are the last two of `x`
        if grey or parameters.get("layout") == "NFCHW":
            pictures, planes = x, found.reshape(x.shape)
        elif defence._channel_axis(4) == 3:
            pictures, planes = np.moveaxis(x, 2, 0), np.moveaxis(found[0], 2, 0)
        else:
            pictures, planes = x, found[0]
        expected = [plain_median(picture) for picture in pictures]
        np.testing.assert_allclose(planes, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parameters", [{}, {"channels_first": True}])
def test_a_pasted_remedy_treats_one_or_flattened_images_as_meant(parameters):
    pictures = np.random.default_rng(0).random((5, 28, 28))
    expected = [plain_median(picture) for picture in pictures]
    make = partial(SpatialSmoothing, 3)
    for x, purpose, medians in (
        (pictures[0], "one grey image", expected[0]),
        (pictures.reshape(5, 784), "flattened images", expected),
    ):
        ((expression, setting),) = [(e, s) for e, s, p in refused(make(**parameters), x) if p == purpose]
        defence, batch = taken(make, setting, parameters, expression, x)
        assert batch.ndim == 4
        np.testing.assert_allclose(np.squeeze(defence.transform(batch)), medians, rtol=0, atol=1e-12)


def test_pasted_remedies_make_rgb_videos_of_grey_ones():
    x = np.random.default_rng(0).random((2, 5, 20, 24), dtype=np.float32)
    video = VideoCompression(video_format="mp4")
    assert refused(video, x) == [("x[..., None]", None, "2 grey videos")]
    with pytest.raises(ValueError, match="; pass ") as error:
        video.transform(x[..., None])
    expression = str(error.value).partition("; pass ")[2].rstrip(".")
    rgb = eval(expression, {"x": x[..., None], "np": np})
    np.testing.assert_array_equal(rgb, np.stack([x, x, x], axis=-1))
    assert video.transform(rgb).shape == (2, 5, 20, 24, 3)


@pytest.mark.parametrize(
    "parameters", [{}, {"channels_first": True}, {"layout": "NFCHW"}, {"layout": "NCFHW"}]
)
@pytest.mark.parametrize(
    ("shape", "layout", "purpose"),
    [
        ((16, 20, 24, 3), "FHWC", "one video"),
        ((3, 16, 20, 24), "CFHW", "one video"),
        ((16, 3, 20, 24), "FCHW", "one video"),
    ],
)
def test_a_pasted_remedy_treats_one_video_as_meant(shape, layout, purpose, parameters):
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    make = partial(VideoCompression, video_format="mp4")
    last = np.moveaxis(x, layout.index("C"), -1)
    expected = make(layout="NFHWC").transform(np.ascontiguousarray(last)[None])[0]
    (expression, setting) = next((e, s) for e, s, p in refused(make(**parameters), x) if p == purpose)
    defence, batch = taken(make, setting, parameters, expression, x)
    assert batch.ndim == 5
    out = np.moveaxis(defence.transform(batch)[0], layout.index("C"), -1)
    np.testing.assert_array_equal(out, expected)


def test_images_before_a_defence_of_videos():
    x = np.random.default_rng(0).random((2, 20, 24, 3), dtype=np.float32)
    offers = refused(VideoCompression(video_format="mp4"), x)
    assert ("x[:, None]", None, "2 images to be taken as a video of one frame") in offers
    one = VideoCompression(video_format="mp4").transform(x[:, None])
    assert one.shape == (2, 1, 20, 24, 3)


def test_videos_before_a_defence_of_images():
    for parameters, shape in (({}, (2, 5, 6, 8, 3)), ({"channels_first": True}, (2, 5, 3, 6, 8))):
        x = np.random.default_rng(0).random(shape, dtype=np.float32)
        defence = PixelDefend(
            pixel_cnn=lambda x: np.zeros((len(x), 6 * 8 * 3 * 256)), decoding="one-pass", **parameters
        )
        ((expression, _, purpose),) = refused(defence, x)
        assert purpose == "videos"
        assert defence.transform(eval(expression, {"x": x})).shape == (10, *shape[2:])


def test_stages_of_different_layouts_leave_both_offers():
    chain = Chain([SpatialSmoothing(3, channels_first=True), ToLast(), SpatialSmoothing(3)])
    with pytest.raises(ValueError, match=r"pass x\[\.\.\., None\] or x\[:, None\] for 9 grey images, or"):
        chain.transform(np.zeros((9, 28, 28)))


@pytest.mark.parametrize("shape", [(5,), (), (1, 1, 1, 1, 1, 1)])
def test_no_remedy_is_invented(shape):
    for defence in (SpatialSmoothing(3), SpatialSmoothing(3, layout="NFCHW"), DefenseGAN()):
        with pytest.raises(ValueError, match=r"got shape \([^)]*\)\.$"):
            defence.transform(np.zeros(shape))


def test_models_offer_what_can_be_passed_to_them():
    """They have no setting: an axis has to be moved."""
    with pytest.raises(
        ValueError,
        match=r"pass x\[\.\.\., None\] for 3 grey images, or np\.moveaxis\(x\[None\], 1, 3\) for",
    ):
        check_batch(np.zeros((3, 20, 24)), ("image",), None, layout="NHWC")


def test_one_axis_before_a_thermometer():
    with pytest.raises(ValueError, match=r"pass x\[:, None\] for samples of one value each, or x\[None\] "):
        ThermometerEncoding((0, 1), 2).transform(np.array([0.2, 0.7]))
    code = ThermometerEncoding((0, 1), 2)
    np.testing.assert_array_equal(code.transform(np.array([0.2, 0.7])[:, None]), [[1, 0], [1, 1]])
    np.testing.assert_array_equal(code.transform(np.array([0.2, 0.7])[None]), [[1, 0, 1, 1]])
