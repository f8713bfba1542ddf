"""Time every defence beside ART's, in one process, and beside the floor that no code can go below.

Each row runs ART, preshield and the floor in turn, several times over, each time for a tenth of a second at
least; the figure that counts is the ratio of the medians. The floor is a copy of the array, whose bytes are
stated, or, where a codec does the work, one thread that encodes and decodes and does nothing else. A second
table says what is left above it. Extra memory is the peak of what Python and NumPy allocate in one call of
preshield, less the output. Run it on an idle machine:

    python benchmarks/against_art.py [--pairs 7] [--only TEXT] [--json FILE]
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from art.defences import preprocessor as art
from tqdm import tqdm

import preshield
from preshield._core.threads import map_blocks, thread_count
from preshield.codecs import h264, mp3

SAMPLE_SECONDS = 0.1
LEFT = {
    "CutMix": "a pass that looks for NaN; for each image a rectangle of another one",
    "Cutout": "a rectangle of zeros in each image; the pass that looks for NaN makes the copy",
    "DefenseGAN": "evaluations of the generator and its gradient, until the last search has ended",
    "FeatureSqueezing": (
        "a pass that looks for NaN; about 14 instructions for 8 values, one of them a division: the position "
        "in single precision, the rounding in double"
    ),
    "GaussianAugmentation": (
        "a pass that looks for NaN; for two values a pair of words, in 72 instructions of which vectors do "
        "eight at once, and for each two reads of a table of 256 kB, two sums and a product"
    ),
    "GaussianBlur": "a pass that looks for NaN; 3 products and 4 sums for each value along each axis",
    "ImageResize": "a pass that looks for NaN; 2 products and a sum for each value along each axis",
    "ImageSquarePad": "a pass that looks for NaN",
    "JpegCompression": (
        "19 instructions for a pixel of three channels: four passes of a transform of 70 for 64 samples, the "
        "quantiser of 6 for 8 samples, colours of 40 for 8 pixels on the way in and 50 on the way out; its "
        "gradient, colours and a mean"
    ),
    "LFilter": "SciPy's filter: one value after the other, as each needs the last",
    "LabelSmoothing": "a pass that looks for NaN; a product and a sum",
    "Mixup": "a pass that looks for NaN; a second sample to read for each, two products and a sum",
    "Mp3Compression": "nothing: several threads encode and decode",
    "PixelDefend one-pass": (
        "33 of 256 scores for each value, 132 bytes of each kilobyte, looked at twice: for the maximum and "
        "for its first place"
    ),
    "PixelDefend sequential": "the same products, but of matrices with a row for each image, pixel by pixel",
    "PixelDeflection": (
        "600 deflections of each image: draws, and a read and a write in places that are not in the cache; "
        "with a denoiser, its work"
    ),
    "Resample": "256, 128 and 354 products and sums for each value of the result, in this order of the rows",
    "SpatialSmoothing": (
        "a pass that looks for NaN; for each vector of pixels 4, 18, 38, 97, 226 and 550 exchanges of two "
        "instructions for windows of 2, 3, 4, 5, 7 and 9"
    ),
    "StandardisationMeanStd": "a pass that looks for NaN; a difference and a quotient, each in its own pass",
    "ThermometerEncoding": (
        "a pass that looks for NaN; a division for each value and a comparison for each level, one by one"
    ),
    "TotalVarMin": (
        "10 steps with 13 to 21 evaluations of objective and gradient, each of which reads the gradients of "
        "all steps before it, twice"
    ),
    "VideoCompression": "nothing: several threads encode and decode",
    "WaveletDenoising": "9 instructions for each value: colours, the finest level and thresholds, twice",
}
"""By how a row's name begins, the work between its floor and its time."""
PACKAGES = ("preshield", "adversarial-robustness-toolbox", "numpy", "numba", "pillow", "scipy")


@dataclass
class Case:
    """One row: what runs, and what is asked of it."""

    name: str
    ours: Callable[[], np.ndarray]
    art: Callable[[], object]
    floor: Callable[[], object]
    floor_name: str
    target: float


