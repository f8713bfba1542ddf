"""MP3 compression: alignment, length, scale, saturation, its rules, and what an interruption leaves."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preshield import Chain, GaussianAugmentation, Mp3Compression, Resample
from preshield.codecs import mp3
from tests.cases import audio

LEVEL = 0.95  # LAME turns every signal down to this


def tone(length, rate=16000, hertz=440, level=0.5):
    return level * np.sin(np.arange(length) / rate * 2 * np.pi * hertz)


def expected(pcm, rate, bit_rate=None):
    """16-bit samples (L, C) through the codec."""
    return mp3.decode(mp3.encode(pcm, rate, bit_rate))[: len(pcm)]


def ragged(*samples):
    out = np.empty(len(samples), dtype=object)
    out[:] = samples
    return out


# Values


@settings(max_examples=40)
@given(
    length=st.integers(1, 3000),
    channels=st.sampled_from([None, 1, 2]),
    channels_first=st.booleans(),
    dtype=st.sampled_from([np.int16, np.float32, np.float64]),
    rate=st.sampled_from(mp3.SAMPLE_RATES),
    seed=st.integers(0, 99),
)
@example(length=1, channels=None, channels_first=False, dtype=np.float32, rate=16000, seed=0)
@example(length=1, channels=2, channels_first=True, dtype=np.int16, rate=48000, seed=0)
@example(length=47, channels=1, channels_first=False, dtype=np.float64, rate=8000, seed=0)
def test_shape_dtype_and_values_are_those_of_the_codec(length, channels, channels_first, dtype, rate, seed):
    pcm = np.random.default_rng(seed).integers(-9000, 9000, (length, channels or 1)).astype(np.int16)
    out = expected(pcm, rate)
    x, out = (a if dtype == np.int16 else (a / 32768).astype(dtype) for a in (pcm, out))
    x, out = (a[:, 0] if channels is None else a.T if channels_first else a for a in (x, out))
    defended = Mp3Compression(rate, channels_first).transform(x[None])
    assert defended.dtype == dtype
    np.testing.assert_array_equal(defended, out[None])


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_a_tone_stays_where_it_is(rate):
    x = tone(rate, rate)
    out = Mp3Compression(rate).transform(x[None])[0]
    correlation = np.correlate(out, x, mode="same")
    assert np.argmax(correlation) == len(x) // 2  # lag 0
    np.testing.assert_allclose(out[2000:-2000], LEVEL * x[2000:-2000], atol=1e-3)


def test_values_are_cut_off_to_16_bits():
    steps = np.array([0.99, -0.99, 1.5, -1.5, 7, -32768.9])
    x = np.tile(steps, 200)
    pcm = np.tile(np.array([0, 0, 1, -1, 7, -32768], np.int16), 200)[:, None]
    out = Mp3Compression(16000).transform(x[None])
    np.testing.assert_array_equal(out[0], expected(pcm, 16000)[:, 0])
    out = Mp3Compression(16000).transform(np.array([1e-9, *x])[None] / 32769)
    np.testing.assert_array_equal(
        out[0] * 32768,
        expected(np.insert(np.trunc(x * 32768 / 32769), 0, 0).astype(np.int16)[:, None], 16000)[:, 0],
    )


def test_the_scale_is_guessed_sample_by_sample():
    x = np.stack([tone(4000), 20000 * tone(4000)])
    out = Mp3Compression(16000).transform(x)
    assert np.abs(out[0] - x[0]).max() < 0.2
    assert np.abs(out[1] - x[1]).max() < 4000
    alone = Mp3Compression(16000).transform(x[:1])
    np.testing.assert_array_equal(out[:1], alone)


TAKEN = r"taken for audio in \[-1, 1\], cut off there; pass full_scale=1\.0 if it is, or full_scale=32768"


def rms(x):
    return np.sqrt(np.mean(x**2))


def attacked():
    """A recording with an RMS of 0.433, and one value that an attack has pushed to 1.0014."""
    x = tone(16000, level=0.6)[None] + np.random.default_rng(0).uniform(-0.1, 0.1, (1, 16000))
    x *= 0.433 / rms(x)
    x[0, 8000] = 1.0014
    return x


def test_one_value_outside_the_range_is_cut_off_and_no_more():
    x = attacked()
    with pytest.warns(UserWarning, match=r"^Mp3Compression: `x` reaches 1\.0014, .*" + TAKEN):
        out = Mp3Compression(16000).transform(x)
    assert rms(out) == pytest.approx(0.4115, rel=5e-3)  # 95% of 0.433; 0.0158 for steps of 16 bits
    np.testing.assert_array_equal(out, Mp3Compression(16000, full_scale=1.0).transform(x))


@pytest.mark.parametrize("peak", [1.2, -1.01, 2.5, -7.9])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_attacks_and_noise_leave_the_range(peak, dtype):
    x = attacked().astype(dtype)
    x[0, 8000] = peak
    defence = Mp3Compression(16000)
    with pytest.warns(UserWarning, match=TAKEN):
        out = defence.transform(x)
    np.testing.assert_array_equal(out, Mp3Compression(16000, full_scale=1).transform(x))
    defence.transform(x)  # warns once


def test_resampled_recordings_overshoot():
    square = np.where(tone(44100, rate=44100, hertz=300) >= 0, 1.0, -1.0)[None]
    down = Resample(44100, 16000)
    assert 1.1 < np.abs(down.transform(square)).max() < 1.3
    with pytest.warns(UserWarning, match=TAKEN):
        out = Chain([down, Mp3Compression(16000)]).transform(square)
    np.testing.assert_array_equal(out, Chain([down, Mp3Compression(16000, full_scale=1)]).transform(square))
    assert 0.9 < rms(out) < 1


def test_a_chain_that_begins_with_noise():
    x, noise = np.clip(attacked(), -1, 1), GaussianAugmentation(0.3, augmentation=False)
    outs = []
    for mp3_compression in (Mp3Compression(16000), Mp3Compression(16000, full_scale=1)):
        chain = Chain([noise, mp3_compression])
        with chain.frozen(0), nullcontext() if outs else pytest.warns(UserWarning, match=TAKEN):
            outs.append(chain.transform(x))
    np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize("peak", [2, 3, 8, 9])
def test_near_silence_of_16_bits_in_floats_is_what_it_is_in_integers(peak):
    steps = np.rint(peak * tone(3000, level=1))[None]
    assert np.abs(steps).max() == peak
    out = Mp3Compression(16000).transform(steps)
    np.testing.assert_array_equal(out, Mp3Compression(16000).transform(steps.astype(np.int16)))


@pytest.mark.parametrize("peak", [8.5, 63.5, 300.5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_beyond_8_are_steps(peak, dtype):
    """With a warning where they are so faint that nothing is left of them."""
    x = (peak * tone(3000, level=1)[None]).astype(dtype)
    defence, doubtful = Mp3Compression(16000), peak < 64
    with pytest.warns(UserWarning, match="taken for audio of 16-bit steps") if doubtful else nullcontext():
        out = defence.transform(x)
    np.testing.assert_array_equal(out, Mp3Compression(16000, full_scale=32768).transform(x))
    defence.transform(x)  # warns once


def test_the_remedy_for_speech_of_variance_1():
    x = 10.5 * tone(8000, level=1)[None]
    with pytest.warns(UserWarning, match=r"reaches 10\.5, .* for example full_scale=11\.$"):
        Mp3Compression(16000).transform(x)
    out = Mp3Compression(16000, full_scale=11).transform(x)
    np.testing.assert_allclose(out[:, 2000:-2000], LEVEL * x[:, 2000:-2000], atol=0.02)


def test_the_guess_for_a_sample_does_not_follow_from_the_others():
    quiet, loud = tone(4000, level=1.5), 20000 * tone(4000)
    with pytest.warns(UserWarning, match=TAKEN):
        together = Mp3Compression(16000).transform(np.stack([loud, quiet]))
    with pytest.warns(UserWarning, match=TAKEN):
        ragged = Mp3Compression(16000).transform([loud[:3000], np.zeros(0), quiet])
    with pytest.warns(UserWarning, match=TAKEN):
        alone = Mp3Compression(16000).transform(quiet[None])
    np.testing.assert_array_equal(together[1], alone[0])
    np.testing.assert_array_equal(ragged[2], alone[0])


@pytest.mark.parametrize(
    ("x", "remedy"),
    [
        (2**30 * tone(3000), "pass full_scale=2147483648"),
        ((2**31 * tone(3000)).astype(np.int32), "pass full_scale=2147483648"),
        ((2**23 * tone(3000)).astype(np.int32), "pass full_scale=8388608"),
    ],
    ids=["floats", "32 bits", "24 bits"],
)
def test_louder_than_16_bits(x, remedy):
    with pytest.warns(UserWarning, match=rf"`full_scale` should be .* got None for .*; {remedy}\.$"):
        Mp3Compression(16000).transform(x[None])
    full_scale = int(remedy.rpartition("=")[2])
    out = Mp3Compression(16000, full_scale=full_scale).transform(x[None])
    assert rms(out / full_scale) == pytest.approx(LEVEL * rms(x / full_scale), rel=0.02)


@pytest.mark.parametrize("full_scale", [1.0, 4, 100.0, 32768, np.float32(2**31)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_full_scale(full_scale, dtype):
    x = tone(4000).astype(dtype)
    out = Mp3Compression(16000, full_scale=full_scale).transform(x[None] * dtype(full_scale))
    reference = expected((x * 32768).astype(np.int16)[:, None], 16000)[:, 0] / dtype(32768)
    np.testing.assert_allclose(out[0] / full_scale, reference, rtol=1e-6)


def test_full_scale_overrides_the_guess():
    x = np.full((1, 2000), 0.9)  # less than one of 32768 steps
    steps = Mp3Compression(16000, full_scale=32768)
    with pytest.warns(UserWarning, match=r"got 32768 for values from 0.9 to 0.9; pass full_scale=1\.$"):
        np.testing.assert_array_equal(steps.transform(x), 0)
    assert Mp3Compression(16000).transform(x)[0, 1000] == pytest.approx(0.9 * LEVEL, abs=1e-3)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint16])
def test_other_integers(dtype):
    x = np.clip(100 + 100 * tone(3000, level=1), 0, 127).astype(dtype)
    out = Mp3Compression(16000).transform(x[None])
    limits = np.iinfo(dtype)
    pcm = expected(x.astype(np.int16)[:, None], 16000)[:, 0]
    assert out.dtype == dtype
    np.testing.assert_array_equal(out[0], np.clip(pcm.astype(int), limits.min, limits.max))


def test_integers_of_32_bits():
    pcm = (30000 * tone(3000)).astype(np.int16)
    out = Mp3Compression(16000, full_scale=2**31).transform(pcm.astype(np.int32)[None] * 2**16)
    np.testing.assert_array_equal(out[0], expected(pcm[:, None], 16000)[:, 0].astype(np.int32) * 2**16)


def test_quiet_16_bit_recordings_are_not_taken_for_normalised_ones():
    x = np.random.default_rng(0).integers(-1, 2, 3000).astype(np.int16)
    out = Mp3Compression(16000).transform(x[None])
    assert out.any()
    np.testing.assert_array_equal(out[0], expected(x[:, None], 16000)[:, 0])


@pytest.mark.parametrize(
    ("dtype", "loud"),
    [
        (np.float16, 6e4),
        (np.float32, 3e38),
        (np.float64, 1e308),
        (np.int32, 2**31 - 1),
        (np.uint64, 2**64 - 1),
    ],
)
def test_what_is_too_loud_saturates(dtype, loud):
    x = np.full((1, 3000), loud).astype(dtype)
    full = np.full((3000, 1), 32767, np.int16)
    with nullcontext() if loud < 1e5 else pytest.warns(UserWarning, match="should be the largest value"):
        out = Mp3Compression(16000).transform(x)
    np.testing.assert_array_equal(out[0], expected(full, 16000)[:, 0].astype(dtype))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_full_scale_signals_do_not_wrap(dtype):
    for level in (1, -1, 1.5, -1.5):
        x = np.full((1, 4000), level, dtype)
        out = Mp3Compression(16000, full_scale=1.0).transform(x)
        np.testing.assert_allclose(out[0, 1000:3000], LEVEL * np.clip(level, -1, 1), atol=1e-3)


def test_silence_constants_and_noise():
    defence, rng = Mp3Compression(16000), np.random.default_rng(0)
    np.testing.assert_array_equal(defence.transform(np.zeros((2, 3000, 2))), 0)
    np.testing.assert_allclose(
        defence.transform(np.full((1, 4000), 0.25))[0, 1000:3000], 0.25 * LEVEL, atol=1e-3
    )
    noise = rng.choice([-1.0, 1.0], (1, 8000))
    out = defence.transform(noise)
    assert np.abs(out).max() <= 1
    assert np.corrcoef(out[0], noise[0])[0, 1] > 0.5


def test_lower_bit_rates_lose_more():
    x = audio()[:, :, None]
    losses = [
        np.abs(Mp3Compression(16000, bit_rate=b).transform(x) - x).mean() for b in (8000, 32000, 160000)
    ]
    assert losses[0] > losses[1] > losses[2]


# Layouts


def test_layouts():
    x = audio(2)
    out = Mp3Compression(16000).transform(x)
    first = Mp3Compression(16000, channels_first=True).transform(np.moveaxis(x, -1, 1))
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), out)
    mono = Mp3Compression(16000).transform(x[:, :, :1])
    np.testing.assert_array_equal(Mp3Compression(16000).transform(x[:, :, 0]), mono[:, :, 0])


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("engine", ["pyav", "pydub"])
def test_samples_of_different_lengths_types_and_channels(channels_first, engine):
    if engine == "pydub" and (find_spec("pydub") is None or find_spec("imageio_ffmpeg") is None):
        pytest.skip("the extra `ffmpeg` is not installed")
    stereo = np.stack([tone(900), tone(900, hertz=600)], axis=0 if channels_first else 1)
    samples = [tone(1), tone(500).astype(np.float32), stereo, (9000 * tone(700)).astype(np.int16)]
    defence = Mp3Compression(16000, channels_first, engine=engine)
    out = defence.transform(ragged(*samples))
    assert out.dtype == object
    for sample, defended in zip(samples, out, strict=True):
        assert (defended.shape, defended.dtype) == (sample.shape, sample.dtype)
        np.testing.assert_array_equal(defended, defence.transform(sample[None])[0])
    grads = ragged(*[np.ones(sample.shape) for sample in samples])
    for pulled, grad in zip(defence.estimate_gradient(ragged(*samples), grads), grads, strict=True):
        np.testing.assert_array_equal(pulled, grad)


@pytest.mark.parametrize("shape", [(0, 100), (0, 100, 2), (2, 0), (2, 0, 1)])
def test_nothing_to_do(shape):
    assert Mp3Compression(16000).transform(np.zeros(shape)).shape == shape
    assert Mp3Compression(16000).transform(ragged(np.zeros(0), np.zeros(5)))[0].shape == (0,)


def test_many_samples_on_many_threads(monkeypatch):
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 900)).astype(np.float32)
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "1")
    alone = Mp3Compression(22050).transform(x)
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "4")
    np.testing.assert_array_equal(Mp3Compression(22050).transform(x), alone)


def test_gradient_passes():
    x = audio(2)
    grad = np.random.default_rng(0).normal(size=x.shape)
    np.testing.assert_array_equal(Mp3Compression(16000).estimate_gradient(x, grad), grad)


def test_channel_index():
    with pytest.warns(FutureWarning, match="use channels_first=True instead of channel_index=1"):
        old = Mp3Compression(16000, channel_index=1)
    x = audio(2, channels_first=True)
    np.testing.assert_array_equal(old.transform(x), Mp3Compression(16000, channels_first=True).transform(x))
    with pytest.warns(FutureWarning, match="use channels_first=False instead of channel_index=3"):
        assert Mp3Compression(16000, channel_index=3).channels_first is False


def test_verbose_shows_a_bar(capsys):
    Mp3Compression(16000).transform(audio())
    assert capsys.readouterr().err == ""
    Mp3Compression(16000, verbose=True).transform(audio())
    captured = capsys.readouterr()
    assert "MP3 compression: 100%" in captured.err
    assert captured.out == ""


# What is refused


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        (
            {"sample_rate": 16001},
            ValueError,
            (
                "`sample_rate` must be one that MP3 has, 8000, 11025, 12000, 16000, 22050, 24000, 32000, "
                "44100 or 48000 Hz, got 16001; Resample brings"
            ),
        ),
        ({"sample_rate": 0}, ValueError, "`sample_rate` must be one that MP3 has, .* got 0; Resample"),
        ({"sample_rate": -16000}, ValueError, "got -16000; Resample"),
        ({"sample_rate": 16000.5}, TypeError, r"`sample_rate` must be an integer, got 16000\.5"),
        ({"sample_rate": None}, TypeError, "`sample_rate` must be an integer, got None"),
        (
            {"bit_rate": 64},
            ValueError,
            (
                "`bit_rate` must be None or one that MP3 has at 16000 Hz, 8000, 16000, 24000, 32000, 40000, "
                "48000, 56000, 64000, 80000, 96000, 112000, 128000, 144000 or 160000 bit/s, got 64"
            ),
        ),
        ({"sample_rate": 8000, "bit_rate": 128000}, ValueError, "at 8000 Hz, .* or 64000 bit/s, got 128000"),
        (
            {"sample_rate": 44100, "bit_rate": 8000},
            ValueError,
            "at 44100 Hz, 32000, .* or 320000 bit/s, got 8000",
        ),
        ({"bit_rate": 32000.5}, TypeError, r"`bit_rate` must be an integer, got 32000\.5"),
        ({"full_scale": 0}, ValueError, r"`full_scale` must be positive, got 0; usual are 1\.0 and 32768"),
        ({"full_scale": -1.0}, ValueError, r"`full_scale` must be positive, got -1\.0"),
        ({"full_scale": np.inf}, ValueError, "`full_scale` must be finite, got inf"),
        ({"full_scale": "1"}, TypeError, "`full_scale` must be a number, got '1'"),
        ({"engine": "ffmpeg"}, ValueError, "`engine` must be one of 'pyav', 'pydub', got 'ffmpeg'"),
        ({"channels_first": 1}, TypeError, "`channels_first` must be True or False, got 1"),
        ({"channel_index": 2}, ValueError, "`channel_index` must be 1"),
        ({"verbose": "yes"}, TypeError, "`verbose` must be True or False, got 'yes'"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        Mp3Compression(**{"sample_rate": 16000, **parameters})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            np.zeros((2, 100, 3)),
            ValueError,
            (
                r"one or two channels, as MP3 has, got 3 in a sample of shape \(100, 3\) with "
                "channels_first=False; pass each channel as a sample of its own, or mix them"
            ),
        ),
        (np.zeros((2, 2, 100)), ValueError, r"got 100 in a sample of .*; pass channels_first=True\."),
        (np.zeros((2, 100, 0)), ValueError, "got 0 in a sample of shape"),
        (
            ragged(np.zeros(5), np.zeros((9, 4))),
            ValueError,
            r"`x\[1\]` must have one or two channels, as MP3 has, got 4 in a sample of shape \(9, 4\)",
        ),
        (np.zeros((1, 2, 3, 4)), ValueError, r"audio batch .* got shape \(1, 2, 3, 4\)"),
        (np.zeros((1, 100, 1, 1)), ValueError, "audio batch"),
        (np.full((1, 100), np.nan), ValueError, "`x` must be finite, got 100 NaN"),
        (ragged(np.zeros(5), np.array([np.nan])), ValueError, r"`x\[1\]` must be finite, got 1 NaN"),
        (np.full((1, 100), "a"), TypeError, "`x` must hold real numbers"),
    ],
)
def test_bad_arrays(x, error, message):
    with pytest.raises(error, match=message):
        Mp3Compression(16000).transform(x)


def test_a_batch_is_checked_before_work_starts(monkeypatch):
    monkeypatch.setattr(mp3, "encode", lambda *args: pytest.fail("work has started"))
    with pytest.raises(ValueError, match="got 3 in a sample"):
        Mp3Compression(16000).transform(ragged(np.zeros(5), np.zeros((9, 3))))


# A long recording, and an interrupted call

MEASURE = """
import resource, sys
import numpy as np
from preshield import Mp3Compression
defence = Mp3Compression(16000)
defence.transform(np.zeros((2, 16000), np.float32))
x = np.resize(np.sin(np.arange(16000, dtype=np.float32)), (1, 16000 * 240))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
defence.transform(x)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(1024 * peak / x.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in kilobytes on Linux")
def test_memory_of_a_long_recording():
    out = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=120
    )
    assert float(out.stdout) < 9  # times the array, which stands aside


INTERRUPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
import numpy as np
from preshield import Mp3Compression
x = np.resize(np.sin(np.arange(16000)), (8, 16000 * 60))
print("ready", flush=True)
try:
    while True:
        Mp3Compression(16000, engine=sys.argv[1]).transform(x)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize("engine", ["pyav", "pydub"])
def test_an_interrupted_call_leaves_nothing(engine, tmp_path):
    if engine == "pydub" and (find_spec("pydub") is None or find_spec("imageio_ffmpeg") is None):
        pytest.skip("the extra `ffmpeg` is not installed")
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPT, engine],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while engine == "pydub" and not _running(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()  # or leaving the block would wait for it
    assert (process.returncode, out) == (0, "interrupted\n")
    assert not list(tmp_path.iterdir())
    assert not _running(tmp_path)


def _running(folder):
    """Processes that work on files in a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [file.parent.name] * (str(folder).encode() in file.read_bytes())
        except OSError:  # it has ended
            continue
    return found
