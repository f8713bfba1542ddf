"""The checks, rule by rule."""

import re

import numpy as np
import pytest

from preshield._core import checks
from preshield._core.layout import object_array

NUMBERS = (None, "1", [1], 1j)


@pytest.mark.parametrize("value", [True, False, np.True_])
def test_bool(value):
    checks.check_bool(flag=value)


@pytest.mark.parametrize("value", [0, 1, None, "True"])
def test_not_bool(value):
    with pytest.raises(TypeError, match=r"`flag` must be True or False, got "):
        checks.check_bool(other=True, flag=value)


@pytest.mark.parametrize("value", [1, 3, np.int64(2), np.uint8(3), 2.0, np.float64(3), np.float16(1)])
def test_integer(value):
    number = checks.check_integer("n", value, 1, 3)
    assert type(number) is int
    assert number == value


@pytest.mark.parametrize("value", [*NUMBERS, 1.5, np.float64(2.5), np.float32("inf"), True, np.True_])
def test_not_an_integer(value):
    with pytest.raises(TypeError, match=r"`n` must be an integer, got .* of type "):
        checks.check_integer("n", value)


@pytest.mark.parametrize(
    ("bounds", "value", "rule"),
    [
        ((1, 3), 0, "between 1 and 3"),
        ((1, 3), 4, "between 1 and 3"),
        ((1, None), 0, "at least 1"),
        ((None, 3), 4, "at most 3"),
    ],
)
def test_integer_out_of_range(bounds, value, rule):
    with pytest.raises(ValueError, match=rf"`n` must be {rule}, got {value}\."):
        checks.check_integer("n", value, *bounds)


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.5), np.int8(1)])
def test_number(value):
    checks.check_number("x", value, 0, 1)


@pytest.mark.parametrize("value", [*NUMBERS, True])
def test_not_a_number(value):
    with pytest.raises(TypeError, match=r"`x` must be a number, got .* of type "):
        checks.check_number("x", value)


@pytest.mark.parametrize(
    ("value", "rule"),
    [(np.nan, "finite"), (-np.inf, "finite"), (-0.1, "between 0 and 1"), (1.1, "between 0 and 1")],
)
def test_number_out_of_range(value, rule):
    with pytest.raises(ValueError, match=rf"`x` must be {rule}, got {value}\."):
        checks.check_number("x", value, 0, 1)


@pytest.mark.parametrize("value", ["c", None, 1, ("a",)])
def test_options_are_listed(value):
    checks.check_option("kind", "a", ("a", "b"))
    with pytest.raises(ValueError, match=r"`kind` must be one of 'a', 'b', got "):
        checks.check_option("kind", value, ("a", "b"))


def test_rng():
    for rng in (None, 0, np.int64(3), 10**400, np.random.default_rng(0)):
        checks.check_rng(rng)
    with pytest.raises(ValueError, match="`rng` must be at least 0, got -1"):
        checks.check_rng(-1)
    for rng in (True, 1.5, "seed", np.random.RandomState(0)):
        with pytest.raises(
            TypeError, match=r"`rng` must be None, an integer seed or a numpy\.random\.Generator"
        ):
            checks.check_rng(rng)


@pytest.mark.parametrize(
    "clip_values",
    [(0, 1), [0.0, 255], np.array([-1, 1]), (np.zeros(3), np.ones(3)), (0, np.ones(3)), ([0, 0], [1, 2])],
)
def test_clip_values(clip_values):
    checks.check_clip_values(clip_values)