@dataclass
class Result:
    """Medians in milliseconds."""

    name: str
    ours_ms: float
    art_ms: float
    floor_ms: float
    floor_name: str
    ratio: float
    target: float
    extra_mb: float


def images(*shape: int) -> np.ndarray:
    """Photographic crops in [0, 1] of this shape, repeated as often as needed."""
    from skimage import data

    photograph = (data.astronaut()[..., : shape[-1]] / 255).astype(np.float32)
    height, width = shape[1:3]
    rng = np.random.default_rng(0)
    rows = rng.integers(0, photograph.shape[0] - height + 1, shape[0])
    columns = rng.integers(0, photograph.shape[1] - width + 1, shape[0])
    return np.stack([photograph[r : r + height, c : c + width] for r, c in zip(rows, columns, strict=True)])


def cases() -> list[Case]:
    """All rows, with the inputs and targets of the project."""
    large, medium, small = images(64, 224, 224, 3), images(16, 224, 224, 3), images(512, 32, 32, 3)
    rows = [
        defence("FeatureSqueezing 4 bits", "FeatureSqueezing", large, 12, (0.0, 1.0), 4),
        *[
            defence(f"SpatialSmoothing {w}", "SpatialSmoothing", medium, target, w)
            for w, target in ((3, 60), (5, 25), (2, 3), (4, 3), (7, 3), (9, 3))
        ],
        defence("ThermometerEncoding 10 levels", "ThermometerEncoding", small, 800, (0.0, 1.0), 10),
        defence("GaussianAugmentation, noise only", "GaussianAugmentation", large, 10, 0.1, False),
        defence("TotalVarMin", "TotalVarMin", small[:16], 8),
        defence("TotalVarMin", "TotalVarMin", medium[:4], 8),
    ]
    rows += compression_of_images(large)
    rows += [resampling(*rates) for rates in ((16000, 8000), (16000, 22050), (44100, 16000))]
    rows += [one_pass(), sequential(), latent_search()]
    rows += [*augmentations(large, small), *tools(large)]
    rows += [compression(), video(), blur(large), deflection(medium)]
    rows += [wavelets(medium), deflection_and_wavelets(medium)]
    labels = np.eye(1000, dtype=np.float32)[np.random.default_rng(0).integers(0, 1000, 10000)]
    ours, theirs = preshield.LabelSmoothing(), art.LabelSmoothing()
    rows.append(
        Case(
            "LabelSmoothing 10000x1000",
            lambda: ours(labels, labels)[1],
            lambda: theirs(labels, labels),
            labels.copy,
            "copy",
            2,
        )
    )
    return rows


def defence(name: str, cls: str, x: np.ndarray, target: float, *args: object) -> Case:
    """A row for one defence, constructed alike in both libraries."""
    ours, theirs = getattr(preshield, cls)(*args), of_art(cls)(*args)
    shape = (len(x), *ours.transform(x[:1]).shape[1:])
    return Case(
        f"{name} {'x'.join(map(str, x.shape))}",
        lambda: ours.transform(x),
        lambda: theirs(x.copy()),  # ART's thermometer writes into its input
        x.copy if shape == x.shape else lambda: np.ones(shape, np.float32),
        "copy" if shape == x.shape else "fill",
        target,
    )


