"""Time a vote beside its predictions and blurs, and attack it with and without its gradients.

python benchmarks/voting.py [--pairs 15] [--only-speed]
"""

import argparse
import os
import time
from collections.abc import Callable
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np

from preshield import GaussianBlur, MajorityVote, evaluate
from preshield.evaluation.classifiers import predictor
from preshield.evaluation.photographs import bundled_photographs, cut_crops
from preshield.neural.small_cnn import small_cnn, train

TARGET = 1.10  # of three predictions and two blurs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only-speed", action="store_true")
    arguments = parser.parse_args()
    task = cut_crops(bundled_photographs(), train_per_class=60, test_per_class=4)
    model = small_cnn((32, 32, 3), len(task.class_names))
    train(model, task.x_train, task.y_train, epochs=6)
    crops = np.concatenate([task.x_test] * 16)  # 640
    large = np.random.default_rng(0).random((64, 224, 224, 3), dtype=np.float32)
    weights = np.random.default_rng(1).standard_normal((224 * 224 * 3, 10)).astype(np.float32)
    compare("CNN, (640,32,32,3)", model, crops, arguments.pairs)
    compare("linear, (64,224,224,3)", lambda x: x.reshape(len(x), -1) @ weights, large, arguments.pairs)
    if not arguments.only_speed:
        votes = {
            "vote": MajorityVote(model),
            "unanimous": MajorityVote(model, min_votes=3),
            "vote, labels only": MajorityVote(model.predict_on_batch),
        }
        print(evaluate(model, task.x_test, task.y_test, votes, budget=40, verbose=False))


def compare(name: str, model: object, x: np.ndarray, pairs: int) -> None:
    """Three predictions and the two blurs by hand, and the vote, in turn."""
    vote, blur, predict = MajorityVote(model), GaussianBlur(5, 1.0), predictor(model)

    def by_hand() -> np.ndarray:
        once = blur.transform(x)
        return np.stack([predict(seen).argmax(axis=1) for seen in (x, once, blur.transform(once))], axis=1)

    assert (by_hand() == vote.votes(x)).all()
    times: dict[Callable[[], object], list[float]] = {by_hand: [], lambda: vote.predict(x): []}
    for _ in range(pairs):
        for call, seconds in times.items():
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    direct, whole = map(median, times.values())
    figures = f"vote {1e3 * whole:.1f} ms, by hand {1e3 * direct:.1f} ms, ratio {whole / direct:.3f}"
    print(f"{name}: {figures} (target {TARGET:.2f})")


if __name__ == "__main__":
    main()
