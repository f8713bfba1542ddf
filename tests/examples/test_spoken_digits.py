"""The recordings of the notebook on sound are what they say, and the notebook finds what its text says."""

import base64
import importlib
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from examples.tasks import spoken_digits

EXAMPLES = Path(spoken_digits.__file__).parents[1]
SCRIPT = EXAMPLES / "tasks" / "synthesise_spoken_digits.py"


@pytest.fixture(scope="module")
def task():
    return spoken_digits.load()


def test_both_sets_hold_every_digit_equally_often(task):
    for x, y, speakers in (
        (task.x_train, task.y_train, task.speakers_train),
        (task.x_test, task.y_test, task.speakers_test),
    ):
        assert x.shape == (len(y), 6000, 1)
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert speakers.shape == y.shape
        for speaker in set(speakers):
            counts = np.bincount(y[speakers == speaker], minlength=10)
            assert counts.min() == counts.max() > 0
    assert len(task.class_names) == 10
    assert task.sample_rate == 8000


def test_nobody_speaks_in_both_sets(task):
    assert not set(task.speakers_train) & set(task.speakers_test)
    assert len(set(task.speakers_train)) >= 20
    assert len(set(task.speakers_test)) >= 6


def test_every_recording_is_a_word_of_its_own(task):
    x = np.concatenate([task.x_train, task.x_test])[..., 0]
    peaks = np.abs(x).max(axis=1)
    assert peaks.min() > 0.38
    assert peaks.max() < 0.93
    assert (x**2).mean(axis=1).min() > 0.02**2
    assert len({wave.tobytes() for wave in x}) == len(x)
    quiet = np.abs(x) < 0.001
    assert quiet.mean(axis=1).min() > 0.03  # the whole word is there, with silence around it
    assert np.abs(x[:, [0, -1]]).max() < 0.05  # and is cut at neither end


def test_the_file_is_small_and_says_where_it_comes_from():
    assert spoken_digits.FILE.stat().st_size <= 4_000_000
    with np.load(spoken_digits.FILE) as stored:
        assert re.fullmatch(r"eSpeak NG text-to-speech: [\d.]+", str(stored["synthesiser"]))
        assert len({*stored["accents"]}) >= 5
        for name in ("accents", "speeds", "pitches"):
            assert stored[name].shape == stored["digits"].shape


def test_codes_of_the_mu_law():
    codes = spoken_digits.encode(np.array([-1.0, -1 / 255 / 30, 0.0, 1.0]))
    assert codes.tolist() == [1, 127, 128, 255]  # log2(1 + 1 / 30) / 8 is 0.75 steps of 127
    np.testing.assert_array_equal(
        spoken_digits.decode(np.array([1, 128, 255], np.uint8)), np.float32([-1, 0, 1])
    )
    step = 64 / 127  # of the logarithmic scale from 0 to 1
    assert spoken_digits.decode(np.array([192], np.uint8))[0] == pytest.approx((256**step - 1) / 255)


def test_codes_keep_what_they_encode():
    every = np.arange(1, 256, dtype=np.uint8)
    np.testing.assert_array_equal(spoken_digits.encode(spoken_digits.decode(every)), every)
    x = np.linspace(-1, 1, 10_001)
    error = np.abs(spoken_digits.decode(spoken_digits.encode(x)) - x)
    assert (error <= (1 / 255 + np.abs(x)) / 44).all()  # half of the step that the docstring states


def test_a_seed_gives_a_model(task):
    pytest.importorskip("tensorflow")
    first, again, other = (spoken_digits.classifier(seed) for seed in (0, 0, 1))
    assert first.output_shape == (None, 10)
    for mine, same, another in zip(first.weights, again.weights, other.weights, strict=True):
        np.testing.assert_array_equal(mine, same)
        assert mine.shape == another.shape
    assert not np.array_equal(first.weights[0], other.weights[0])
    logits = first.predict(task.x_test[:4], verbose=0)
    assert (logits.min(axis=1) < 0).all()  # probabilities would be positive


# The script