@pytest.mark.parametrize(
    ("clip_values", "error", "message"),
    [
        (None, ValueError, r"must be a pair \(minimum, maximum\), got None"),
        (1.0, ValueError, r"must be a pair \(minimum, maximum\), got 1\.0"),
        ((0, 1, 2), ValueError, r"must be a pair \(minimum, maximum\), got \(0, 1, 2\)"),
        (("a", "b"), TypeError, r"must hold numbers or arrays, got \('a', 'b'\)"),
        (("0", "1"), TypeError, r"must hold numbers or arrays, got \('0', '1'\)"),
        (np.array([b"0", b"1"]), TypeError, r"must hold numbers or arrays, got "),
        ((0, ["1", 2]), TypeError, r"must hold numbers or arrays, got "),
        ((0, None), ValueError, r"must be finite"),
        ((0, np.inf), ValueError, r"must be finite, got \(0, inf\)"),
        ((1, 1), ValueError, r"must have minimum < maximum everywhere, got \(1, 1\)"),
        ((np.zeros(2), np.array([1, 0])), ValueError, r"must have minimum < maximum everywhere"),
        ((np.zeros(2), np.ones(3)), ValueError, r"arrays that fit each other, got shapes \(2,\) and \(3,\)"),
    ],
)
def test_bad_clip_values(clip_values, error, message):
    with pytest.raises(error, match=message):
        checks.check_clip_values(clip_values)


def test_clip_values_may_be_missing_where_they_are_optional():
    checks.check_clip_values(None, optional=True)


@pytest.mark.parametrize("limit", [0, np.zeros(3), np.zeros((2, 3)), np.zeros((1, 2, 3)), [[0], [0]]])
def test_limits_that_fit_one_sample(limit):
    checks.check_limits((limit, 1), (4, 2, 3))


@pytest.mark.parametrize("limit", [np.zeros(2), np.zeros((4, 1, 1)), np.zeros((1, 1, 2, 3))])
def test_limits_that_do_not_fit_one_sample(limit):
    with pytest.raises(
        ValueError, match=r"`clip_values` must .* of shape \(2, 3\), got shapes \(.*\) and \(\)"
    ):
        checks.check_limits((limit, 1), (4, 2, 3))


def test_labels_are_one_for_each_sample():
    for x in (None, [1, 2], np.float64(0), np.zeros(3), np.zeros((3, 2))):
        checks.check_labels(np.arange(3), x)
    for y in (np.arange(2), np.array(3)):
        with pytest.raises(ValueError, match="`y` must have one label for each of the 3 samples, got shape "):
            checks.check_labels(y, np.zeros((3, 2)))


def test_unknown_names_are_named_and_the_legal_ones_listed():
    with pytest.raises(TypeError, match=r"Owner has no parameter 'c'; it has none\."):
        checks.check_unknown({"c"}, (), "Owner")
    checks.check_unknown({"a"}, ("a", "b"), "Owner")
    with pytest.raises(TypeError, match=r"Owner has no parameter 'c', 'd'; it has a, b\."):
        checks.check_unknown({"a", "d", "c"}, ("a", "b"), "Owner")


class Caller:
    def __init__(self, channels_first=False, channel_index=None):
        self.channels_first = checks.resolve_channels_first(channels_first, channel_index)


@pytest.mark.parametrize(("index", "first"), [(1, True), (3, False), (4, False), (-1, False)])
def test_channel_index_sets_channels_first_and_warns_where_it_was_written(index, first):
    with pytest.warns(
        FutureWarning, match=rf"use channels_first={first} instead of channel_index={index}\."
    ) as caught:
        assert Caller(channel_index=index).channels_first is first
    assert caught[0].filename == __file__


def test_channel_index_out_of_range():
    with pytest.raises(
        ValueError, match=r"`channel_index` must be 1 .*, got 2; better: use `channels_first`"
    ):
        Caller(channel_index=2)
    with pytest.raises(TypeError, match="`channel_index` must be an integer, got 'last'"):
        Caller(channel_index="last")
    with pytest.raises(TypeError, match="`channels_first` must be True or False, got 1"):
        Caller(channels_first=1)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            np.array([1, np.nan, np.nan, np.inf]),
            ValueError,
            r"`x` must be finite, got 2 NaN and 1 infinite among 4",
        ),
        (np.array(["a"]), TypeError, r"`x` must hold real numbers, got dtype <U1"),
        (np.array([1j]), TypeError, r"`x` must hold real numbers, got dtype complex128"),
        (
            np.array([[1, 2], [3]], dtype=object),
            TypeError,
            r"`x` must be an array of numbers, got samples of 2 shapes; bring them to one shape first",
        ),
        (np.float64(1), ValueError, r"`x` must have a batch axis, got a scalar"),
    ],
)
def test_bad_features(x, error, message):
    with pytest.raises(error, match=message):
        checks.check_batch(x, ("image", "features"), None)


