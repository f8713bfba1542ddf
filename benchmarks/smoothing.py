"""Certify the demonstrations' networks, attack them within the certificates, and time it beside others.

python benchmarks/smoothing.py [--only crops|photographs|speed ...] [--authors PATH] [--check]

Writes benchmarks/smoothing.json, the tables and the picture of docs/randomized_smoothing.md. `--authors` is
the folder `code` of github.com/locuslab/smoothing, whose `core.py` is then timed as well. ART needs the
package statsmodels. `--check` only says whether the page shows the figures of the file.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np

from preshield import Denoiser, RandomizedSmoothing, WaveletDenoising, evaluate, load_pretrained, plots
from preshield import randomized_smoothing as module
from preshield.evaluation.photographs import (
    _OF_IMAGENET,
    bundled_photographs,
    cut_crops,
    photographs_of_imagenet,
)
from preshield.evaluation.smoothing_report import SmoothingReport
from preshield.neural.small_cnn import small_cnn, train

ROOT = Path(__file__).resolve().parents[1]
PAGE, STORED = ROOT / "docs" / "randomized_smoothing.md", ROOT / "benchmarks" / "smoothing.json"
PICTURE = ROOT / "docs" / "_static" / "smoothing.png"
PARTS = ("crops", "photographs", "speed")
RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
UNIT = (0.0, 1.0)
SMALL: dict[str, Any] = {"depth": 4, "width": 24, "framework": "keras"}

Rows = dict[str, tuple[float, Callable[[float], Any]]]  # sigma, and what makes the denoiser for it
Keep = Callable[[dict[str, Any]], None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--authors", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    found = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    if arguments.check:
        return int(page(PAGE.read_text(encoding="utf-8"), found) != PAGE.read_text(encoding="utf-8"))

    def keep(part: str, figures: dict[str, Any]) -> None:
        found[part] = figures
        STORED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    for part in arguments.only:
        if part == "speed":
            keep(part, speed(arguments.authors))
        else:
            {"crops": crops, "photographs": photographs}[part](partial(keep, part))
    if "crops" in found:
        draw(found["crops"])
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


def crops(keep: Keep) -> dict[str, Any]:
    """The classifier of the crops: as it is, smoothed, and behind denoisers."""
    task, model = crops_model()
    clean, by_error = task.x_train, {sigma: Denoiser(sigma, **SMALL) for sigma in (0.25, 0.5)}

    def squared_error(sigma: float) -> Denoiser:
        if not by_error[sigma].is_fitted:
            by_error[sigma].fit(clean, epochs=4, learning_rate=3e-3)
        return by_error[sigma]

    def stability(sigma: float) -> Denoiser:
        denoiser = Denoiser(sigma, **SMALL)
        denoiser.weights = squared_error(sigma).weights
        return denoiser.fit(clean, loss="stability", classifier=model, warm_start=True, epochs=2)

    rows: Rows = {
        "smoothed": (0.25, lambda sigma: None),
        "WaveletDenoising": (0.25, lambda sigma: WaveletDenoising(UNIT, sigma=sigma)),
        "Denoiser, stability": (0.25, stability),
        "Denoiser, squared error": (0.25, squared_error),
        "Denoiser, stability, more noise": (0.5, stability),
    }
    attack = {"n0": 20, "n": 60, "budget": 8}
    return measured(model, task.x_test, task.y_test, rows, keep, n0=100, n=1000, attack=attack)


def crops_model() -> tuple[Any, Any]:
    task = cut_crops(bundled_photographs(), test_per_class=1)
    model = small_cnn((32, 32, 3), len(task.class_names))
    train(model, task.x_train, task.y_train)
    return task, model


def photographs(keep: Keep) -> dict[str, Any]:
    """EfficientNet-Lite0 on four photographs; the denoiser has seen parts of the six others."""
    x, y = photographs_of_imagenet()
    others = {name: photo for name, photo in bundled_photographs().items() if name not in _OF_IMAGENET}
    patches = np.concatenate([cut(photo, 48) for photo in others.values()])

    def wavelets(sigma: float) -> WaveletDenoising:
        return WaveletDenoising(UNIT, sigma=sigma, channels_first=True)

    def squared_error(sigma: float) -> Denoiser:
        return Denoiser(sigma, depth=4, width=24).fit(patches, epochs=4, learning_rate=3e-3)

    rows: Rows = {
        "smoothed": (0.25, lambda sigma: None),
        "WaveletDenoising": (0.25, wavelets),
        "Denoiser, squared error": (0.25, squared_error),
    }
    model = load_pretrained("efficientnet-lite0")
    return measured(model, x, y, rows, keep, n0=10, n=100)


def cut(photograph: np.ndarray, side: int, most: int = 100) -> np.ndarray:
    """Patches (N, 3, side, side) of a photograph, half as large, evenly spaced."""
    height, width = (length // 2 for length in photograph.shape[:2])
    small = photograph[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3)) / 255
    corners = [
        (i, j) for i in range(0, height - side + 1, side // 2) for j in range(0, width - side + 1, side // 2)
    ]
    chosen = np.linspace(0, len(corners) - 1, min(most, len(corners))).round().astype(int)
    patches = [small[i : i + side, j : j + side] for i, j in (corners[k] for k in chosen)]
    return np.ascontiguousarray(np.moveaxis(np.stack(patches), -1, 1), np.float32)


def measured(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    rows: Rows,
    keep: Keep,
    *,
    n0: int,
    n: int,
    attack: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Certified accuracy of each row, and what an attack for the smallest L2 perturbation leaves."""
    found: dict[str, Any] = {"samples": len(y), "n0": n0, "n": n, "attack": attack, "rows": {}}
    if attack:
        row = attacked(model, x, y, attack["budget"])
        found["rows"]["model alone"] = {"attacked": [row.accuracy_at(radius) for radius in RADII]}
    for name, (sigma, made) in rows.items():
        denoiser = made(sigma)
        begin = time.process_time()
        certain = RandomizedSmoothing(model, sigma, n0=n0, n=n, denoiser=denoiser, rng=0).report(x, y)
        figures: dict[str, Any] = {
            "sigma": sigma,
            "plain": certain.plain_accuracy,
            "abstains": certain.abstention_rate,
            "mean radius": certain.mean_radius,
            "certified": [certain.certified_accuracy(radius) for radius in RADII],
            "seconds": (time.process_time() - begin) / len(y),
            "report": json.loads(certain.to_json()),
        }
        if attack:
            draws = {"n0": attack["n0"], "n": attack["n"]}
            smoothed = RandomizedSmoothing(model, sigma, denoiser=denoiser, rng=0, **draws)
            row = attacked(smoothed, x, y, attack["budget"])
            figures["attacked"] = [row.accuracy_at(radius, or_rejected=True) for radius in RADII]
            if any(a < b for a, b in zip(figures["attacked"], figures["certified"], strict=True)):
                raise AssertionError(f"{name}: an attack lies within the certificate: {figures}")
        found["rows"][name] = figures
        keep(found)
        print(name, {key: value for key, value in figures.items() if key != "report"}, flush=True)
    return found