def compression_of_images(large: np.ndarray) -> list[Case]:
    """JPEG, and its straight-through gradient beside the forward pass."""
    small, huge = images(400, 32, 32, 3), np.tile(images(8, 512, 512, 3), (1, 2, 2, 1))
    rows = [
        defence("JpegCompression 50 in [0, 1]", "JpegCompression", x, target, (0, 1), 50)
        for x, target in ((large, 6), (small, 20), (huge, 5))
    ]
    levels = np.rint(255 * large)
    rows.insert(1, defence("JpegCompression 50 in [0, 255]", "JpegCompression", levels, 4, (0, 255), 50))
    full = preshield.JpegCompression((0, 1), subsampling="4:4:4")
    through = preshield.JpegCompression((0, 1), gradient="straight-through")
    grad = np.random.default_rng(0).standard_normal(large.shape, dtype=np.float32)
    shape = "x".join(map(str, large.shape))
    beside = of_art("JpegCompression")((0, 1), 50)
    forward = preshield.JpegCompression((0, 1))
    return [
        *rows,
        Case(
            f"JpegCompression 50 in [0, 1] {shape}, 4:4:4, beside ART's 4:2:0",
            lambda: full.transform(large),
            lambda: beside(large.copy()),
            large.copy,
            "copy",
            4,
        ),
        Case(
            f"JpegCompression {shape}, straight-through gradient, beside the forward pass",
            lambda: through.estimate_gradient(large, grad),
            lambda: forward.transform(large),
            large.copy,
            "copy",
            1,
        ),
    ]


def of_art(cls: str) -> Any:
    """ART's class, from the module that has it."""
    modules = {
        "ImageResize": "art.preprocessing.image",
        "ImageSquarePad": "art.preprocessing.image",
        "LFilter": "art.preprocessing.audio",
        "StandardisationMeanStd": "art.preprocessing.standardisation_mean_std",
    }
    return getattr(import_module(modules.get(cls, "art.defences.preprocessor")), cls)


def augmentations(large: np.ndarray, small: np.ndarray) -> list[Case]:
    """Samples and one-hot labels of ten classes."""
    rows = [defence("Cutout 16", "Cutout", large, 1, 16), defence("Cutout 8", "Cutout", small, 1, 8)]
    for name, cls, x in (("Mixup", "Mixup", large), ("CutMix", "CutMix", large), ("CutMix", "CutMix", small)):
        y = np.eye(10, dtype=np.float32)[np.arange(len(x)) % 10]
        ours, theirs = getattr(preshield, cls)(10), of_art(cls)(10)
        rows.append(
            Case(
                f"{name} {'x'.join(map(str, x.shape))}",
                lambda ours=ours, x=x, y=y: ours(x, y)[0],
                lambda theirs=theirs, x=x, y=y: theirs(x, y),
                x.copy,
                "copy",
                1,
            )
        )
    return rows


def tools(large: np.ndarray) -> list[Case]:
    """What ART has outside of its defences. For images it needs OpenCV."""
    from scipy.signal import butter, firwin

    clips = np.random.default_rng(0).uniform(-1, 1, (16, 32000)).astype(np.float32)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rows = [
        defence("StandardisationMeanStd", "StandardisationMeanStd", large, 1.5, mean, std),
        defence("LFilter, finite, 65 taps", "LFilter", clips, 1, firwin(65, 0.5)),
        defence("LFilter, infinite, 4th order", "LFilter", clips, 1, *butter(4, 0.5)),
    ]
    if find_spec("cv2") is not None:
        rows += [
            defence("ImageResize to 256x256", "ImageResize", large, 0.5, 256, 256),
            defence("ImageResize to 112x112", "ImageResize", large, 0.5, 112, 112),
            defence("ImageSquarePad", "ImageSquarePad", large[:, :, :160], 1),
        ]
    return rows


def resampling(old: int, new: int) -> Case:
    """16 clips of 2 s."""
    x = np.random.default_rng(0).uniform(-1, 1, (16, 2 * old, 1)).astype(np.float32)
    return defence(f"Resample {old / 1000:g} to {new / 1000:g} kHz", "Resample", x, 12, old, new)