def test_every_nan_is_found_whatever_the_memory_layout():
    x = np.zeros((700, 700), dtype=np.float32)  # several blocks
    x[699, 699] = np.nan
    for layout in (x, x.T, x[::-1], x[:, ::-1]):
        with pytest.raises(ValueError, match=r"got 1 NaN and 0 infinite among 490000 values"):
            checks.check_batch(layout, ("features",), None)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "longdouble", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("sign", [1, -1])
def test_infinity_and_nan_of_either_sign_are_found_in_every_float(dtype, sign):
    info = np.finfo(dtype)
    numbers = np.array([0, 1, info.tiny, info.smallest_subnormal, info.max], dtype)
    for others in (numbers, -numbers, np.concatenate((numbers, -numbers))):
        checks.check_values("x", others)
        np.testing.assert_array_equal(checks.check_batch(others, ("features",), None, takes="copy"), others)
        for value, message in ((np.nan, "1 NaN and 0 infinite"), (np.inf, "0 NaN and 1 infinite")):
            x = np.append(others, np.copysign(value, sign)).astype(dtype)
            assert np.signbit(x[-1]) == (sign < 0)
            with pytest.raises(ValueError, match=f"got {message} among {x.size} values"):
                checks.check_values("x", x)
            with pytest.raises(ValueError, match=f"got {message} among {x.size} values"):
                checks.check_batch(x, ("features",), None, takes="copy")


def test_a_batch_is_a_read_only_view():
    x = np.zeros((2, 3))
    view = checks.check_batch(x, ("features",), None)
    assert np.shares_memory(view, x)
    assert not view.flags.writeable
    assert x.flags.writeable
    assert isinstance(checks.check_batch([[1, 2]], ("features",), None), np.ndarray)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "longdouble", ">f4", "u1", "i8", "?"])
def test_a_batch_to_write_to_is_a_copy(dtype):
    x = np.random.default_rng(0).normal(0, 2, (3, 5, 4)).astype(dtype)
    for layout in (x, x.T, x[:, ::2], x[::-1], x[:0]):
        layout.flags.writeable = False
        copy = checks.check_batch(layout, ("features",), None, takes="copy")
        assert copy.dtype == np.dtype(dtype).newbyteorder("=")
        assert copy.flags.writeable
        assert copy.flags.c_contiguous
        assert not np.shares_memory(copy, x)
        np.testing.assert_array_equal(copy, layout)


def test_every_block_is_copied_and_looked_at(monkeypatch):
    monkeypatch.setattr(checks, "WORTH_A_THREAD", 100)
    x = np.arange(1000, dtype=np.float32)
    np.testing.assert_array_equal(checks.check_batch(x, ("features",), None, takes="copy"), x)
    for place in (0, 24, 25, 999):
        spoilt = x.copy()
        spoilt[place] = -np.inf
        for takes in ("view", "copy"):
            with pytest.raises(ValueError, match="0 NaN and 1 infinite among 1000 values"):
                checks.check_batch(spoilt, ("features",), None, takes=takes)


@pytest.mark.parametrize(
    ("shape", "channels_first", "message"),
    [
        (
            (8, 8, 3),
            False,
            r"4-D image batch \(NHWC\) or a 5-D video batch \(NFHWC\), got shape \(8, 8, 3\); pass ",
        ),
        ((8, 8), True, r"4-D image batch \(NCHW\) or a 5-D video batch \(NCFHW\), got shape \(8, 8\); pass "),
        ((1, 1, 1, 1, 1, 1), True, r"got shape \(1, 1, 1, 1, 1, 1\)"),
    ],
)
def test_bad_images(shape, channels_first, message):
    with pytest.raises(ValueError, match=message):
        checks.check_batch(np.zeros(shape), ("image", "video"), channels_first)