def attacked(model: Any, x: np.ndarray, y: np.ndarray, budget: int) -> Any:
    """The row of the classifier itself, under an attack for the smallest L2 perturbation."""
    options = {"clip_values": UNIT, "columns": ["adaptive"], "verbose": False}
    return evaluate(model, x, y, budget=budget, **options)["none"]


def draw(found: dict[str, Any]) -> None:
    """The certified accuracy of each row."""
    rows = {name: row for name, row in found["rows"].items() if "report" in row}
    reports = {
        f"{name}, sigma {row['sigma']:g}": SmoothingReport.from_json(json.dumps(row["report"]))
        for name, row in rows.items()
    }
    PICTURE.write_bytes(plots.png(plots.certified_accuracy(reports)))


# Beside others


def speed(authors: Path | None, n: int = 1000, sigma: float = 0.12, count: int = 5) -> dict[str, Any]:
    """Processor time of a certificate, and the radii, of several implementations, on the same network."""
    import torch

    task, keras_model = crops_model()
    model = in_torch(keras_model, torch)
    x = np.ascontiguousarray(np.moveaxis(task.x_test[:: len(task.x_test) // count][:count], -1, 1))
    calls: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
        "preshield": lambda: RandomizedSmoothing(model, sigma, n=n, rng=0).certify(x)
    }
    if (art := art_of(model, torch, n, sigma)) is not None:
        calls["ART"] = lambda: art.certify(x, n=n, batch_size=128)
    if authors is not None:
        smooth = authors_of(authors, model, torch, sigma)
        calls["the authors' code"] = lambda: by_authors(smooth, torch.from_numpy(x), n)
    found: dict[str, Any] = {"n": n, "sigma": sigma, "samples": count, "rows": {}}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(3):
        for name, call in calls.items():
            begin = time.process_time()
            labels, radii = call()
            if turn:  # the first one compiles
                seconds[name].append((time.process_time() - begin) / count)
            found["rows"][name] = {"labels": np.array(labels).tolist(), "radii": np.array(radii).tolist()}
    for name, times in seconds.items():
        found["rows"][name]["seconds"] = min(times)
    found["rows"]["preshield"]["share of the model"] = share_of_the_model(calls["preshield"])
    return found


def share_of_the_model(certify: Callable[[], Any]) -> float:
    """The part of the processor time that the model's own passes take."""
    original, spent = module.predictor, 0.0

    def timed(*args: Any) -> Callable[[Any], Any]:
        predict = original(*args)

        def run(batch: Any) -> Any:
            nonlocal spent
            begin = time.process_time()
            outputs = predict(batch)
            spent += time.process_time() - begin
            return outputs

        return run

    module.predictor = timed
    try:
        begin = time.process_time()
        certify()
        return spent / (time.process_time() - begin)
    finally:
        module.predictor = original


def in_torch(model: Any, torch: Any) -> Any:
    """The classifier of the crops as a torch module for images (N, C, H, W)."""

    class Channelslast(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1).flatten(1)

    layers: list[Any] = []
    for layer in model.layers:
        weights = [torch.from_numpy(np.array(array)) for array in layer.get_weights()]
        if not weights:
            continue
        if weights[0].ndim == 4:
            made = torch.nn.Conv2d(weights[0].shape[2], weights[0].shape[3], 3, padding="same")
            made.weight.data = weights[0].permute(3, 2, 0, 1).contiguous()
            after = [torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        else:
            made = torch.nn.Linear(*weights[0].shape)
            made.weight.data = weights[0].T.contiguous()
            after = [torch.nn.ReLU()]
            if not any(isinstance(one, Channelslast) for one in layers):
                layers.append(Channelslast())
        made.bias.data = weights[1]
        layers += [made, *after]
    scale = torch.nn.Module()
    scale.forward = lambda x: 4 * x - 2  # type: ignore[method-assign]
    return torch.nn.Sequential(scale, *layers[:-1]).eval().requires_grad_(False)


def art_of(model: Any, torch: Any, n: int, sigma: float) -> Any:
    try:
        import statsmodels  # noqa: F401
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
    except ImportError as error:
        print(f"without ART: {error}")
        return None
    return PyTorchRandomizedSmoothing(
        model=model,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(3, 32, 32),
        nb_classes=10,
        sample_size=100,
        scale=sigma,
        alpha=0.001,
    )


def authors_of(folder: Path, model: Any, torch: Any, sigma: float) -> Any:
    """`Smooth` of the authors, on the processor and with a recent SciPy."""
    import scipy.stats

    scipy.stats.binom_test = lambda k, n, p: scipy.stats.binomtest(int(k), int(n), p).pvalue
    sys.path.insert(0, str(folder))
    import core

    draw = torch.randn_like

    class Torch:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        @staticmethod
        def randn_like(x: Any, device: str) -> Any:
            return draw(x)

    core.torch = Torch()
    return core.Smooth(model, 10, sigma)


def by_authors(smooth: Any, x: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and radii, one sample after the other."""
    labels, radii = zip(*(smooth.certify(one, 100, n, 0.001, 128) for one in x), strict=True)
    return np.array(labels), np.array(radii)


# The page


CROPS = """\
The network of [the demonstration with crops](examples/generated/demo.ipynb), trained without noise, on
{samples} crops of 32 x 32 pixels; `n0={n0}`, `n={n}`, `alpha=0.001`. Before the stroke the certified
accuracy at each L2 radius, after it what the attack for the smallest L2 perturbation leaves ({budget}
gradients, each averaged over {few} draws; {more} draws decide). The denoisers have 4 convolutions of 24
channels, 4 epochs of the squared error and, for "stability", 2 more of that. *Seconds* are those of the
processor for a certificate.

"""
PHOTOGRAPHS = """\
EfficientNet-Lite0, trained on ImageNet, on the {samples} photographs of `preshield demo`; `n0={n0}`,
`n={n}`, without an attack. The denoiser was trained on parts of six other photographs. So few photographs
are no accuracy; they show what a certificate costs.

"""
SPEED = """\
The same network of the crops as a torch module, `sigma={sigma}`, `n={n}`, beside ART's
`PyTorchRandomizedSmoothing` and the authors' code, {samples} crops. In preshield's time the model's own
passes have a share of {share:.2f}.

"""


def page(text: str, found: dict[str, Any]) -> str:
    """The page with what was found between its markers."""
    for part in PARTS:
        if part in found:
            between = re.compile(rf"(?<=<!-- smoothing: {part} -->\n).*?(?=<!-- /smoothing -->)", re.DOTALL)
            text = between.sub(lambda _, part=part: section(part, found[part]), text, count=1)
    return text


def section(part: str, found: dict[str, Any]) -> str:
    """What a table is about, and the table."""
    facts = {name: found[name] for name in ("samples", "n0", "n", "sigma") if name in found}
    if part == "speed":
        share = found["rows"]["preshield"]["share of the model"]
        return SPEED.format(**facts, share=share) + speed_table(found)
    if part == "photographs":
        return PHOTOGRAPHS.format(**facts) + certified_table(found)
    attack = found["attack"]
    facts |= {"budget": attack["budget"], "few": attack["n0"], "more": attack["n"]}
    return CROPS.format(**facts) + certified_table(found)


def certified_table(found: dict[str, Any]) -> str:
    """Certified accuracy, and after a stroke what the attack leaves."""
    head = ["", "sigma", *(f"{radius:g}" for radius in RADII), "Abstains", "Mean radius", "Seconds"]
    lines = []
    for name, row in found["rows"].items():
        proved = [f"{share:.2f}" for share in row.get("certified", ())] or ["-"] * len(RADII)
        kept = [f" / {share:.2f}" for share in row.get("attacked", ())] or [""] * len(RADII)
        cells = [a + b for a, b in zip(proved, kept, strict=True)]
        figures = ["", "", ""]
        if "certified" in row:
            figures = [f"{row['abstains']:.2f}", f"{row['mean radius']:.3f}", f"{row['seconds']:.2f}"]
        lines.append([name, f"{row['sigma']:g}" if "sigma" in row else "", *cells, *figures])
    return to_markdown(head, lines)


def speed_table(found: dict[str, Any]) -> str:
    head = ["", "Processor seconds a sample", "Mean radius", "Largest difference of a radius"]
    own = np.array(found["rows"]["preshield"]["radii"])
    lines = []
    for name, row in found["rows"].items():
        radii = np.array(row["radii"])
        far = "" if name == "preshield" else f"{np.abs(radii - own).max():.3f}"
        lines.append([name, f"{row['seconds']:.3f}", f"{radii.mean():.3f}", far])
    return to_markdown(head, lines)


def to_markdown(head: list[str], lines: Iterable[list[str]]) -> str:
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *lines))


if __name__ == "__main__":
    sys.exit(main())
