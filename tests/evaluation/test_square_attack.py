import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preshield.evaluation.metrics import perturbation_norms
from preshield.evaluation.square_attack import _bump, _moved_mass, _sides, square_attack

NORMS = ["linf", "l2"]
SHAPES = {
    "images": (6, 5, 3),
    "clips": (3, 6, 5, 2),
    "waveforms": (40,),
    "stereo": (40, 2),
    "features": (4,),
    "one feature": (1,),
}


class Linear:
    """A classifier that is right where w @ x + b is positive; the distance to its boundary is known."""

    def __init__(self, shape, seed=0):
        self.w = np.random.default_rng(seed).normal(0.5, 1, shape)
        self.offset = 0.15 * abs(self.w).sum()  # right where all values are between 0.4 and 0.6
        self.seen = []

    def __call__(self, points, rows):
        margins = np.tensordot(points - 0.5, self.w, self.w.ndim) + self.offset
        self.seen += zip(rows.tolist(), margins.tolist(), points.copy(), strict=True)
        return margins

    def distance(self, x, norm):
        margins = np.tensordot(x - 0.5, self.w, self.w.ndim) + self.offset
        return margins / (abs(self.w).sum() if norm == "linf" else np.linalg.norm(self.w))


def batch(shape, samples=3, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).uniform(0.4, 0.6, (samples, *shape)).astype(dtype)


