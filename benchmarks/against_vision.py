"""Time the random transformations of images beside those made of torchvision and kornia, on tensors of torch.

Neither package has one of them whole: the counterparts draw for each image, and call the functions that the
packages have, image by image if these take one size only. Both run in turn in one process, on one thread, for
images in [0, 1]; the figure that counts is the ratio of the medians of the processor time.

    python -m pip install -e ".[torch]" kornia torchvision
    python benchmarks/against_vision.py [--rounds 7]
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from kornia.enhance import jpeg_codec_differentiable
from torchvision.transforms.v2 import InterpolationMode, functional

import preshield

SHAPES = ((64, 3, 32, 32), (8, 3, 224, 224))
QUALITIES = (20, 40, 60, 80)


def resize_and_pad(x: Any, least: int, most: int, mode: str) -> Any:
    """By torchvision."""
    out = []
    for image in x:
        side = int(torch.randint(least, most, ()))
        top, left = (int(place) for place in torch.randint(0, most - side + 1, (2,)))
        image = functional.resize(image, [side, side], InterpolationMode(mode), antialias=False)
        out.append(functional.pad(image, [left, top, most - side - left, most - side - top]))
    return torch.stack(out)


def crop_and_rescale(x: Any, side: int) -> Any:
    """By torchvision."""
    size, out = list(x.shape[2:]), []
    for image in x:
        top, left = (int(torch.randint(0, length - side + 1, ())) for length in size)
        out.append(functional.resized_crop(image, top, left, side, side, size, antialias=False))
    return torch.stack(out)


def compress_blocks(x: Any) -> Any:
    """By kornia's JPEG at each quality."""
    samples, _, height, width = x.shape
    drawn = torch.randint(0, len(QUALITIES), (samples, 1, -(-height // 8), -(-width // 8)))
    drawn = drawn.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, :height, :width]
    out = torch.zeros_like(x)
    for number, quality in enumerate(QUALITIES):
        made = jpeg_codec_differentiable(x, torch.full((samples,), float(quality)))
        out = torch.where(drawn == number, made, out)
    return out


def cases(x: Any) -> dict[str, tuple[Callable[[], Any], Callable[[], Any], str]]:
    """Ours, theirs, and whose, by name."""
    side = x.shape[2]
    least, most, crop = side, round(side * 331 / 299), round(side * 90 / 224)
    found = {}
    for mode in ("nearest", "bilinear"):
        ours = preshield.RandomResizePad(least, most, True, interpolation=mode, rng=0)
        found[f"RandomResizePad, {mode}"] = (
            lambda ours=ours: ours.transform(x),
            lambda mode=mode: resize_and_pad(x, least, most, mode),
            "torchvision",
        )
    crops = preshield.CropRescale(crop, True, rng=0)
    found["CropRescale"] = (lambda: crops.transform(x), lambda: crop_and_rescale(x, crop), "torchvision")
    shield = preshield.Shield((0, 1), QUALITIES, True, rng=0)
    found["Shield"] = (lambda: shield.transform(x), lambda: compress_blocks(x), "kornia")
    return found


def medians(runs: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Milliseconds of each, one after the other in each round, after a call that is not counted."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for run, found in zip(runs, times, strict=True):
            start = time.process_time()
            run()
            found.append(1000 * (time.process_time() - start))
    return [median(found) for found in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| defence | images | ours, ms | theirs, ms | whose | ratio |\n|---|---|---|---|---|---|")
    for shape in SHAPES:
        x = torch.rand(*shape)
        for name, (ours, theirs, whose) in cases(x).items():
            own, other = medians([ours, theirs], arguments.rounds)
            size = "x".join(map(str, shape))
            print(f"| {name} | {size} | {own:.2f} | {other:.2f} | {whose} | {other / own:.1f}x |", flush=True)


if __name__ == "__main__":
    main()
