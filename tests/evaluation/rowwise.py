"""A classifier in closed form whose scores have the same bits in whatever batch, and data for it."""

import numpy as np

__all__ = ["SHAPE", "RowWise", "data"]

SHAPE = (4, 4, 1)


class RowWise:
    """Scores ``tanh(x w_k) c_k``, each sample by itself; it can be sent to another process."""

    nb_classes = 4
    input_shape = SHAPE
    of_probabilities = False
    channels_first = False

    def __init__(self, seed=0, slope=3.0):
        self.weights = np.random.default_rng(seed).standard_normal((4, 16)).astype(np.float32)
        self.slope = slope

    def for_attacks(self, x):
        return self

    def array(self, x):
        return np.asarray(x, np.float32)

    def predict(self, x):
        rows = np.asarray(x, np.float32).reshape(len(x), 1, 16) - np.float32(0.5)
        return np.tanh((rows * self.weights).sum(axis=2) * np.float32(self.slope))

    def forward(self, x):
        scores = self.predict(x)

        def pull(derivative):
            inner = (derivative * (1 - scores.astype(np.float64) ** 2) * self.slope).astype(np.float32)
            return (inner[:, :, None] * self.weights).sum(axis=1).reshape(len(x), *SHAPE)

        return scores, pull


def data(count, seed=1):
    """Samples in [0, 1], and the labels that the classifier gives to most of them."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, *SHAPE), dtype=np.float32)
    y = RowWise().predict(x).argmax(axis=1)
    y[::7] = (y[::7] + 1) % 4
    return x, y