def test_no_layout_is_named_where_the_channels_make_no_difference():
    with pytest.raises(
        ValueError, match=r"must be a 4-D image batch or a 5-D video batch, got shape \(8, 8\); pass "
    ):
        checks.check_batch(np.zeros((8, 8)), ("image", "video"), None)


def test_ragged_videos_whose_layout_their_defences_know():
    """A chain knows none: the channels may be first or last."""
    for shapes in (((3, 2, 8, 8), (3, 1, 8, 8)), ((2, 8, 8, 3), (1, 8, 8, 3))):
        videos = object_array([np.zeros(shape) for shape in shapes])
        assert checks.check_batch(videos, ("video",), None, ragged=True).shape == (2,)
    with pytest.raises(ValueError, match=r"`x\[1\]` must be a video with four axes, got shape \(8, 8\)\."):
        checks.check_batch(object_array([videos[0], np.zeros((8, 8))]), ("video",), None, ragged=True)


def test_audio_whose_layout_its_defences_know():
    with pytest.raises(
        ValueError, match=r"batch \(N, length\) or one with an axis of channels, got shape \(5,\)"
    ):
        checks.check_batch(np.zeros(5), ("audio",), None)


def test_ragged_samples_are_checked_one_by_one():
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros(3), np.array([0, np.inf])]
    with pytest.raises(ValueError, match=r"`x\[1\]` must be finite, got 0 NaN and 1 infinite among 2 values"):
        checks.check_batch(ragged, ("audio",), None, ragged=True)
    ragged[1] = np.full(5, "a")
    with pytest.raises(TypeError, match=r"`x\[1\]` must hold real numbers, got dtype <U1"):
        checks.check_batch(ragged, ("audio",), None, ragged=True)
    ragged[1] = np.zeros((5, 2, 1))
    with pytest.raises(
        ValueError, match=r"`x\[1\]` must be a sample \(length,\) or \(C, length\), got shape \(5, 2, 1\)"
    ):
        checks.check_batch(ragged, ("audio",), True, ragged=True)
    assert checks.check_batch(ragged, ("audio", "features"), None, ragged=True).shape == (2,)


def test_ragged_samples_cannot_be_written_to():
    samples = [np.zeros(3), np.zeros(5)]
    for x in (samples, object_array(samples)):
        batch = checks.check_batch(x, ("audio",), None, ragged=True)
        assert batch.dtype == object
        for view, sample in zip(batch, samples, strict=True):
            assert np.shares_memory(view, sample)
            assert sample.flags.writeable
            assert not view.flags.writeable
        assert not batch.flags.writeable


def test_samples_of_one_length_in_an_object_array_are_a_plain_batch():
    batch = checks.check_batch(np.array([[1, 2], [3, 4.5]], dtype=object), ("audio",), None, ragged=True)
    assert batch.dtype == np.float64
    np.testing.assert_array_equal(batch, [[1, 2], [3, 4.5]])


def test_a_ragged_list_is_refused_like_an_object_array():
    with pytest.raises(TypeError, match="got samples of 2 shapes; bring them to one shape first"):
        checks.check_batch([np.zeros(3), np.zeros(5)], ("audio",), None)


@pytest.mark.parametrize(
    ("shape", "channels_first", "message"),
    [
        (
            (5,),
            False,
            r"\(N, length\) or \(N, length, C\), got shape \(5,\); add the batch axis with x\[None\]",
        ),
        ((5, 1, 1, 1), True, r"\(N, length\) or \(N, C, length\), got shape \(5, 1, 1, 1\)\.$"),
    ],
)
def test_bad_audio(shape, channels_first, message):
    with pytest.raises(ValueError, match=f"`x` must be an audio batch {message}"):
        checks.check_batch(np.zeros(shape), ("audio",), channels_first)


