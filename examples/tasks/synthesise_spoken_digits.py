"""Make the recordings of `spoken_digits.npz` with espeak-ng.

Run ``python synthesise_spoken_digits.py [output.npz]``. The same version of espeak-ng makes the same file.
Beside what `spoken_digits.load` reads, the file says how each recording was made (accent, speed, pitch), by
which espeak-ng and from which seed.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np
from spoken_digits import CLASS_NAMES, FILE, LENGTH, SAMPLE_RATE, Array, encode

from preshield import Resample

SEED = 0
ACCENTS = ("en", "en-us", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp")
SPEEDS = (140, 200)  # words per minute
PITCHES = (35, 65)  # on espeak-ng's scale from 0 to 99
PEAKS = (0.4, 0.9)  # of a waveform

# Variants of espeak-ng's voice, and how often each says each digit
TRAINING = (
    *("Alex", "Andy", "Annie", "Lee", "Michael", "Mike", "aunty", "belinda", "benjamin", "f1", "f2", "f4"),
    *("f5", "klatt4", "linda", "m1", "m2", "m3", "m4", "m5", "m6", "max", "quincy", "travis"),
)
TRAINING_TAKES = 4
TEST = ("Alicia", "boris", "f3", "grandpa", "m7", "michel", "robert", "victor")
TEST_TAKES = 2


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Synthesise spoken digits with espeak-ng.")
    parser.add_argument("output", type=Path, nargs="?", default=FILE, help="default: beside this script")
    output = parser.parse_args().output
    if shutil.which("espeak-ng") is None:
        sys.exit("espeak-ng is missing. On Debian and Ubuntu: apt install espeak-ng")
    check_voices()

    rng = np.random.default_rng(SEED)
    plan = [
        (speaker, test, digit)
        for test, speakers, takes in ((False, TRAINING, TRAINING_TAKES), (True, TEST, TEST_TAKES))
        for _ in range(takes)
        for speaker in speakers
        for digit in range(len(CLASS_NAMES))
    ]
    speakers, test, digits = map(np.array, zip(*plan, strict=True))
    accents = rng.choice(ACCENTS, len(plan))
    speeds = rng.integers(*SPEEDS, len(plan), np.uint8, endpoint=True)
    pitches = rng.integers(*PITCHES, len(plan), np.uint8, endpoint=True)
    made = zip(digits, accents, speakers, speeds, pitches, strict=True)
    recordings = [
        placed(speak(CLASS_NAMES[digit], f"{accent}+{speaker}", speed, pitch), rng)
        for digit, accent, speaker, speed, pitch in made
    ]
    np.savez_compressed(
        output,
        codes=encode(np.stack(recordings)),
        digits=digits.astype(np.uint8),
        speakers=speakers,
        test=test,
        accents=accents,
        speeds=speeds,
        pitches=pitches,
        synthesiser=version(),
        seed=SEED,
    )
    print(f"{len(plan)} recordings by {version()}: {output.stat().st_size / 1e6:.1f} MB")


def version() -> str:
    """Name and version of espeak-ng."""
    said = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout
    return re.sub(r" *Data at:.*", "", said).strip()


def check_voices() -> None:
    """Refuse to go on if two speakers sound alike: espeak-ng ignores a variant that it does not have."""
    for accent in ACCENTS:
        voices = [accent, *(f"{accent}+{speaker}" for speaker in TRAINING + TEST)]
        heard: dict[bytes, str] = {}
        for voice in voices:
            sound = speak(CLASS_NAMES[0], voice, SPEEDS[0], PITCHES[0]).tobytes()
            if sound in heard:
                sys.exit(f"espeak-ng makes one sound of {heard[sound]!r} and {voice!r}; take others.")
            heard[sound] = voice


def speak(word: str, voice: str, speed: int, pitch: int) -> Array:
    """Let espeak-ng say a word; return the waveform at 8 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "word.wav"
        settings = ["-v", voice, "-s", str(speed), "-p", str(pitch), "-z", "-w", str(file)]
        subprocess.run(["espeak-ng", *settings, word], check=True)
        with wave.open(str(file)) as sound:
            rate, pcm = sound.getframerate(), np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    waveform: Array = Resample(rate, SAMPLE_RATE).transform(pcm[None] / 32768)[0]
    return waveform


def placed(sound: Array, rng: np.random.Generator) -> Array:
    """Cut silence off, choose a level, and place the word anywhere in a recording."""
    level = np.abs(sound)
    heard = np.flatnonzero(level > 0.005 * level.max())
    word = sound[heard[0] : heard[-1] + 1] * (rng.uniform(*PEAKS) / level.max())
    if len(word) > LENGTH:
        sys.exit(f"A word takes {len(word)} samples, more than the {LENGTH} of a recording; raise SPEEDS.")
    before = rng.integers(0, LENGTH - len(word), endpoint=True)
    return np.pad(word, (before, LENGTH - before - len(word)))


if __name__ == "__main__":
    main()
