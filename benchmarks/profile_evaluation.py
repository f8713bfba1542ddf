"""Where the time of an evaluation goes: the network, the defence, and everything else.

    python benchmarks/profile_evaluation.py [--only TEXT] [--threat linf] [--write]

Each row is one `evaluate` of two photographs of the demonstration with a budget of 4 gradients and 2 draws,
in front of EfficientNet-Lite0 at 224 x 224 pixels, for one threat: all columns and diagnostics of one
defence, without the undefended row. The
clocks are inside: around the network's own forward pass and its backward pass, and around what a defence does
in a pass. All that is left is the evaluation: attack arithmetic, losses, copies between frameworks, the
choice of samples, diagnostics. Times are those of the processor, on one thread, so that another process on
the machine disturbs them little; the figure that counts is the share of the network's time. `--write` puts
the table into the documentation. It takes the packages of the extras "torch" and "demo".
"""

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any, Self

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["PRESHIELD_NUM_THREADS"] = "1"

import torch

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    JpegCompression,
    MajorityVote,
    PixelDeflection,
    RobustActivationMap,
    SpatialSmoothing,
    TotalVarMin,
    WaveletDenoising,
    evaluate,
)
from preshield._core.passes import Pass
from preshield.evaluation import defended, run
from preshield.evaluation.batch import Batch
from preshield.evaluation.photographs import photographs_of_imagenet
from preshield.neural.pretrained import load_pretrained

UNIT = (0.0, 1.0)
SAMPLES, BUDGET, DRAWS = 2, 4, 2
THREATS = (("linf", 4 / 255), ("l2-minimum", None))
REST = "everything else"
PARTS = ("network forward", "network backward", "defence forward", "defence backward", REST)
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BETWEEN = re.compile(r"(?<=<!-- profile -->\n).*(?=<!-- /profile -->)", re.DOTALL)


class Clocks:
    """Processor time by row and part; a part within another one stops the clock of that."""

    def __init__(self) -> None:
        self.seconds: Counter[tuple[str, str]] = Counter()
        self.row = ""
        self._parts: list[str] = []
        self._since = 0.0

    def start(self, part: str) -> None:
        """Begin a part."""
        self._count()
        self._parts.append(part)

    def stop(self) -> None:
        """Go back to the part that this one interrupted."""
        self._count()
        self._parts.pop()

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Both."""
        self.start(part)
        try:
            yield
        finally:
            self.stop()

    def _count(self) -> None:
        now = process_time()
        if self._parts:
            self.seconds[self.row, self._parts[-1]] += now - self._since
        self._since = now


CLOCKS = Clocks()


class Measured(torch.nn.Module):
    """A network with a clock for each direction."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores; the backward clock runs from the gradient by the scores to that by the samples."""
        with CLOCKS.running("network forward"):
            entry = x.view_as(x)
            scores: torch.Tensor = self.network(entry)
        if entry.requires_grad:
            scores.register_hook(lambda grad: CLOCKS.start("network backward"))
            entry.register_hook(lambda grad: CLOCKS.stop())
        return scores


class MeasuredPass(Pass):
    """A pass through a defence with a clock for each direction."""

    @classmethod
    def begin(cls, *arguments: Any, **use: Any) -> Self:
        """Check and draw."""
        with CLOCKS.running("defence forward"):
            return super().begin(*arguments, **use)

    def output(self) -> Any:
        """Transform."""
        with CLOCKS.running("defence forward"):
            return super().output()

    def pull_back(self, grad: Any) -> Any:
        """Take a gradient back."""
        with CLOCKS.running("defence backward"):
            return super().pull_back(grad)


class MeasuredBatch(Batch):
    """The work on a batch, counted for the row that it is for."""

    def _row(self, subject: Any, *rest: Any) -> Any:
        return self._counted(super()._row, subject, *rest)

    def _share(self, subject: Any, *rest: Any) -> Any:
        return self._counted(super()._share, subject, *rest)

    def _record(self, subject: Any, *rest: Any) -> Any:
        return self._counted(super()._record, subject, *rest)

    def _counted(self, work: Any, subject: Any, *rest: Any) -> Any:
        CLOCKS.row = subject.name
        with CLOCKS.running(REST):
            return work(subject, *rest)


def defences(network: Any) -> dict[str, Any]:
    """What is measured, for pictures (N, 3, H, W)."""
    first = {"channels_first": True}
    jpeg = JpegCompression(UNIT, quality=75, **first)
    median, blur = SpatialSmoothing(3, **first), GaussianBlur(5, **first)
    noise = GaussianAugmentation(
        0.05, augmentation=False, clip_values=UNIT, apply_fit=False, apply_predict=True
    )
    spared = RobustActivationMap(network)
    return {
        "JpegCompression, quality 75": jpeg,
        "FeatureSqueezing, 4 bits": FeatureSqueezing(UNIT, 4),
        "SpatialSmoothing, 3x3": median,
        "GaussianBlur, 5x5": blur,
        "GaussianAugmentation, sigma 0.05": noise,
        "WaveletDenoising, sigma 0.04": WaveletDenoising(UNIT, **first),
        "PixelDeflection, 200 pixels, wavelet": PixelDeflection(UNIT, 200, 10, **first),
        "PixelDeflection, 200 pixels, map, wavelet": PixelDeflection(
            UNIT, 200, 10, activation_map=spared, **first
        ),
        "TotalVarMin, keeps 30%": TotalVarMin(0.3, clip_values=UNIT, **first),
        "Chain, JPEG then median": Chain([jpeg, median]),
        "MajorityVote of JPEG, median, blur": MajorityVote(network, [jpeg, median, blur]),
    }


def measured(name: str, defence: Any, network: Any, threat: Any) -> list[float]:
    """Seconds of each part in one evaluation."""
    x, y = photographs_of_imagenet()
    CLOCKS.seconds.clear()
    kind, eps = threat
    evaluate(
        network,
        x[:SAMPLES],
        y[:SAMPLES],
        {name: defence},
        threat=kind,
        eps=eps,
        clip_values=UNIT,
        budget=BUDGET,
        eot=DRAWS,
        verbose=False,
    )
    return [CLOCKS.seconds[name, part] for part in PARTS]


def line(name: str, threat: str, seconds: list[float]) -> str:
    """A row of the table."""
    forward, backward, *others = seconds
    network = forward + backward
    figures = [f"{forward:.1f}", f"{backward:.1f}", *(f"{part / network:.1%}" for part in others)]
    return f"| {name} | {threat} | {' | '.join(figures)} | **{sum(others) / network:.1%}** |"


def main() -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--threat", choices=[kind for kind, _ in THREATS])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    defended.Pass, run.Batch = MeasuredPass, MeasuredBatch  # type: ignore[misc, assignment]
    network = Measured(load_pretrained("efficientnet-lite0").model).eval()
    heads = ["defence", "threat", "network forward, s", "network backward, s", *PARTS[2:], "together"]
    lines = [f"| {' | '.join(heads)} |", "|---|---" + "|---:" * (len(heads) - 2) + "|"]
    print(*lines, sep="\n", flush=True)
    for name, defence in defences(network).items():
        if arguments.only in name:
            getattr(defence, "predict", defence)(photographs_of_imagenet()[0])  # compiles its kernels
            for threat in THREATS:
                if arguments.threat in (None, threat[0]):
                    seconds = measured(name, defence, network, threat)
                    lines.append(line(name, threat[0], seconds))
                    print(lines[-1], flush=True)
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        made = "\n".join(lines) + "\n"
        PAGE.write_text(BETWEEN.sub(lambda _: made, page), encoding="utf-8")


if __name__ == "__main__":
    main()