def compression() -> Case:
    """16 clips of 2 s of a tone in noise. ART needs the programs ffmpeg and ffprobe on the path."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (16, 32000, 1))
    x = (noise + 0.6 * np.sin(np.arange(32000)[:, None] * 0.1)).astype(np.float32)
    row = defence("Mp3Compression 16 kHz", "Mp3Compression", x, 12, 16000)
    pcm = (x * 32768).astype(np.int16)
    row.floor = lambda: [mp3.decode(mp3.encode(clip, 16000)) for clip in pcm]
    row.floor_name = "codec, 1 thread"
    return row


def video() -> Case:
    """Crops that move over a photograph. ART needs ffmpeg-python, and the program ffmpeg on the path."""
    from skimage import data

    pixels = np.stack(
        [[data.astronaut()[20 * n + 2 * f :, 40 * n + f :][:112, :112] for f in range(16)] for n in range(8)]
    )
    x = pixels.astype(np.float32)
    ours = preshield.VideoCompression(video_format="mp4")
    theirs = art.VideoCompression(video_format="mp4")
    return Case(
        "VideoCompression 8 clips of 16 frames at 112x112, mp4, crf 28",
        lambda: ours.transform(x),
        lambda: theirs(x.copy()),
        lambda: [h264.decode(h264.encode(clip, "mp4", 28)) for clip in pixels],
        "codec, 1 thread",
        12,
    )


def blur(x: np.ndarray) -> Case:
    """ART has no blur: SciPy's stands in its place, with the same weights and borders."""
    from scipy.ndimage import gaussian_filter

    ours = preshield.GaussianBlur(5, sigma=1.0)
    return Case(
        f"GaussianBlur 5 {'x'.join(map(str, x.shape))}, beside scipy.ndimage.gaussian_filter",
        lambda: ours.transform(x),
        lambda: gaussian_filter(x, (0, 1, 1, 0), truncate=2, mode="mirror"),
        x.copy,
        "copy",
        3,
    )


def deflection(x: np.ndarray) -> Case:
    """ART has no pixel deflection: the plain loop over pixels stands in its place."""

    def loop() -> np.ndarray:
        out = x.copy()
        for image in out:
            height, width, channels = image.shape
            for _ in range(200):
                for channel in range(channels):
                    i, j = random.randint(0, height - 1), random.randint(0, width - 1)
                    row = random.randint(max(i - 10, 0), min(i + 10, height - 1))
                    column = random.randint(max(j - 10, 0), min(j + 10, width - 1))
                    image[i, j, channel] = image[row, column, channel]
        return out

    ours = preshield.PixelDeflection((0, 1), denoiser=None)
    name = f"PixelDeflection 200 {'x'.join(map(str, x.shape))}, beside a plain loop"
    return Case(name, lambda: ours.transform(x), loop, x.copy, "copy", 30)


def by_scikit_image(x: np.ndarray) -> np.ndarray:
    """scikit-image's wavelets, on as many threads."""
    from skimage.restoration import denoise_wavelet

    out = np.empty_like(x)

    def work(rows: slice) -> None:
        for n in range(rows.start, rows.stop):
            out[n] = denoise_wavelet(x[n], 0.04, convert2ycbcr=True, channel_axis=-1)

    map_blocks(work, len(x), 1)
    return out


def wavelets(x: np.ndarray) -> Case:
    """ART has no wavelets: scikit-image's stand in their place.

    The floor is a copy, 8 bytes for each value. The arithmetic takes longer, about 70 instructions for 8
    values in vectors of 256 bits: 15 to scale, clip and mix the colours, 7 for the extremes, 8 for means and
    details, 5 for their squares in double precision, 12 for thresholds and the way back, 15 to mix, scale and
    clip, and 8 for the coarser levels.
    """
    ours = preshield.WaveletDenoising((0, 1))
    name = f"WaveletDenoising {'x'.join(map(str, x.shape))}, beside denoise_wavelet"
    return Case(name, lambda: ours.transform(x), lambda: by_scikit_image(x), x.copy, "copy", 15)


def deflection_and_wavelets(x: np.ndarray) -> Case:
    """Beside the same deflections and scikit-image's wavelets."""
    ours, deflect = preshield.PixelDeflection((0, 1)), preshield.PixelDeflection((0, 1), denoiser=None)

    def theirs() -> np.ndarray:
        return np.clip(by_scikit_image(deflect.transform(x)), 0, 1)

    name = f"PixelDeflection 200 {'x'.join(map(str, x.shape))}, wavelet, beside the same with denoise_wavelet"
    return Case(name, lambda: ours.transform(x), theirs, x.copy, "copy", 12)


