"""Time and peak memory of `preshield apply` on synthetic films of several lengths.

    python benchmarks/long_videos.py --seconds 4 20 --defences video jpeg
    python benchmarks/long_videos.py --seconds 3600 --rate 2 --grain 0 --defences video

Each film, of 1920 x 1080 pixels at 30 frames a second, is read, defended and written in a process of its own.
The second line takes an hour of film, with so few frames a second and so little to encode that it ends within
half an hour. Linux only.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from preshield.codecs import h264

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


def main() -> None:
    """Measure, and print a line for each film and defence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, nargs="+", default=[4, 20])
    parser.add_argument("--rate", type=int, default=30, help="frames in a second")
    parser.add_argument("--grain", type=float, default=6.0)
    parser.add_argument("--size", type=int, nargs=2, default=(1080, 1920), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--defences", nargs="+", default=["video", "jpeg"])
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "in.mp4"), Path(folder, "out.mp4")
        for seconds in arguments.seconds:
            with source.open("wb") as file:
                frames = film(arguments.rate * seconds, *arguments.size, arguments.grain)
                h264.encode_into(file, frames, "mp4", 23, "ultrafast", frame_rate=arguments.rate)
            for name in arguments.defences:
                command = ["apply", name, source, target, "--force", "--max-bytes", str(10**12)]
                done = subprocess.run(
                    [sys.executable, "-c", MEASURED, *map(str, command)],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                print(f"{name}, {seconds} s of film: {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
