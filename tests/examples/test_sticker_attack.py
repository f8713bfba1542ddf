"""The sticker attack of the notebooks."""

import numpy as np
import pytest

from preshield import GaussianAugmentation, SpatialSmoothing
from preshield.evaluation.metrics import accuracy, attack_success_rate, dissimilarity

torch = pytest.importorskip("torch")
pytest.importorskip("art")

from examples.tasks.sticker_attack import (  # noqa: E402
    Conditions,
    StickerAttack,
    View,
    _linear,
    rectangle,
    two_bars,
)

RNG = np.random.default_rng(0)
SIZE = (8, 8)
MASK = rectangle(SIZE, 2, 1, 4, 5)
STILL = Conditions(0, 0, 0, 0)  # one view, as it is
GENTLE = Conditions(shift=0.7, scale=0.05, brightness=0.1, noise=0.02)
X = RNG.uniform(0.3, 0.7, (6, 8, 8, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads of torch cost more than they save where tensors are this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Linear(torch.nn.Module):
    """Scores that are linear in the pixels of channels-first images."""

    def __init__(self, shape=(3, *SIZE), classes=3, gain=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(gain * torch.randn(classes, *shape, generator=generator))

    def forward(self, x):
        return torch.einsum("nchw,kchw->nk", x, self.weight)


def first(x):
    """Channels first."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def labels(model, x):
    with torch.no_grad():
        return model(torch.from_numpy(x)).argmax(1).numpy()


def attack(model=None, mask=MASK, **kwargs):
    few = {"channels_first": True, "conditions": GENTLE, "transformations": 2, "steps": 30}
    return StickerAttack(model or Linear(), mask, **few | kwargs)


XF = first(X)
Y = labels(Linear(), XF)


def identity(shape=(3, *SIZE)):
    return View(np.eye(shape[1]), np.eye(shape[2]), 1.0, np.zeros(shape))


# What comes out


@pytest.mark.parametrize("universal", [False, True])
def test_only_the_sticker_changes(universal):
    x = XF.copy()
    x.flags.writeable = False
    attacked = attack(universal=universal, clip_values=(0.25, 0.75)).generate(x, Y)
    assert attacked.dtype == np.float32
    assert attacked.shape == x.shape
    assert (attacked != x)[:, :, MASK == 1].mean() > 0.9
    np.testing.assert_array_equal(attacked[:, :, MASK == 0], x[:, :, MASK == 0])
    assert attacked.min() >= 0.25
    assert attacked.max() <= 0.75


def test_one_sticker_may_serve_all_images():
    made = attack(universal=True)
    sticker = made.optimise(XF, Y)
    assert sticker.shape == (1, 3, *SIZE)
    np.testing.assert_array_equal(made.place(XF, sticker), made.generate(XF, Y))
    assert attack().optimise(XF, Y).shape == XF.shape


def test_a_sticker_stays_where_an_image_still_shows_it():
    """Beyond, its gradient would be 0 and it could not come back."""
    own = attack(weight=0).optimise(XF, Y)
    placed = (XF + own)[:, :, MASK == 1]
    assert abs(placed - np.clip(placed, 0, 1)).max() < 1e-12
    assert np.isin(placed, (0, 1)).mean() > 0.5
    shared = attack(weight=0, universal=True).optimise(XF, Y)[0].astype(np.float32)
    low, high = -XF.max(axis=0), 1 - XF.min(axis=0)
    assert np.all((shared >= low) & (shared <= high))
    assert ((shared == low) | (shared == high))[:, MASK == 1].mean() > 0.5


def test_any_wrong_class():
    attacked = attack().generate(XF, Y)
    assert accuracy(labels(Linear(), XF), Y) == 1
    assert attack_success_rate(labels(Linear(), attacked), Y) == 1
    assert 0 < dissimilarity(XF, attacked) < 1


@pytest.mark.parametrize(
    ("target", "universal"), [(2, False), (2, True), (0, True), (np.array([0, 1, 2, 0, 1, 2]), False)]
)
def test_the_target_is_reached(target, universal):
    attacked = attack(target=target, universal=universal).generate(XF, Y)
    assert (labels(Linear(), attacked) == target).all()


def test_the_same_seed_gives_the_same_sticker():
    one, two, other = (attack(seed=seed, steps=3).generate(XF, Y) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_a_heavier_norm_makes_the_sticker_smaller():
    sizes = [dissimilarity(XF, attack(weight=weight).generate(XF, Y)) for weight in (0, 1, 3, 100)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0.4
    assert sizes[-1] < 0.01


def test_a_sticker_is_made_for_the_views():
    """Of two stickers of one size, that made for many views works in more of them."""
    rng = np.random.default_rng(9)
    views = [GENTLE.draw(rng, (3, *SIZE)) for _ in range(40)]

    def reached(conditions):
        made = attack(target=0, conditions=conditions, weight=2, transformations=8).generate(XF, Y)
        seen = np.stack([labels(Linear(), view(made, (0, 1))[0].astype(np.float32)) for view in views])
        return attack_success_rate(seen, Y, target=0), dissimilarity(XF, made)

    (still, size), (robust, robust_size) = reached(STILL), reached(GENTLE)
    assert robust > still + 0.2
    assert robust_size < size + 0.02


# The optimum of a linear model


def test_the_optimum_of_a_linear_model():
    """Each value of the sticker goes to the end of its range that the weights favour."""
    model = Linear(classes=2, gain=0.01)
    once = {"conditions": STILL, "transformations": 1}
    attacked = attack(model, weight=0, target=1, **once).generate(XF, Y)
    direction = (model.weight[1] - model.weight[0]).detach().numpy() * MASK
    expected = np.where(direction > 0, 1, np.where(direction < 0, 0, XF))
    np.testing.assert_allclose(attacked, expected, atol=1e-6)


def test_the_optimum_with_a_norm():
    """Where nothing is clipped the sticker is parallel to the weights, and its length has a formula."""
    model, weight = Linear(classes=2), 0.5
    once = {"conditions": STILL, "transformations": 1, "steps": 100, "learning_rate": 0.02}
    sticker = attack(model, weight=weight, target=1, clip_values=(-50.0, 50.0), **once).optimise(XF, Y)
    towards = (model.weight[1] - model.weight[0]).detach().numpy().astype(float)
    margin = np.einsum("nchw,chw->n", XF, towards)
    length = np.linalg.norm(towards * MASK)
    # It minimises weight * s + log(1 + exp(-(margin + s * length))) over s >= 0.
    s = np.maximum(0, (np.log(length / weight - 1) - margin) / length)
    assert 0 < (s > 0).sum() < len(s)
    expected = s[:, None, None, None] * towards * MASK / length
    np.testing.assert_allclose(sticker, expected, atol=1e-3)


# Derivatives


def objective(made, model, labels_, sticker, views, norm):
    """The objective of each image, in double precision."""
    attacked = np.clip(XF + made.mask * sticker, 0, 1)
    loss = 0
    for view in views:
        seen = np.clip(view.brightness * (view.rows @ attacked @ view.columns.T) + view.noise, 0, 1)
        scores = model.double()(torch.from_numpy(seen))
        cross = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels_), reduction="none")
        loss = loss + cross.detach().numpy() / len(views)
    model.float()
    sign = -1 if made.target is None else 1
    sizes = np.linalg.norm((made.mask * sticker).reshape(len(sticker), -1), ord=norm, axis=1)
    return sign * loss + made.weight * sizes


@pytest.mark.parametrize("universal", [False, True])
@pytest.mark.parametrize(("target", "norm"), [(None, 2), (1, 1), (1, np.inf), (None, 3)])
def test_gradient_by_finite_differences(universal, target, norm):
    model = Linear()
    made = attack(model, target=target, norm=norm, universal=universal, weight=0.3)
    rng = np.random.default_rng(1)
    views = [Conditions().draw(rng, (3, *SIZE)) for _ in range(3)]
    sticker = rng.uniform(-0.6, 0.6, (1 if universal else len(XF), 3, *SIZE))
    wanted = np.arange(len(XF)) % 3 if target is None else np.full(len(XF), target)
    gradient = made.gradient(made.defended(XF), XF.astype(float), wanted, sticker, views)
    assert gradient.shape == sticker.shape
    assert not gradient[:, :, MASK == 0].any()
    direction = rng.standard_normal(sticker.shape)
    step = 1e-6
    ahead, behind = (
        objective(made, model, wanted, sticker + e * direction, views, norm) for e in (step, -step)
    )
    slopes = (gradient * direction).sum(axis=(1, 2, 3))
    expected = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(slopes, expected.mean() if universal else expected, rtol=1e-3, atol=1e-3)


def test_no_sticker_has_a_gradient_too():
    made = attack(weight=1e6, norm=3)
    gradient = made.gradient(made.defended(XF), XF, Y, np.zeros_like(XF), [identity()])
    assert np.isfinite(gradient).all()
    assert 0 < abs(gradient).max() < 100


# Views


def test_a_view_by_hand():
    x = np.arange(12, dtype=float).reshape(1, 1, 3, 4) / 12
    moved = Conditions(0, 0, 0, 0).draw(np.random.default_rng(0), (1, 3, 4))
    np.testing.assert_allclose(moved(x, (0, 1))[0], x)
    np.testing.assert_allclose(_linear(4, 1.0, 1.0), np.eye(4)[[0, 0, 1, 2]])
    np.testing.assert_allclose(_linear(4, 1.0, -0.5)[0], [0.5, 0.5, 0, 0])
    np.testing.assert_allclose(_linear(3, 2.0, 0)[0], [0.5, 0.5, 0])
    np.testing.assert_allclose(_linear(3, 0.5, 0), np.eye(3)[[0, 1, 2]])


def test_views_agree_with_scipy():
    """Scale about the middle, then shift; borders repeated."""
    from scipy.ndimage import affine_transform

    image = RNG.random((1, 1, 9, 7))
    view = Conditions(2, 0.3, 0.2, 0).draw(np.random.default_rng(4), (1, 9, 7))
    rng = np.random.default_rng(4)
    scale = 1 + 0.3 * rng.uniform(-1, 1)
    shifts = 2 * rng.uniform(-1, 1), 2 * rng.uniform(-1, 1)
    brightness = 1 + 0.2 * rng.uniform(-1, 1)
    offset = [(n - 1) / 2 - ((n - 1) / 2 + shift) / scale for n, shift in zip((9, 7), shifts, strict=True)]
    expected = affine_transform(image[0, 0], [1 / scale] * 2, offset, order=1, mode="nearest") * brightness
    np.testing.assert_allclose(view(image, (0, 2))[0][0, 0], expected, atol=1e-12)


def test_views_pull_back_by_their_transpose():
    rng = np.random.default_rng(0)
    view = Conditions(2, 0.3, 0.2, 0.05).draw(rng, (3, 9, 7))
    x, grad = rng.random((2, 3, 9, 7)), rng.standard_normal((2, 3, 9, 7))
    direction = rng.standard_normal(x.shape)
    step = 1e-7
    change = (view(x + step * direction, (0, 1))[0] - view(x - step * direction, (0, 1))[0]) / (2 * step)
    back = view(x, (0, 1))[1]
    np.testing.assert_allclose((back(grad) * direction).sum(), (change * grad).sum(), rtol=1e-5)
    seen = view(x, (0.3, 0.6))[0]
    assert (seen.min(), seen.max()) == (0.3, 0.6)


# Models and defences


def test_keras_and_torch_agree():
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    theirs = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    weight = Linear().weight.detach().numpy()
    theirs.set_weights([weight.transpose(2, 3, 1, 0).reshape(-1, 3), np.zeros(3, np.float32)])
    found = attack(theirs, channels_first=False, steps=5, conditions=STILL).generate(X, Y)
    np.testing.assert_allclose(first(found), attack(steps=5, conditions=STILL).generate(XF, Y), atol=1e-4)


def test_classifiers_of_art():
    pytest.importorskip("art")
    from art.estimators.classification import PyTorchClassifier

    loss = torch.nn.CrossEntropyLoss()
    classifier = PyTorchClassifier(Linear(), loss, XF.shape[1:], 3, device_type="cpu")
    np.testing.assert_array_equal(
        attack(classifier, steps=3).generate(XF, Y), attack(steps=3).generate(XF, Y)
    )


def test_through_a_defence():
    """Of two stickers of one size, that made through the median works behind it."""
    defence = SpatialSmoothing(3, channels_first=True, gradient="exact")

    def reached(through):
        made = attack(defence=through, target=0, weight=0.5, conditions=STILL, transformations=1, steps=40)
        attacked = made.generate(XF, Y)
        predicted = labels(Linear(), defence.transform(attacked))
        return attack_success_rate(predicted, Y, target=0), dissimilarity(XF, attacked)

    (blind, size), (through, through_size) = reached(None), reached(defence)
    assert through == 1
    assert blind < 0.5
    assert through_size < size + 0.02


def test_a_stochastic_defence_is_not_touched():
    noise = GaussianAugmentation(
        sigma=0.1, augmentation=False, apply_predict=True, rng=np.random.default_rng(5)
    )
    state = noise.rng.bit_generator.state
    one, two = (attack(defence=noise, steps=3).generate(XF, Y) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert noise.rng.bit_generator.state == state
    assert (one != attack(steps=3).generate(XF, Y)).any()
    draws = [attack(defence=noise, conditions=STILL, steps=3, seed=seed).generate(XF, Y) for seed in (0, 1)]
    assert (draws[0] != draws[1]).any()


def test_training_mode_is_given_back():
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), Linear()).train()
    one, two = (attack(model, steps=3).generate(XF, Y) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert model.training
    assert model[0].training


# Masks and bad input


def test_masks():
    np.testing.assert_array_equal(rectangle((3, 4), 1, 2, 1, 2), [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    bars = two_bars((32, 32))
    assert bars.sum() == 2 * 4 * 24
    np.testing.assert_array_equal(np.flatnonzero(bars.any(axis=1)), [6, 7, 8, 9, 22, 23, 24, 25])
    np.testing.assert_array_equal(np.flatnonzero(bars.any(axis=0)), np.arange(4, 28))


@pytest.mark.parametrize("mask", [np.zeros(SIZE), np.full(SIZE, 0.5), np.ones((8, 8, 3))])
def test_refused_masks(mask):
    with pytest.raises(ValueError, match=r"`mask` must have the shape \(H, W\), with 1 where"):
        attack(mask=mask)


@pytest.mark.parametrize(
    ("kwargs", "x", "y", "message"),
    [
        ({}, XF[:, :, :4], Y, r"of the size \(8, 8\) of `mask`, .* got shape \(6, 3, 4, 8\)"),
        ({"channels_first": False}, XF, Y, r"with channels_first=False, got shape \(6, 3, 8, 8\)"),
        ({}, XF + 1, Y, r"within `clip_values` \(0.0, 1.0\), got values from 1\.3"),
        ({}, XF, Y[:2], r"`y` must hold one class index for each of the 6 images, .* shape \(2,\)"),
        ({}, XF, Y.astype(float), "`y` must hold one class index .* got dtype float64"),
        ({"target": [1, 2]}, XF, Y, "`target` must hold one class index for each of the 6"),
    ],
)
def test_refused_images(kwargs, x, y, message):
    with pytest.raises(ValueError, match=message):
        attack(**kwargs).generate(x, y)


def test_refused_models_and_norms():
    with pytest.raises(TypeError, match="`model` must have gradients, got function"):
        attack(lambda x: x.reshape(len(x), -1)[:, :3]).generate(XF, Y)
    with pytest.raises(ValueError, match=r"`norm` must be at least 1, got 0.5"):
        attack(norm=0.5)