def one_pass() -> Case:
    """Given probabilities, beside the plain triple loop by which ART decodes."""
    x = np.rint(255 * images(256, 16, 16, 3)) / np.float32(255)
    scores = np.random.default_rng(0).random((*x.shape, 256), dtype=np.float32)
    ours = preshield.PixelDefend(batch_size=256, pixel_cnn=lambda _: scores, decoding="one-pass")

    def loops() -> np.ndarray:
        levels = np.rint(255 * x).astype(int).reshape(len(x), -1)
        rows = scores.reshape(*levels.shape, 256)
        for i in range(len(levels)):
            for j in range(levels.shape[1]):
                best, most = -1, -1.0
                for k in range(max(levels[i, j] - 16, 0), min(levels[i, j] + 16, 255) + 1):
                    if rows[i, j, k] > most:
                        best, most = k, rows[i, j, k]
                levels[i, j] = best
        return levels.reshape(x.shape) / np.float32(255)

    name = "PixelDefend one-pass 256x16x16x3, given probabilities, against the plain loop"
    return Case(name, lambda: ours.transform(x), loops, x.copy, "copy", 100)


def sequential() -> Case:
    """The default PixelCNN, beside the whole network for each pixel."""
    x = np.rint(255 * images(64, 16, 16, 1)) / np.float32(255)

    @cache
    def model() -> preshield.PixelCNN:
        return preshield.PixelCNN().fit(x, epochs=1)

    @cache
    def network() -> object:
        return model().model

    def naive() -> np.ndarray:
        levels = np.rint(255 * x).astype(int)
        for i, j in np.ndindex(16, 16):
            scores = network().predict_on_batch((levels / 255).astype(np.float32))[:, i, j, 0]
            away = np.abs(np.arange(256) - levels[:, i, j])
            levels[:, i, j, 0] = np.where(away > 16, -np.inf, scores).argmax(axis=1)
        return levels / np.float32(255)

    return Case(
        "PixelDefend sequential 64x16x16x1, default PixelCNN, against the whole network for each pixel",
        lambda: preshield.PixelDefend(pixel_cnn=model()).transform(x),
        naive,
        lambda: network().predict_on_batch(x),
        "one evaluation",
        50,
    )


def latent_search() -> Case:
    """The search for all digits, beside one joint search over all, from as many starts."""
    from scipy.optimize import minimize
    from sklearn.datasets import load_digits

    from preshield.neural.latent_maps import Generator

    digits = (load_digits().images[..., None] / 16).astype(np.float32)
    x, restarts = digits[-128:], 4

    @cache
    def model() -> preshield.VariationalAutoencoder:
        return preshield.VariationalAutoencoder().fit(digits[:-128])

    @cache
    def generator() -> Generator:
        return Generator(model().generator)

    def ours() -> np.ndarray:
        return preshield.DefenseGAN(gan=model(), restarts=restarts, rng=0).transform(x)

    def joint() -> np.ndarray:
        errors, numbers = generator().errors(x), np.repeat(np.arange(len(x)), restarts)
        start = np.random.default_rng(0).standard_normal((len(numbers), model().latent_dim))

        def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
            values, grads = errors(z.reshape(start.shape), numbers)
            return float(values.sum(dtype=float)), grads.astype(float).ravel()

        found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
        z = found.x.reshape(len(x), restarts, -1)
        values = errors(z.reshape(start.shape), numbers)[0].reshape(len(x), restarts)
        return generator().images(z[np.arange(len(x)), values.argmin(axis=1)])

    means = [f"{((made() - x) ** 2).mean():.5f}" for made in (ours, joint)]
    return Case(
        f"DefenseGAN 128 digits, 4 restarts, against one joint search (errors {' and '.join(means)})",
        ours,
        joint,
        lambda: generator().images(np.zeros((len(x) * restarts, model().latent_dim))),
        "one evaluation",
        3,
    )


