"""Time and peak memory of `preshield apply` on synthetic films and recordings of several lengths.

    python benchmarks/long_files.py --films 4 20 --defences video jpeg
    python benchmarks/long_files.py --films 3600 --rate 2 --grain 0 --defences video
    python benchmarks/long_files.py --recordings 60 3600 --defences mp3 "resample sr_new=16000" lfilter

Each film, of 1920 x 1080 pixels at 30 frames a second, or recording, of two channels at 44.1 kHz, is read,
defended and written in a process of its own. The second line takes an hour of film, with so few frames a
second and so little to encode that it ends within half an hour. Linux only.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from preshield.codecs import h264
from preshield.files import Media, write_parts

SAMPLE_RATE = 44100

MEASURED = """
import re, sys, time
from preshield.cli import main
start = time.perf_counter()
code = main(sys.argv[1:])
status = open("/proc/self/status").read()  # getrusage would count what this process was forked from
peak = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1e6
print(f"{time.perf_counter() - start:.1f} s, peak {peak:.2f} GB")
sys.exit(code)
"""


def film(frames: int, height: int, width: int, grain: float) -> Iterator[np.ndarray]:
    """Waves and grain, of this standard deviation, that pass by."""
    rows, columns = np.mgrid[:height, : 2 * width]
    waves = [
        127 + 60 * np.sin(columns / (37 + 9 * i)) + 50 * np.cos(rows / (23 + 5 * i) + columns / 91)
        for i in range(3)
    ]
    scene = np.stack(waves, axis=-1) + np.random.default_rng(0).normal(0, grain, (height, 2 * width, 3))
    scene = np.clip(scene, 0, 255).astype(np.uint8)
    for i in range(frames):
        start = 4 * i % width
        yield np.ascontiguousarray(scene[:, start : start + width])


def recording(seconds: int) -> Iterator[Media]:
    """Noise, as fractions of 16 bits."""
    rng = np.random.default_rng(0)
    for _ in range(seconds):
        x = rng.integers(-20000, 20000, (SAMPLE_RATE, 2)).astype(np.float32) / 32768
        yield Media(x, "audio", (-1.0, 1.0), rate=SAMPLE_RATE, seconds=Fraction(seconds))


def apply(defence: str, source: Path, target: Path) -> str:
    """Run the command in a process of its own; return its time and its peak."""
    name, *parameters = defence.split()
    command = ["apply", name, source, target, "--force", "--max-bytes", 10**12]
    command += ["--param", *parameters] if parameters else []
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, command)], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def main() -> None:
    """Measure, and print a line for each file and defence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, nargs="*", default=[], help="seconds of each")
    parser.add_argument("--rate", type=int, default=30, help="frames in a second")
    parser.add_argument("--grain", type=float, default=6.0)
    parser.add_argument("--size", type=int, nargs=2, default=(1080, 1920), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--recordings", type=int, nargs="*", default=[], help="seconds of each")
    parser.add_argument("--defences", nargs="+", required=True, metavar="NAME[ PARAMETER=VALUE...]")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "in.mp4"), Path(folder, "out.mp4")
        for seconds in arguments.films:
            with source.open("wb") as file:
                frames = film(arguments.rate * seconds, *arguments.size, arguments.grain)
                h264.encode_into(file, frames, "mp4", 23, "ultrafast", frame_rate=arguments.rate)
            for defence in arguments.defences:
                print(f"{defence}, {seconds} s of film: {apply(defence, source, target)}", flush=True)
        source, target = Path(folder, "in.wav"), Path(folder, "out.wav")
        for seconds in arguments.recordings:
            with source.open("wb") as file:
                write_parts(file, source, recording(seconds))
            for defence in arguments.defences:
                print(f"{defence}, {seconds} s of sound: {apply(defence, source, target)}", flush=True)


if __name__ == "__main__":
    main()
