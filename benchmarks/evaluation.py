"""Time `evaluate` beside the attacks and predictions that it must run, called directly, in one process.

python benchmarks/evaluation.py [--pairs 3]
"""

import argparse
import os
import time
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np

from preshield import Chain, GaussianAugmentation, JpegCompression, SpatialSmoothing, evaluate
from preshield.evaluation.attacks import Attacker
from preshield.evaluation.classifiers import as_classifier
from preshield.evaluation.estimator import DefendedClassifier
from preshield.evaluation.gradients import gradient_variants
from preshield.evaluation.photographs import bundled_photographs, cut_crops
from preshield.evaluation.report import Threat
from preshield.neural.small_cnn import small_cnn, train

UNIT = (0.0, 1.0)
EOT = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=3)
    pairs = parser.parse_args().pairs
    task = cut_crops(bundled_photographs(), train_per_class=100)
    model = small_cnn((32, 32, 3), len(task.class_names))
    train(model, task.x_train, task.y_train, epochs=6)
    x, y = task.x_test, task.y_test
    jpeg, median_filter = JpegCompression(UNIT), SpatialSmoothing(3)
    noise = GaussianAugmentation(
        0.05, augmentation=False, clip_values=UNIT, apply_fit=False, apply_predict=True
    )
    for defences in ([median_filter], [jpeg, median_filter, Chain([jpeg, median_filter]), noise]):
        whole, direct = [], []
        for _ in range(pairs):
            start = time.perf_counter()
            report = evaluate(model, x, y, defences, eot=EOT, batch_size=len(x), verbose=False)
            whole.append(time.perf_counter() - start)
            start = time.perf_counter()
            by_hand(model, x, y, defences, report.threat.eps)
            direct.append(time.perf_counter() - start)
        names = ", ".join(type(defence).__name__ for defence in defences)
        ratio = median(whole) / median(direct)
        print(f"{names}: evaluate {median(whole):.1f} s, by hand {median(direct):.1f} s, {ratio - 1:+.0%}")


def by_hand(model: object, x: np.ndarray, y: np.ndarray, defences: list, eps: float | None) -> None:
    """The attacks and the predictions of an evaluation, and nothing else."""
    classifier = as_classifier(model, x[:2], UNIT)
    attacker = Attacker(Threat("l2-minimum", eps, UNIT), 50, None, 0)
    rng = np.random.default_rng(0)
    oblivious = None
    for defence in (None, *defences):
        models = [
            DefendedClassifier(
                classifier, d, draws=EOT, clip_values=UNIT, nb_classes=10, input_shape=x.shape[1:]
            )
            for d in gradient_variants(defence)
        ]
        adaptive = attacker.white_box(models, x, y)
        oblivious = oblivious or adaptive
        black_box = attacker.black_box(models[0], x, y)
        for points in (x, oblivious.x, adaptive.x, black_box.x):
            models[0].labels(points)
        for _ in range(EOT):
            models[0].with_draws(1).labels(attacker.noise(x, np.minimum(adaptive.norms, 10), rng))


if __name__ == "__main__":
    main()
