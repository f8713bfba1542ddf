"""The photograph-crop task and two classifiers for it, trained once."""

from dataclasses import replace

import numpy as np
import pytest

from preshield.evaluation.photographs import bundled_photographs, cut_crops


@pytest.fixture(scope="session")
def task():
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    crops = cut_crops(bundled_photographs(), train_per_class=100, test_per_class=4)
    return replace(crops, x_train=averaged(crops.x_train), x_test=averaged(crops.x_test))


def averaged(x):
    """Half as large: a quarter of the work for whoever trains or attacks a network."""
    return x.reshape(len(x), 16, 2, 16, 2, 3).mean(axis=(2, 4))


@pytest.fixture(scope="session")
def keras_model(task):
    pytest.importorskip("keras")
    from preshield.neural.small_cnn import small_cnn, train

    model = small_cnn(task.x_train.shape[1:], len(task.class_names))
    train(model, task.x_train, task.y_train)
    return model


@pytest.fixture(scope="session")
def torch_model(task):
    """The same layers in torch, which takes the channels first; on one thread, which is enough for them."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Rescaling(nn.Module):
        def forward(self, x):
            return 4 * x - 2

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers, channels = [Rescaling()], 3
        for filters in (32, 64, 128):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            channels = filters
        layers += [nn.Flatten(), nn.Linear(128 * 4, 64), nn.ReLU(), nn.Linear(64, len(task.class_names))]
        model = nn.Sequential(*layers)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.from_numpy(channels_first(task.x_train)), torch.from_numpy(task.y_train)
    rng = np.random.default_rng(0)
    for _ in range(8):
        for batch in rng.permutation(len(x))[: len(x) // 32 * 32].reshape(-1, 32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    yield model.eval()
    torch.set_num_threads(threads)


def channels_first(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))