def test_without_espeak_the_script_says_what_to_install(tmp_path):
    output = tmp_path / "out.npz"
    run = subprocess.run(
        [sys.executable, SCRIPT, output], env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr == "espeak-ng is missing. On Debian and Ubuntu: apt install espeak-ng\n"
    assert not output.exists()


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module(SCRIPT.stem)


def test_a_word_is_placed_whole(script):
    word = np.array([0.0, 0.2, -0.5, 0.0, 0.1, 0.0])
    places = set()
    for seed in range(20):
        recording = script.placed(word, np.random.default_rng(seed))
        assert recording.shape == (6000,)
        heard = np.flatnonzero(recording)
        np.testing.assert_array_equal(heard - heard[0], [0, 1, 3])
        np.testing.assert_allclose(recording[heard] / recording[heard[1]], [-0.4, 1, -0.2])
        assert 0.4 <= np.abs(recording).max() <= 0.9
        places.add(heard[0])
    assert len(places) > 10
    with pytest.raises(SystemExit, match="A word takes 6001 samples"):
        script.placed(np.ones(6001), np.random.default_rng(0))


def test_two_speakers_with_one_voice_are_refused(script, monkeypatch):
    voices = {"boris": 1.0, "f3": 1.0}
    monkeypatch.setattr(
        script, "speak", lambda word, voice, *rest: np.full(3, voices.get(voice[3:], hash(voice)))
    )
    with pytest.raises(SystemExit, match="one sound of 'en\\+boris' and 'en\\+f3'"):
        script.check_voices()


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs espeak-ng")
def test_the_file_says_how_a_recording_was_made(script, task):
    with np.load(spoken_digits.FILE) as stored:
        made = {name: stored[name] for name in stored.files}
    if script.version() != made["synthesiser"]:
        pytest.skip("another version of espeak-ng")
    for number in (0, 345, 1119):
        digit, accent, speaker, speed, pitch = (
            made[name][number] for name in ("digits", "accents", "speakers", "speeds", "pitches")
        )
        word = script.speak(task.class_names[digit], f"{accent}+{speaker}", speed, pitch)
        stored = spoken_digits.decode(made["codes"][number])
        alike = np.correlate(stored, word, "full").max() / np.linalg.norm(stored) / np.linalg.norm(word)
        assert alike > 0.999


# The notebook


@pytest.fixture(scope="module")
def outputs():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / "audio.ipynb", as_version=4)
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_the_notebook_shows_what_its_text_says(outputs):
    (trained,) = (o["text"] for o in outputs if "accuracy on these" in o.get("text", ""))
    assert float(trained.split()[-1]) >= 0.88
    bounded, smallest = (
        o["data"]["text/plain"] for o in outputs if "Worst case" in str(o.get("data", {}).get("text/plain"))
    )
    none, mp3, *_, resampled = table(bounded)
    assert none["Worst case"] <= 0.25  # a quarter
    for restored in (mp3, resampled):
        assert restored["Clean"] > 0.88
        assert restored["Oblivious"] > none["Oblivious"] + 0.3
    assert none["Worst case"] + 0.2 < mp3["Adaptive"] <= mp3["Oblivious"]
    assert resampled["Adaptive"] < resampled["Oblivious"] - 0.2
    none, mp3, *others = table(smallest)
    assert mp3["Adaptive"] == 0
    assert mp3["Norm"] > 1.4 * none["Norm"]
    assert all(none["Norm"] < other["Norm"] < mp3["Norm"] for other in others)


def table(report):
    """The rows of a report's text, each a dict of figures."""
    head, *rows = (re.split(r" {2,}", line) for line in report.split("\n\n")[0].splitlines())
    return [
        {name: float(cell.split(" [")[0].rstrip("x")) for name, cell in zip(head[1:], row[1:], strict=True)}
        for row in rows
    ]


def test_the_sounds_of_the_notebook_play(outputs):
    (page,) = (o["data"]["text/html"] for o in outputs if "<audio" in o.get("data", {}).get("text/html", ""))
    sounds = re.findall(r'src="data:audio/wav;base64,([^"]+)"', page)
    clean, attacked, defended, noise = (wavfile.read(io.BytesIO(base64.b64decode(sound))) for sound in sounds)
    for rate, pcm in (clean, attacked, defended, noise):
        assert rate == 8000
        assert pcm.shape == (6000,)
        assert pcm.dtype == np.int16
        assert 0.02 < np.sqrt(np.mean((pcm / 32768) ** 2)) < 0.5
    added = attacked[1] / 32768 - clean[1] / 32768
    assert 0.002 < np.abs(added).max() < 0.0036  # the bound, 0.003, and rounding
    np.testing.assert_allclose(noise[1] / 32768, 20 * added, atol=0.002)
    assert np.corrcoef(clean[1], defended[1])[0, 1] > 0.7  # aligned, the same word
