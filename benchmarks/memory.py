"""Memory that each defence of images takes beside its input and its output, in MiB.

    python benchmarks/memory.py [--shape 1 2048 2048 3] [--threads 1 2 16] [--dtype uint8] [--only TEXT]
    python benchmarks/memory.py --write

Each figure is the peak of one call by the counters of the kernel, which see what NumPy, Numba and codecs
allocate; a small picture has been through the defence before. `--write` puts the table of a picture and of a
batch into the documentation. Linux only.
"""

import argparse
import ctypes
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

import preshield

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
    "TotalVarMin": ("TotalVarMin", {}),
    "WaveletDenoising": ("WaveletDenoising", {"clip_values": (0, 1)}),
    "WaveletDenoising, range per channel": (
        "WaveletDenoising",
        {"clip_values": (np.zeros(3, np.float32), np.ones(3, np.float32))},
    ),
}
GRADIENTS = {  # other than the identity
    "ImageResize to half": CASES["ImageResize to half"],
    "ThermometerEncoding": CASES["ThermometerEncoding"],
    "ThermometerEncoding, soft": (
        "ThermometerEncoding",
        {"clip_values": (0, 1), "num_space": 2, "gradient": "soft"},
    ),
    "WaveletDenoising": CASES["WaveletDenoising"],
    "WaveletDenoising, range per channel": CASES["WaveletDenoising, range per channel"],
}
PICTURE, BATCH = (1, 2048, 2048, 3), (64, 224, 224, 3)
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BETWEEN = re.compile(r"(?<=<!-- memory -->\n).*(?=<!-- /memory -->)", re.DOTALL)
M_MMAP_THRESHOLD = -3


def held(counter: str) -> float:
    """A counter of this process, in MiB."""
    return int(re.search(rf"{counter}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def extra(name: str, parameters: dict[str, Any], x: np.ndarray, *, gradient: bool = False) -> float:
    """What one call holds at its peak beside its input and its output; or one of `estimate_gradient`."""
    defence, y = getattr(preshield, name)(**parameters), np.eye(10, dtype=np.float32)[np.arange(len(x)) % 10]
    grad = np.ones(defence._output_shape(x.shape), np.float32) if gradient else None
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before = held("VmRSS")
    if grad is not None:
        out = defence.estimate_gradient(x, grad)
        return held("VmHWM") - before - out.nbytes / 2**20
    out = defence(x, y)[0] if defence.mixes_samples else defence.transform(x)
    return held("VmHWM") - before - out.nbytes / 2**20


def table(shapes: list[tuple[int, ...]], threads: list[int], dtype: str, only: str) -> str:
    """A row for each defence, in Markdown."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 17)  # what is freed is given back, and counted anew
    rng = np.random.default_rng(0)
    pictures = [rng.random(shape, dtype=np.float32) for shape in shapes]
    whole = np.dtype(dtype).kind != "f"
    pictures = [(np.rint(x) if whole else x).astype(dtype, copy=False) for x in pictures]
    heads = [f"{'x'.join(map(str, shape))}, {n} thread{'s' * (n > 1)}" for shape in shapes for n in threads]
    lines = [f"| {dtype} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    rows = [(row, case, False) for row, case in CASES.items()]
    rows += [(f"{row}, gradient", case, True) for row, case in GRADIENTS.items()] if not whole else []
    for row, case, gradient in rows:
        if only in row:
            extra(*case, pictures[0][:, :32, :32], gradient=gradient)
            figures = []
            for x in pictures:
                for n in threads:
                    os.environ["PRESHIELD_NUM_THREADS"] = str(n)
                    figures.append(f"{max(0, extra(*case, x, gradient=gradient)):.0f}")
            lines.append(f"| {row} | {' | '.join(figures)} |")
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 16])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    shapes = [tuple(arguments.shape)] if arguments.shape else [PICTURE, BATCH]
    made = table(shapes, arguments.threads, arguments.dtype, arguments.only)
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(BETWEEN.sub(lambda _: made, page), encoding="utf-8")


if __name__ == "__main__":
    main()
