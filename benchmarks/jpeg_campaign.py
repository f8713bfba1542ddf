"""Compare the JPEG round trip with Pillow's, value by value, on tens of thousands of pictures.

Every size from 1 x 1 to 70 x 70, every quality from 1 to 100, sides of 224 and 299; noise, photographs, noise
of 0 and 255, constants, checkerboards, stripes and ramps; RGB with three subsamplings, and grey. The suite
runs a part of it, tests/core/test_jpeg_kernel.py.

    python benchmarks/jpeg_campaign.py [--seed 0] [--step 1]

It prints how many pictures and values were compared and how many differ, and ends with 1 if any does.
"""

import argparse
import sys
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from preshield import JpegCompression

SUBSAMPLINGS = {"4:2:0": 2, "4:2:2": 1, "4:4:4": 0}  # and what Pillow calls them
KINDS = ("noise", "photograph", "extremes", "constant", "checkerboard", "stripes", "ramp")
LARGEST = 70
SIDES = (224, 299)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", type=int, default=1, help="take only every so many pictures")
    options = parser.parse_args()
    pictures, values, different = 0, 0, 0
    plan = list(cases())[:: options.step]
    rng = np.random.default_rng(options.seed)
    for size, quality, kind, subsampling in tqdm(plan, desc="JPEG"):
        pixels = picture(kind, size, 1 if subsampling is None else 3, rng)
        chosen = {} if subsampling is None else {"subsampling": subsampling}
        ours = JpegCompression((0, 255), quality, layout="NHWC", **chosen).transform(pixels[None])[0]
        wanted = pillow(pixels, quality, subsampling)
        wrong = int((ours != wanted).sum())
        if wrong:
            print(
                f"{size}, quality {quality}, {kind}, {subsampling or 'grey'}: {wrong} of {wanted.size} differ"
            )
        pictures, values, different = pictures + 1, values + wanted.size, different + wrong
    print(f"{pictures} pictures, {values} values, {different} differences (seed {options.seed})")
    return bool(different)


def cases() -> Iterator[tuple[tuple[int, int], int, str, str | None]]:
    """Size, quality, content, and subsampling or None for grey; the three cycle through their values."""
    ways = (*SUBSAMPLINGS, None)
    for height in range(1, LARGEST + 1):
        for width in range(1, LARGEST + 1):
            for k, way in enumerate(ways):
                quality = 1 + (37 * (LARGEST * height + width) + 11 * k) % 100
                yield (height, width), quality, KINDS[(height + 3 * width + k) % len(KINDS)], way
    for quality in range(1, 101):
        for kind in KINDS:
            for way in ways:
                yield (40 + quality % 17, 33 + quality % 23), quality, kind, way
    for side in SIDES:
        for quality in range(1, 101, 3):
            for k, kind in enumerate(KINDS):
                yield (side, side), quality, kind, ways[(quality + k) % 4]
    for shape in ((1, 1100), (1100, 1), (17, 2100), (530, 31), (16, 16384)):  # many blocks in a row, parts
        for way in ways:
            yield shape, 50, "noise", way


def picture(kind: str, size: tuple[int, int], channels: int, rng: np.random.Generator) -> np.ndarray:
    """Bytes `(H, W, C)`."""
    shape = (*size, channels)
    y, x = np.indices(size)[:, :, :, None]
    if kind == "noise":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "extremes":
        return 255 * rng.integers(0, 2, shape, dtype=np.uint8)
    if kind == "photograph":
        return photograph(size, channels, rng)
    weight = {
        "constant": np.zeros((*size, 1)),
        "checkerboard": (x // rng.integers(1, 4) + y // rng.integers(1, 4)) % 2,
        "stripes": (rng.choice([x, y], axis=0) // rng.integers(1, 5)) % 2,
        "ramp": (x + y) / max(1, sum(size) - 2),
    }[kind]
    first, second = rng.integers(0, 256, (2, channels))
    return np.rint(first + weight * (second - first)).astype(np.uint8)


def photograph(size: tuple[int, int], channels: int, rng: np.random.Generator) -> np.ndarray:
    """A crop of one of scikit-image's."""
    from skimage import data

    whole = (data.astronaut, data.coffee, data.chelsea, data.rocket)[rng.integers(4)]()
    row, column = (rng.integers(n - side + 1) for n, side in zip(whole.shape, size, strict=False))
    return np.ascontiguousarray(whole[row : row + size[0], column : column + size[1], :channels])


def pillow(pixels: np.ndarray, quality: int, subsampling: str | None) -> np.ndarray:
    """The same bytes through Pillow's encoder and decoder."""
    file = BytesIO()
    grey = subsampling is None
    chosen = {} if grey else {"subsampling": SUBSAMPLINGS[subsampling]}
    Image.fromarray(pixels[:, :, 0] if grey else pixels).save(file, format="JPEG", quality=quality, **chosen)
    return np.array(Image.open(file)).reshape(pixels.shape)


if __name__ == "__main__":
    sys.exit(main())