def measure(case: Case, pairs: int) -> Result:
    """Run the three in turn; a sample is the mean of as many calls as fill a tenth of a second."""
    case.ours()  # compiles
    times: dict[str, list[float]] = {"art": [], "ours": [], "floor": []}
    for _ in range(pairs):
        for key, samples in times.items():
            call, start, calls = getattr(case, key), time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - start < SAMPLE_SECONDS:
                call()
                calls += 1
            samples.append(1e3 * (time.perf_counter() - start) / calls)
    ours, theirs, floor = (median(times[key]) for key in ("ours", "art", "floor"))
    tracemalloc.start()
    output = case.ours()
    extra = (tracemalloc.get_traced_memory()[1] - output.nbytes) / 2**20
    tracemalloc.stop()
    moved = {"copy": "{0:.3g} MB read, {0:.3g} written", "fill": "{0:.3g} MB written"}.get(
        case.floor_name, ""
    )
    made_of = ", ".join(filter(None, (case.floor_name, moved.format(output.nbytes / 1e6))))
    return Result(case.name, ours, theirs, floor, made_of, theirs / ours, case.target, extra)


def objectives() -> str:
    """ART's objective at both results, for the same masks."""
    crops = images(16, 32, 32, 3)
    masks = np.random.default_rng(1).random(crops.shape) < 0.3
    theirs, ours = art.TotalVarMin(), preshield.TotalVarMin()
    values: dict[str, list[float]] = {"ART": [], "preshield": []}
    for x, mask in zip(crops, masks, strict=True):
        planes, chosen = np.moveaxis(x, -1, 0), np.moveaxis(mask, -1, 0)
        solved = {
            "ART": np.moveaxis(theirs._minimize(x, mask.astype(int)), -1, 0),
            "preshield": ours._smooth(planes.astype(float), chosen),
        }
        for key, z in solved.items():
            for channel in range(3):
                values[key].append(
                    theirs._loss_func(z[channel].ravel(), planes[channel], 1 * chosen[channel], 2, 0.5)
                )
    means = ", ".join(f"{key} {np.mean(v):.4f}" for key, v in values.items())
    return f"TotalVarMin, mean of ART's objective over 48 channels, same masks: {means} (lower is better)"


def import_time(pairs: int) -> float:
    """Milliseconds that `import preshield` takes on top of NumPy, in fresh processes."""
    code = "import time, numpy; t = time.perf_counter(); import preshield; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(pairs)
    ]
    return 1e3 * median(map(float, runs))


def table(results: list[Result]) -> str:
    """Markdown."""
    lines = [
        "| case | ART ms | preshield ms | ratio | asked | floor ms | preshield / floor | extra MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.art_ms:.1f} | {r.ours_ms:.1f} | **{r.ratio:.1f}x** | {r.target:g}x | "
        f"{r.floor_ms:.2f} ({r.floor_name}) | {r.ours_ms / r.floor_ms:.1f} | {r.extra_mb:.1f} |"
        for r in results
    ]
    lines += ["", "| case | left above the floor |", "|---|---|"]
    for begin, left in LEFT.items():
        if any(r.name.startswith(begin) for r in results):
            lines.append(f"| {begin} | {left} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description="Time preshield beside ART.")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", default="", help="run the rows whose name contains this text")
    parser.add_argument("--json", help="also write the table to this file")
    options = parser.parse_args()
    chosen = [case for case in cases() if options.only.lower() in case.name.lower()]
    results = [measure(case, options.pairs) for case in tqdm(chosen, desc="Benchmark")]
    imported = import_time(options.pairs)
    objective = objectives() if not options.only else ""
    print(table(results))
    print(f"\n`import preshield` on top of `import numpy`: {imported:.0f} ms (asked: under 100 ms)")
    if objective:
        print(objective)
    if options.json:
        record = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "threads": thread_count(),
            "versions": {name: version(name) for name in PACKAGES},
            "pairs": options.pairs,
            "import_ms": imported,
            "objective": objective,
            "rows": [asdict(r) for r in results],
        }
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
