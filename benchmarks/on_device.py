"""Time the native defences on a GPU, beside the floor that its memory sets, and count copies to the host.

Each row runs the defence on the tensor, the same compiled, the detour through NumPy that a defence without
native arithmetic takes, and what kornia and torchvision, where they are installed, have of the kind. The
floor is the time to read the batch and to write the result once, at the speed of a copy on the same device.
Figures are medians in milliseconds. Copies are those that torch's profiler sees between the device and the
host in one pass forward and backward; there must be none. It needs torch with CUDA, and some five minutes:

    python -m pip install -e ".[torch]" kornia torchvision
    python benchmarks/on_device.py [--json FILE] [--only TEXT] [--shape 256 3 224 224] [--device cuda]
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch

import preshield

REPEATS = 9
UNIT = (0.0, 1.0)
FIRST = {"channels_first": True}


def defences() -> dict[str, Any]:
    """The defences, for images (N, C, H, W) in [0, 1]."""
    return {
        "JPEG, quality 50": preshield.JpegCompression(UNIT, quality=50, **FIRST),
        "median 3x3": preshield.SpatialSmoothing(3, **FIRST),
        "median 5x5": preshield.SpatialSmoothing(5, **FIRST),
        "blur 5x5": preshield.GaussianBlur(5, **FIRST),
        "squeezing, 3 bits": preshield.FeatureSqueezing(UNIT, 3),
        "thermometer, 10 levels": preshield.ThermometerEncoding(UNIT, 10, **FIRST),
        "noise": preshield.GaussianAugmentation(
            0.05, augmentation=False, apply_fit=False, apply_predict=True, rng=0
        ),
        "standardisation": preshield.StandardisationMeanStd(0.5, 0.25),
        "wavelets": preshield.WaveletDenoising(UNIT, **FIRST),
        "deflection, 200 pixels": preshield.PixelDeflection(UNIT, rng=0, **FIRST),
        "total variation": preshield.TotalVarMin(0.3, max_iter=3, clip_values=UNIT, rng=0, **FIRST),
    }


def counterparts() -> dict[str, dict[str, Callable[[Any], Any]]]:
    """What other packages have of the kind, by the names of the defences."""
    found: dict[str, dict[str, Callable[[Any], Any]]] = {}
    if find_spec("kornia"):
        filters, enhance = import_module("kornia.filters"), import_module("kornia.enhance")

        def jpeg(x: Any) -> Any:
            return enhance.jpeg_codec_differentiable(x, torch.full((len(x),), 50.0, device=x.device))

        found["JPEG, quality 50"] = {"kornia": jpeg}
        for side in (3, 5):
            found[f"median {side}x{side}"] = {
                "kornia": lambda x, side=side: filters.median_blur(x, (side, side))
            }
        found["blur 5x5"] = {"kornia": lambda x: filters.gaussian_blur2d(x, (5, 5), (1.1, 1.1))}
        found["squeezing, 3 bits"] = {"kornia": lambda x: enhance.posterize(x, 3)}
    if find_spec("torchvision"):
        functional = import_module("torchvision.transforms.v2.functional")
        found.setdefault("blur 5x5", {})["torchvision"] = lambda x: functional.gaussian_blur(x, [5, 5])
    return found


def through_host(defence: Any, x: Any) -> Any:
    """What a defence without native arithmetic does."""
    return torch.from_numpy(defence.transform(x.cpu().numpy())).to(x.device)


def milliseconds(run: Callable[[], Any], device: str) -> float:
    """Median time of a call, after one that is not counted."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    run()
    times = []
    for _ in range(REPEATS):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - start))
        if sum(times) > 5000:
            break
    return median(times)


def copies(step: Callable[[], Any]) -> int:
    """Copies between the device and the host, and waits for a value, in one call."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    step()
    with torch.profiler.profile(activities=kinds) as profile:
        step()
    names = ("Memcpy DtoH", "Memcpy HtoD", "aten::_local_scalar_dense")
    return sum(event.count for event in profile.key_averages() if event.key.startswith(names))


def measured(name: str, defence: Any, x: Any, bandwidth: float, others: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    device = x.device.type

    def step() -> None:
        entry = x.detach().requires_grad_()
        defence.transform(entry).sum().backward()

    out = defence.transform(x)
    moved = x.numel() * x.element_size() + out.numel() * out.element_size()
    row: dict[str, Any] = {"defence": name, "floor": 1000 * moved / bandwidth}
    row["native"] = milliseconds(lambda: defence.transform(x), device)
    row["forward and backward"] = milliseconds(step, device)
    compiled = torch.compile(defence.transform, fullgraph=True)
    row["compiled"] = milliseconds(lambda: compiled(x), device)
    row["through the host"] = milliseconds(lambda: through_host(defence, x), device)
    for package, function in others.items():
        row[package] = milliseconds(lambda function=function: function(x), device)
    row["copies"] = copies(step)
    return row


def text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", type=int, nargs=4, default=(256, 3, 224, 224))
    parser.add_argument("--only", default="", help="defences whose names contain this")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.rand(*arguments.shape, device=arguments.device)
    bandwidth = 2000 * x.numel() * x.element_size() / milliseconds(x.clone, arguments.device)
    named = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
    print(f"{named}: {tuple(x.shape)} float32, copies at {bandwidth / 1e9:.0f} GB/s")
    others, rows = counterparts(), []
    for name, defence in defences().items():
        if arguments.only in name:
            torch.compiler.reset()
            rows.append(measured(name, defence, x, bandwidth, others.get(name, {})))
            print("  ".join(f"{key}: {text(value)}" for key, value in rows[-1].items()), flush=True)
    if arguments.json:
        found: dict[str, Any] = {"device": named, "torch": torch.__version__}
        found |= {"shape": arguments.shape, "bandwidth": bandwidth, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
