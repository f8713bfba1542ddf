"""Memory that each image defence takes beside its input and its output, for one large picture and for a batch.

    python benchmarks/memory.py [--side 2048] [--threads 1 2 16] [--only TEXT]

Each figure is the peak of one call, by the counters of the kernel, which see what NumPy, Numba and codecs
allocate; a small picture has been through the defence before. Linux only.
"""

import argparse
import ctypes
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

import preshield
from preshield import Preprocessor

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "BlurNet": ("BlurNet", {}),
    "CutMix": ("CutMix", {"num_classes": 10, "probability": 1.0}),
    "Cutout": ("Cutout", {"length": 64}),
    "FeatureSqueezing": ("FeatureSqueezing", {"clip_values": (0, 1)}),
    "GaussianAugmentation, noise only": ("GaussianAugmentation", {"augmentation": False}),
    "GaussianBlur": ("GaussianBlur", {}),
    "ImageResize to half": ("ImageResize", {"height": 1024, "width": 1024}),
    "ImageResize to twice": ("ImageResize", {"height": 4096, "width": 4096}),
    "ImageSquarePad": ("ImageSquarePad", {}),
    "JpegCompression": ("JpegCompression", {"clip_values": (0, 1)}),
    "Mixup": ("Mixup", {"num_classes": 10}),
    "PixelDeflection, wavelets": ("PixelDeflection", {"clip_values": (0, 1)}),
    "PixelDeflection, all pixels": ("PixelDeflection", {"clip_values": (0, 1), "deflections": 1.0}),
    "PixelDeflection, no denoiser": ("PixelDeflection", {"clip_values": (0, 1), "denoiser": None}),
    "SpatialSmoothing 3": ("SpatialSmoothing", {}),
    "SpatialSmoothing 9": ("SpatialSmoothing", {"window_size": 9}),
    "StandardisationMeanStd": ("StandardisationMeanStd", {"mean": 0.5, "std": 0.2}),
    "ThermometerEncoding": ("ThermometerEncoding", {"clip_values": (0, 1), "num_space": 2}),
    "TotalVarMin": ("TotalVarMin", {"max_iter": 3}),
    "WaveletDenoising": ("WaveletDenoising", {"clip_values": (0, 1)}),
    "WaveletDenoising, range per channel": (
        "WaveletDenoising",
        {"clip_values": (np.zeros(3, np.float32), np.ones(3, np.float32))},
    ),
}
M_MMAP_THRESHOLD = -3


def peak_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """MB above what is held before a call, at its peak, and its result."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is what is held now
    before = _held("VmRSS")
    result = call()
    return _held("VmHWM") - before, result


def _held(counter: str) -> float:
    with open("/proc/self/status") as file:
        return int(re.search(rf"{counter}:\s+(\d+)", file.read())[1]) / 1024


def extra(defence: Preprocessor, x: np.ndarray, *, gradient: bool = False) -> float:
    """MB that one call takes beside its input and its output."""
    y = np.eye(10, dtype=np.float32)[np.arange(len(x)) % 10]
    labelled = defence.mixes_samples
    call: Callable[[], Any] = lambda: defence(x, y)[0] if labelled else defence.transform(x)
    if gradient:
        grad = np.ones_like(call(), dtype=np.float32)
        call = lambda: defence.estimate_gradient(x, grad)
    peak, out = peak_of(call)
    return peak - (0 if np.may_share_memory(out, x) else out.nbytes / 2**20)


def main() -> None:
    """Measure, and print a row for each defence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 16])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--gradient", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--batch", action="store_true")
    arguments = parser.parse_args()
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 17)  # what is freed is given back, and counted anew
    rng = np.random.default_rng(0)
    small = rng.random((1, 32, 32, 3), dtype=np.float32)
    shape = (64, 224, 224, 3) if arguments.batch else (1, arguments.side, arguments.side, 3)
    x = rng.random(shape, dtype=np.float32)
    small, x = (a.astype(arguments.dtype) for a in (small, x))
    print(f"{shape}: {x.nbytes / 2**20:.0f} MB")
    for row, (name, parameters) in CASES.items():
        if arguments.only not in row:
            continue
        figures = []
        for threads in arguments.threads:
            os.environ["PRESHIELD_NUM_THREADS"] = str(threads)
            defence = getattr(preshield, name)(**parameters)
            extra(defence, small, gradient=arguments.gradient)
            figures.append(extra(defence, x, gradient=arguments.gradient))
        print(f"{row:36s} " + " ".join(f"{figure:8.1f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