@pytest.mark.parametrize(
    ("shape", "channels_first", "remedy", "shape_then"),
    [
        ((4000, 2), False, "x[None]", (1, 4000, 2)),
        ((4000, 6), True, "x.T[None]", (1, 6, 4000)),
        ((4000, 2), None, "x[None]", (1, 4000, 2)),
        ((4000, 1), False, "x.T", (1, 4000)),
        ((4000, 1), True, "x.T", (1, 4000)),
    ],
)
def test_one_recording_with_channels_is_no_batch(shape, channels_first, remedy, shape_then):
    """As soundfile and scipy read it; else it would be thousands of recordings of two values."""
    x = np.zeros(shape)
    with pytest.raises(ValueError, match=rf"one recording .* with C=\d; pass {re.escape(remedy)}\.$"):
        checks.check_batch(x, ("audio",), channels_first)
    pasted = eval(remedy, {"x": x})
    assert checks.check_batch(pasted, ("audio",), channels_first).shape == shape_then


@pytest.mark.parametrize("shape", [(1000, 2), (4000, 9), (4000, 0), (2, 4000)])
def test_batches_of_short_recordings(shape):
    assert checks.check_batch(np.zeros(shape), ("audio",), False).shape == shape


def test_gradients_of_ragged_samples():
    shapes = [(2,), (3, 1)]
    grads = [np.zeros(2, np.float32), np.zeros((3, 1))]
    for given in (grads, object_array(grads)):
        batch = checks.check_ragged_gradient(given, shapes)
        assert [grad.shape for grad in batch] == shapes
        assert not any(grad.flags.writeable for grad in batch)
    with pytest.raises(ValueError, match=r"one gradient for each of the 2 samples, got shape \(1,\)"):
        checks.check_ragged_gradient(object_array(grads[:1]), shapes)
    with pytest.raises(
        ValueError, match=r"`grad\[1\]` must have the shape \(3, 1\) of the output, got \(3,\)"
    ):
        checks.check_ragged_gradient(object_array([grads[0], np.zeros(3)]), shapes)
    with pytest.raises(TypeError, match=r"`grad\[0\]` must hold real numbers, got dtype <U1"):
        checks.check_ragged_gradient(object_array([np.full(2, "a"), grads[1]]), shapes)


@pytest.mark.parametrize("shape", [(), (3,), (1, 1)])
def test_channels(shape):
    if int(np.prod(shape)) in (1, 3):
        checks.check_channels("clip_values", np.zeros(shape), (2, 3, 4), 1)
    with pytest.raises(
        ValueError,
        match=r"`clip_values` .* each of the 3 channels of `x` \(axis 1 of shape .*\), got shape \(2,\)",
    ):
        checks.check_channels("clip_values", np.zeros(2), (2, 3, 4), 1)


def test_gradient():
    for shape in ((2, 3), (2, 10, 3)):
        assert checks.check_gradient(np.ones(shape), (2, 3)).shape == shape
    for shape in ((3, 2), (2, 3, 10), (2,), (10, 2, 3)):
        with pytest.raises(ValueError, match=r"`grad` must have the shape \(2, 3\) of the output, .*, got "):
            checks.check_gradient(np.ones(shape), (2, 3))
    with pytest.raises(TypeError, match=r"`grad` must hold real numbers, got dtype <U1"):
        checks.check_gradient(np.full((2, 3), "a"), (2, 3))


@pytest.mark.parametrize("dtype", ["u1", "i8", "?", ">f4", "f2", "longdouble"])
def test_gradients_are_floating(dtype):
    expected = np.dtype(dtype).newbyteorder("=") if np.dtype(dtype).kind == "f" else np.float32
    grad = np.ones((2, 3), dtype)
    ragged = checks.check_ragged_gradient(object_array(list(grad)), [(3,), (3,)])
    for checked in (checks.check_gradient(grad, (2, 3)), *ragged):
        assert checked.dtype == expected
        assert not checked.flags.writeable


@pytest.mark.parametrize("layout", ["NFCHW", "NCFHW"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (480, 640, 3), (28, 28, 1)])
def test_an_image_with_channels_last_is_not_said_to_be_a_grey_video(layout, shape):
    """Whoever pasted that would get a video of 480 frames, three pixels wide."""
    end = rf"got shape {re.escape(str(shape))}\.$"
    with pytest.raises(ValueError, match=end):
        checks.check_batch(np.zeros(shape), ("video",), False, layout=layout, keywords=("layout",))