def never(points, rows):
    """A margin that nothing lowers: a classifier behind a defence that hides all."""
    return np.ones(len(rows))


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple),
    norm=st.sampled_from(NORMS),
    radii=st.lists(st.sampled_from([0, 1e-9, 1e-3, 8 / 255, 0.3, 1, 50]), min_size=3, max_size=3),
    clip_values=st.sampled_from([(0, 1), (0.1, 0.9), (-1, 1)]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    channels_first=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_invariants(shape, norm, radii, clip_values, dtype, channels_first, seed):
    rng = np.random.default_rng(seed)
    low, high = (np.asarray(value, dtype) for value in clip_values)
    x = np.clip(rng.uniform(-0.2, 1.2, (3, *shape)).astype(dtype), low, high)  # many values at the bounds
    before, model, radii = x.copy(), Linear(shape, seed), np.array(radii)
    x.flags.writeable = False
    options = {
        "norm": norm,
        "eps": radii,
        "clip_values": clip_values,
        "channels_first": channels_first,
        "queries": 15,
    }
    found = square_attack(x, model, seed=seed, **options)

    assert found.shape == x.shape
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(x, before)
    assert (perturbation_norms(x, found, norm) <= radii * (1 + 1e-6)).all()
    assert found.min() >= low
    assert found.max() <= high
    np.testing.assert_array_equal(found, square_attack(x, Linear(shape, seed), seed=seed, **options))
    for row in range(3):
        visited = [(margin, point) for index, margin, point in model.seen if index == row]
        assert len(visited) <= 15
        assert bool(visited) == (radii[row] > 0)
        if visited:  # the best of all that it visited
            smallest = min(margin for margin, _ in visited)
            assert any(m == smallest and np.array_equal(p, found[row]) for m, p in visited)
            assert all(margin >= 0 for margin, _ in visited[:-1])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_succeeds_beyond_the_boundary_and_never_before_it(shape, norm):
    x = batch(shape)
    model = Linear(shape)
    distance = model.distance(x, norm)
    assert (distance > 0).all()
    options = {"norm": norm, "clip_values": (-100, 100), "queries": 400}
    far = square_attack(x, model, eps=3 * distance, **options)
    assert (model(far, np.arange(3)) < 0).all()
    near = square_attack(x, model, eps=0.999 * distance, **options)
    assert (model(near, np.arange(3)) > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_channels_first_is_the_same_search(norm):
    x = batch((6, 5, 3))
    last, first = Linear((6, 5, 3)), Linear((6, 5, 3))
    options = {"norm": norm, "eps": 0.5 * last.distance(x, norm), "clip_values": (0, 1), "queries": 40}
    expected = square_attack(x, last, **options)
    found = square_attack(
        np.moveaxis(x, -1, 1),
        lambda points, rows: first(np.ascontiguousarray(np.moveaxis(points, 1, -1)), rows),
        channels_first=True,
        **options,
    )
    np.testing.assert_array_equal(np.moveaxis(found, 1, -1), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_samples_that_are_wrong_are_left_alone(norm):
    x = batch((4, 4, 1), samples=4)
    asked = []

    def margin(points, rows):
        asked.append(rows.tolist())
        return np.where(np.isin(rows, [0, 2]), -1.0, 1.0)

    found = square_attack(x, margin, norm=norm, eps=0.1, clip_values=(0, 1), queries=5)
    np.testing.assert_array_equal(found[[0, 2]], x[[0, 2]])
    assert asked == [[0, 1, 2, 3], *[[1, 3]] * 4]


@pytest.mark.parametrize("norm", NORMS)
def test_rows_say_which_samples_the_points_are(norm):
    x = np.linspace(0, 1, 6, dtype=np.float32)[:, None] * np.ones(8, np.float32)  # 0.2 apart
    model = Linear((8,))

    def margin(points, rows):
        np.testing.assert_array_equal(np.round(points.mean(axis=1) * 5), rows)
        return model(points, rows)

    square_attack(x, margin, norm=norm, eps=0.05, clip_values=(0, 1), queries=30)


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_does_not_depend_on_the_others(norm):
    x = batch((5, 5, 2))
    options = {"norm": norm, "eps": 0.05, "clip_values": (0, 1), "queries": 30}
    together = square_attack(x, Linear((5, 5, 2)), **options)
    x[1] = 0.1  # wrong from the start
    assert Linear((5, 5, 2))(x[1:2], np.array([1])) < 0
    np.testing.assert_array_equal(square_attack(x, Linear((5, 5, 2)), **options)[[0, 2]], together[[0, 2]])


@pytest.mark.parametrize("norm", NORMS)
def test_seeds_and_samples_differ(norm):
    x = np.full((2, 6, 6, 1), 0.5, np.float32)
    options = {"norm": norm, "eps": 0.1, "clip_values": (0, 1), "queries": 4}
    one, other = (square_attack(x, never, seed=seed, **options) for seed in (0, 1))
    assert (one != other).any()
    assert (one[0] != one[1]).any()


@pytest.mark.parametrize("norm", NORMS)
def test_no_query_is_wasted(norm):
    """On a plateau the search moves on, and each proposal differs from the point that it starts from."""
    x = np.full((4, 8, 8, 1), 0.5, np.float32)
    x[:, :4] = 0  # half of the proposals of one sign change nothing there
    points = []

    def margin(batch, rows):
        points.append(batch.copy())
        return never(batch, rows)

    found = square_attack(x, margin, norm=norm, eps=0.1, clip_values=(0, 1), queries=60)
    for before, after in pairwise(points):
        assert (before != after).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(found, points[-1])


def test_linf_proposals():
    """Vertical stripes first, then windows at a corner of the ball that shrink."""
    x = np.full((1, 20, 20, 3), 0.5, np.float32)
    deltas = []

    def margin(points, rows):
        deltas.append((points - x)[0])
        return np.full(1, 1.0 + len(deltas))  # every proposal is worse than `x`

    found = square_attack(x, margin, norm="linf", eps=0.25, clip_values=(0, 1), queries=100)
    np.testing.assert_array_equal(found, x)
    start, stripes, *windows = deltas
    assert not start.any()
    assert set(np.unique(stripes)) == {-0.25, 0.25}
    np.testing.assert_array_equal(stripes, np.broadcast_to(stripes[0], stripes.shape))
    assert np.ptp(stripes[0], axis=0).all()  # columns differ, in each channel
    sides = []
    for delta in windows:
        changed = np.argwhere(delta[..., 0])
        height, width = np.ptp(changed, axis=0) + 1
        assert height == width
        assert len(changed) == height * width
        values = delta[tuple(changed.T)]
        np.testing.assert_array_equal(abs(values), 0.25)
        assert (values == values[0]).all()
        sides.append(height)
    assert sides[0] == round(np.sqrt(0.8 * 400))
    assert sides[-1] == 1
    assert sides == sorted(sides, reverse=True)


def test_l2_proposals_spend_the_whole_radius():
    x = np.full((1, 20, 20, 3), 0.5)
    norms = []

    def margin(points, rows):
        norms.append(np.linalg.norm(points - x))
        return never(points, rows)

    square_attack(x, margin, norm="l2", eps=0.2, clip_values=(0, 1), queries=50)
    np.testing.assert_allclose(norms, [0, *[0.2] * 49])


def test_l2_moves_mass_from_one_window_to_another():
    """In each channel what both windows held goes to the first, and the rest stays as it is."""
    overlaps = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        delta = rng.normal(size=(12, 12, 2))
        moved = _moved_mass(delta.copy(), np.linalg.norm(delta), (5, 5), np.random.default_rng(seed))
        np.testing.assert_allclose((moved**2).sum(axis=(0, 1)), (delta**2).sum(axis=(0, 1)))
        emptied = (moved == 0).all(axis=2)
        filled = ~emptied & ~np.isclose(moved, delta).all(axis=2)
        assert filled.sum() == 25
        assert emptied.sum() <= 25
        overlaps += 0 < emptied.sum() < 25
    assert 0 < overlaps < 20


def test_l2_bump():
    """Two pyramids of opposite sign and equal norm, as in the authors' code."""
    up = np.array([[1, 5, 1]]) / np.sqrt(27)
    down = np.array([[1, 1, 1], [1, 5, 1]]) / np.sqrt(30)
    bump = np.concatenate([up, -down]) / np.sqrt(2)
    np.testing.assert_allclose(_bump((3, 3), 0), bump)
    np.testing.assert_allclose(_bump((3, 3), 1), bump.T)
    np.testing.assert_allclose(_bump((2,), 0), [np.sqrt(0.5), -np.sqrt(0.5)])
    np.testing.assert_allclose(_bump((1, 1), 0), [[-1]])


@pytest.mark.parametrize(
    ("shape", "norm", "spent", "sides"),
    [
        ((32, 32), "linf", 0, (29, 29)),  # sqrt(0.8 * 1024) = 28.6
        ((32, 32), "linf", 0.001, (29, 29)),
        ((32, 32), "linf", 0.0011, (20, 20)),  # halved: sqrt(409.6) = 20.2
        ((32, 32), "linf", 0.81, (1, 1)),
        ((32, 32), "l2", 0, (11, 11)),  # sqrt(102.4) = 10.1, rounded and made odd
        ((32, 32), "l2", 0.9, (3, 3)),
        ((16000,), "linf", 0, (12800,)),
        ((4, 32, 32), "linf", 0, (4, 29, 29)),  # the short axis leaves its share to the others
        ((2, 2), "l2", 0, (2, 2)),
        ((1, 1, 1), "linf", 0, (1, 1, 1)),
    ],
)
def test_sides_of_a_window(shape, norm, spent, sides):
    assert _sides(shape, norm, spent) == sides


def test_clip_values_may_be_arrays():
    x = np.full((2, 4, 4, 3), 0.5, np.float32)
    low, high = np.array([0.45, 0, 0.5]), np.array([0.55, 1, 0.6])  # one for each channel
    found = square_attack(x, never, norm="linf", eps=0.2, clip_values=(low, high), queries=10)
    assert (found >= low.astype(np.float32)).all()
    assert (found <= high.astype(np.float32)).all()
    assert np.ptp(found[..., 1]) > 0.3


def test_progress_rises_to_one():
    x = batch((4, 4, 1))
    for margin in (never, Linear((4, 4, 1)), lambda points, rows: -never(points, rows)):
        done = []
        square_attack(x, margin, norm="l2", eps=2, clip_values=(0, 1), queries=20, on_query=done.append)
        assert done == sorted(done)
        assert done[-1] == 1
        assert done[0] == 1 / 20


def test_nothing_to_do():
    def margin(points, rows):
        raise AssertionError("no query is needed")

    done, x = [], batch((4, 4, 1))
    options = {"norm": "linf", "clip_values": (0, 1), "on_query": done.append}
    np.testing.assert_array_equal(square_attack(x, margin, eps=0, **options), x)
    assert square_attack(x[:0], margin, eps=0.1, **options).shape == (0, 4, 4, 1)
    assert done == [1, 1]


@pytest.fixture
def one_thread():
    """Threads cost a small network more time than they save."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("norm", NORMS)
def test_as_strong_as_art(norm):
    """With the same number of queries it fools a small network at least about as often."""
    import torch
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(3 * 14 * 14, 32), torch.nn.Tanh(), torch.nn.Linear(32, 5)]
    network = torch.nn.Sequential(torch.nn.AvgPool2d(3, stride=1, padding=1), *layers)
    x = np.random.default_rng(0).uniform(0, 1, (64, 3, 14, 14)).astype(np.float32)

    def logits(points):
        with torch.no_grad():
            return network(torch.from_numpy(points)).numpy()

    y = logits(x).argmax(axis=1)

    def margin(points, rows):
        scores = logits(points)
        own = np.arange(5) == y[rows, None]
        return scores[own] - np.where(own, -np.inf, scores).max(axis=1)

    classifier = PyTorchClassifier(network, torch.nn.CrossEntropyLoss(), (3, 14, 14), 5, clip_values=(0, 1))
    order, eps, share = (np.inf, 0.03, 0.8) if norm == "linf" else (2, 1.2, 0.1)
    ours, theirs = [], []
    for seed in range(4):
        np.random.seed(seed)
        random.seed(seed)
        attack = SquareAttack(
            classifier, norm=order, eps=eps, p_init=share, max_iter=48, batch_size=64, verbose=False
        )  # and one query each for `x` and for the first proposal
        with np.errstate(all="ignore"):  # it divides by zero
            theirs.append((logits(attack.generate(x, y)).argmax(axis=1) != y).mean())
        found = square_attack(
            x, margin, norm=norm, eps=eps, clip_values=(0, 1), channels_first=True, queries=50, seed=seed
        )
        ours.append((logits(found).argmax(axis=1) != y).mean())
    assert 0.1 < np.mean(theirs) < 0.9  # or there is nothing to compare
    assert np.mean(ours) >= np.mean(theirs) - 0.03


X = np.full((2, 4, 4, 1), 0.5, np.float32)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"norm": "l1"}, ValueError, r"`norm` must be one of 'linf', 'l2', got 'l1'\."),
        ({"channels_first": 1}, TypeError, r"`channels_first` must be True or False, got 1\."),
        ({"queries": 0}, ValueError, r"`queries` must be at least 1, got 0\."),
        ({"queries": 1.5}, TypeError, r"`queries` must be an integer, got 1\.5 of type float\."),
        ({"seed": -1}, ValueError, r"`seed` must be at least 0, got -1\."),
        ({"seed": None}, TypeError, r"`seed` must be an integer, got None of type NoneType\."),
        ({"clip_values": (1, 0)}, ValueError, r"`clip_values` must have minimum < maximum everywhere, got"),
        (
            {"clip_values": (np.zeros(3), np.ones(3))},
            ValueError,
            r"`clip_values` must broadcast against .* shape \(4, 4, 1\), got shapes \(3,\) and \(3,\)\.",
        ),
        ({"clip_values": (0, 0.4)}, ValueError, r"`x` must lie within .*, got 32 of 32 values outside; clip"),
        ({"eps": -0.1}, ValueError, r"`eps` must be finite and at least 0, got -0\.1\."),
        ({"eps": np.nan}, ValueError, r"`eps` must be finite and at least 0, got nan\."),
        ({"eps": [0.1] * 3}, ValueError, r"`eps` must be a number or .* of the 2 samples, got shape \(3,\)"),
        ({"eps": "0.1"}, ValueError, r"`eps` must be a number .*dtype <U3"),
        ({"x": X.astype(int)}, TypeError, r"`x` must be a floating array .* got .* dtype int64; convert"),
        (
            {"x": X[:, 0, 0, 0]},
            TypeError,
            r"`x` must be a floating array of shape \(N, \.\.\.\), got shape \(2,\)",
        ),
        ({"x": X * np.nan}, ValueError, r"`x` must be finite, got 32 NaN"),
        (
            {"margin": lambda points, rows: np.ones((len(rows), 1))},
            ValueError,
            r"`margin` must return one number for each row, shape \(2,\), got shape \(2, 1\)\.",
        ),
        (
            {"margin": lambda points, rows: np.array([1, np.nan])},
            ValueError,
            r"`margin` must return numbers, got 1 NaN among 2 values; look for",
        ),
    ],
)
def test_what_is_refused(changed, error, message):
    options = {"x": X, "margin": never, "norm": "linf", "eps": 0.1, "clip_values": (0, 1)} | changed
    with pytest.raises(error, match=message):
        square_attack(options.pop("x"), options.pop("margin"), **options)
