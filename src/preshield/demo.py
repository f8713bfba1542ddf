"""The demonstrations: photographs, a network, its defences, and an evaluation of them."""

from collections.abc import Callable, Mapping
from typing import Any

from . import (
    BarrageOfTransforms,
    BlurNet,
    Chain,
    CropRescale,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    JpegCompression,
    PixelDeflection,
    RandomResizePad,
    Shield,
    SpatialSmoothing,
    ThermometerEncoding,
    TotalVarMin,
    WaveletDenoising,
)
from ._core.progress import progress_bar
from ._core.typing import Array
from .evaluation.evaluate import evaluate
from .evaluation.photographs import bundled_photographs, cut_crops, photographs_of_imagenet
from .evaluation.report import RobustnessReport
from .neural.pretrained import load_pretrained
from .neural.small_cnn import small_cnn, train
from .preprocessor import Preprocessor

__all__ = ["exhibits", "run_crops", "run_imagenet"]


def exhibits() -> dict[str, Preprocessor]:
    """Every image defence that neither predicts nor learns, and a chain, by the name of its row.

    Returns
    -------
    dict of str to Preprocessor
        For images (N, H, W, 3) in [0, 1].
    """
    unit = (0.0, 1.0)
    jpeg, median = JpegCompression(unit, quality=50), SpatialSmoothing(3)
    noise = GaussianAugmentation(
        0.05, augmentation=False, clip_values=unit, apply_fit=False, apply_predict=True
    )
    return {
        "FeatureSqueezing, 3 bits": FeatureSqueezing(unit, 3),
        "SpatialSmoothing, 3x3": median,
        "JpegCompression, quality 50": jpeg,
        "ThermometerEncoding, 10 levels": ThermometerEncoding(unit, 10),
        "TotalVarMin, keeps 30%": TotalVarMin(0.3, clip_values=unit),
        "GaussianBlur, 5x5": GaussianBlur(5),
        "BlurNet, box of 5x5": BlurNet(5),
        "PixelDeflection, 20 pixels, wavelet": PixelDeflection(unit, 20, 3),
        "WaveletDenoising, sigma 0.04": WaveletDenoising(unit),
        "RandomResizePad, 28 to 31 in 32": RandomResizePad(28, 32),
        "CropRescale, 24 of 32": CropRescale(24),
        "Shield, qualities 20 to 80": Shield(unit),
        "BarrageOfTransforms, 3 of 5": BarrageOfTransforms(
            [FeatureSqueezing(unit, 4), jpeg, median, noise, CropRescale(24)], 3
        ),
        "GaussianAugmentation, sigma 0.05": noise,
        "Chain, JPEG then median": Chain([jpeg, median]),
    }


def run_imagenet(
    *,
    seed: int = 0,
    eot: int = 2,
    budget: int = 20,
    defences: Mapping[str, Preprocessor] | None = None,
    verbose: bool = False,
) -> RobustnessReport:
    """Attack a network that was trained on ImageNet, and defences in front of it, on four photographs.

    Parameters
    ----------
    seed : int
        Seed of the evaluation.
    eot, budget : int
        Draws of a stochastic defence, and gradients of an attack; see `evaluate`.
    defences : mapping of str to Preprocessor, optional
        What to evaluate, for pictures (N, 3, H, W) in [0, 1].
    verbose : bool
        Show progress bars.

    Returns
    -------
    RobustnessReport

    Raises
    ------
    ImportError
        If a package of the extra ``demo`` is missing.
    """
    model = load_pretrained("efficientnet-lite0")
    x, y = photographs_of_imagenet()
    unit = (0.0, 1.0)
    if defences is None:
        defences = {
            "FeatureSqueezing, 4 bits": FeatureSqueezing(unit, 4),
            "SpatialSmoothing, 3x3": SpatialSmoothing(3, channels_first=True),
            "JpegCompression, quality 75": JpegCompression(unit, quality=75, channels_first=True),
            "WaveletDenoising, sigma 0.04": WaveletDenoising(unit, channels_first=True),
            "PixelDeflection, 200 pixels, wavelet": PixelDeflection(unit, 200, 10, channels_first=True),
        }
    return evaluate(
        model,
        x,
        y,
        defences,
        eot=eot,
        seed=seed,
        budget=budget,
        columns=("oblivious", "shared", "adaptive"),
        clip_values=unit,
        verbose=verbose,
    )


def run_crops(
    *,
    seed: int = 0,
    epochs: int = 8,
    train_per_class: int = 150,
    test_per_class: int = 8,
    eot: int = 4,
    budget: int = 30,
    defences: Callable[[Any], Mapping[str, Any]] = lambda model: exhibits(),
    verbose: bool = False,
) -> RobustnessReport:
    """Train small networks on photographs, defend one of them, and attack it.

    The classes are ten photographs; the classifier tells from which of them a crop was cut. A second network
    with another seed is the surrogate of the transfer attack. A defence that changes the shape of its input
    has a network of its own, trained on what it returns.

    Parameters
    ----------
    seed : int
        Seed of the weights, of the order of training and of the evaluation.
    epochs : int
        Passes over the training crops.
    train_per_class, test_per_class : int
        The most crops of each photograph in the training and the test set.
    eot, budget : int
        Draws of a stochastic defence, and gradients of an attack; see `evaluate`. The defaults are smaller
        than there, because the demonstration has many rows.
    defences : callable
        Gives what to evaluate, by the name of its row, for the trained classifier; `exhibits` by default.
    verbose : bool
        Show progress bars.

    Returns
    -------
    RobustnessReport

    Raises
    ------
    ImportError
        If a package of the extra ``demo`` is missing.
    """
    task = cut_crops(bundled_photographs(), train_per_class=train_per_class, test_per_class=test_per_class)

    def trained(label: str, x: Array, seed: int) -> Any:
        model = small_cnn(x.shape[1:], len(task.class_names), seed=seed)
        with progress_bar(total=epochs, desc=f"training {label}", unit="epoch", disable=not verbose) as bar:
            train(model, x, task.y_train, epochs=epochs, seed=seed, on_epoch=lambda done: bar.update())
        return model

    model = trained("the classifier", task.x_train, seed)
    surrogate = trained("the surrogate", task.x_train, seed + 1)
    shown = dict(defences(model))
    for name, defence in shown.items():
        if not defence.changes_shape:
            continue
        defended = defence.transform(task.x_train)
        if defended.shape[1:] != task.x_train.shape[1:]:  # of each sample, not of the batch
            shown[name] = (defence, trained(f"behind {name}", defended, seed))
    return evaluate(
        model,
        task.x_test,
        task.y_test,
        shown,
        eot=eot,
        seed=seed,
        budget=budget,
        batch_size=len(task.x_test),
        surrogate=surrogate,
        clip_values=(0.0, 1.0),
        verbose=verbose,
    )
