"""Defences of which each sample draws some, in an order of its own."""

import numpy as np
import pytest

from preshield import (
    BarrageOfTransforms,
    Chain,
    Cutout,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    ImageResize,
    JpegCompression,
    LabelSmoothing,
    Mixup,
    Preprocessor,
    RandomApply,
    RandomResizePad,
    SpatialSmoothing,
    ThermometerEncoding,
    evaluate,
)
from preshield.evaluation.gradients import gradient_variants

X = np.random.default_rng(0).random((40, 5, 4, 3))
NOISE = GaussianAugmentation(0.1, augmentation=False)


class Digit(Preprocessor):
    """Writes a digit behind those that a number has: what was passed can be read, and in which order."""

    domains = ("features",)
    gradient_kind = "exact"

    def __init__(self, digit=1):
        self.digit = digit

    def _transform(self, x, draw):
        return 10 * x + self.digit

    def _gradient(self, x, grad, draw):
        return 10 * grad


DIGITS = [Digit(1), Digit(2), Digit(3)]


def test_each_defence_is_drawn_with_its_probability():
    out = RandomApply(DIGITS, 0.3, rng=0).transform(np.zeros((4000, 1)))
    found, counts = np.unique(out, return_counts=True)
    expected = {0: 0.343, 1: 0.147, 2: 0.147, 3: 0.147, 12: 0.063, 13: 0.063, 23: 0.063, 123: 0.027}
    np.testing.assert_array_equal(found, list(expected))  # in their order, if it is not random
    np.testing.assert_allclose(counts / 4000, list(expected.values()), atol=0.025)


def test_all_orders_are_as_likely():
    for defence in (BarrageOfTransforms(DIGITS, rng=0), RandomApply(DIGITS, 1, random_order=True, rng=0)):
        found, counts = np.unique(defence.transform(np.zeros((3000, 1))), return_counts=True)
        np.testing.assert_array_equal(found, [123, 132, 213, 231, 312, 321])
        np.testing.assert_allclose(counts, 500, atol=82)  # four standard deviations


def test_a_barrage_takes_so_many_of_them():
    one = BarrageOfTransforms(DIGITS, 2, rng=0).transform(np.zeros((500, 1)))
    np.testing.assert_array_equal(np.unique(one), [12, 13, 21, 23, 31, 32])
    some = BarrageOfTransforms(DIGITS, (0, 2), rng=0).transform(np.zeros((3000, 1)))
    numbers = np.ceil(np.log10(some + 1)).ravel()
    np.testing.assert_allclose(np.bincount(numbers.astype(int)), 1000, atol=104)


def test_the_gradient_goes_through_what_was_passed():
    for defence in (RandomApply(DIGITS, 0.5), BarrageOfTransforms(DIGITS, (0, 3))):
        with defence.frozen(5):
            passed = np.ceil(np.log10(defence.transform(np.zeros((40, 1))) + 1))
            pulled = defence.estimate_gradient(np.zeros((40, 1)), np.ones((40, 1)))
        assert set(passed.ravel()) == {0, 1, 2, 3}
        np.testing.assert_array_equal(pulled, 10**passed)


def test_the_gradient_is_taken_where_the_forward_pass_went():
    """Beside finite differences, with the draw held."""
    rng = np.random.default_rng(1)
    stages = [SpatialSmoothing(3, gradient="exact"), Cutout(2), GaussianBlur(3)]
    defence = BarrageOfTransforms(stages, (1, 3), rng=0)
    direction, grad = rng.normal(size=(2, *X.shape))
    with defence.frozen(2):
        change = defence.transform(X + 1e-7 * direction)
        change -= defence.transform(X - 1e-7 * direction)
        pulled = defence.estimate_gradient(X, grad)
    steps, slopes = (grad * change).sum((1, 2, 3)) / 2e-7, (pulled * direction).sum((1, 2, 3))
    np.testing.assert_allclose(steps, slopes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "defence",
    [JpegCompression((0, 255)), Cutout(2, rng=1), FeatureSqueezing((0, 255), 3), NOISE],
    ids=lambda d: type(d).__name__,
)
def test_a_certain_defence_is_itself(defence, kind):
    """To the bit and in its type, with the draw that the samples would have alone."""
    x = np.rint(255 * X).astype(kind)
    certain, never = RandomApply(defence, 1), RandomApply(defence, 0)
    index = np.arange(len(x))
    seed = certain._next_seed()
    draw = certain._begin(x, np.concatenate([seed, index.astype(np.uint32)]))
    expected = defence._transform(
        x.copy(),
        defence._begin(x, np.concatenate([draw.seeds[0], index]).astype(np.uint32))
        if defence.stochastic
        else None,
    ).astype(defence._output_dtype(x.dtype))
    out = certain._transform(x, draw).astype(certain._output_dtype(x.dtype))
    np.testing.assert_array_equal(out, expected)
    kept = never.transform(x)
    assert kept.dtype == certain.transform(x).dtype == defence.transform(x).dtype
    np.testing.assert_array_equal(kept, x)


def test_a_draw_belongs_to_a_sample():
    for defence in (
        RandomApply([NOISE, Cutout(2)], rng=1),
        BarrageOfTransforms([NOISE, Cutout(2)], 1, rng=1),
    ):
        whole = defence.transform(X, index=np.arange(len(X)))
        parts = [defence.transform(X[k : k + 7], index=np.arange(k, min(k + 7, 40))) for k in range(0, 40, 7)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        with defence.frozen(3):
            np.testing.assert_array_equal(defence.transform(X), defence.transform(X))
        assert defence.transform(X[:0]).shape == (0, 5, 4, 3)


def test_a_source_governs_the_defences_too():
    first, second = (RandomApply(GaussianAugmentation(0.1, False), rng=4).transform(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_within_a_chain_and_within_each_other():
    chain = Chain([RandomApply(NOISE), ThermometerEncoding((0, 1), 4), LabelSmoothing()])
    out, labels = chain(X, np.eye(4)[np.arange(40) % 4])
    assert out.shape == (40, 5, 4, 12)
    assert labels.max() < 1
    inner = BarrageOfTransforms([RandomApply(DIGITS[:2], 1), Digit(3)], rng=0)
    assert set(np.unique(inner.transform(np.zeros((50, 1))))) == {123, 312}


def test_an_evaluation_attacks_with_the_gradients_of_the_defences():
    defence = RandomApply([JpegCompression((0, 1)), SpatialSmoothing(3)], 0.5)
    strongest, *_, weakest = gradient_variants(defence)
    assert [d.gradient for d in strongest.defences] == ["soft", "exact"]
    assert [d.gradient for d in weakest.defences] == ["identity", "identity"]
    assert strongest.probability == 0.5

    weights = np.random.default_rng(2).normal(size=(60, 3)).astype(np.float32)
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 3, bias=False))
    model[1].weight.data = torch.tensor(weights.T)
    x = X[:6].astype(np.float32)
    y = (x.reshape(6, -1) @ weights).argmax(axis=1)
    options = {"clip_values": (0, 1), "eot": 2, "budget": 6, "columns": ("clean", "adaptive"), "seed": 0}
    report = evaluate(model, x, y, RandomApply(GaussianBlur(3), 0.5), **options)
    (stage,) = report.rows[1].defence.stages
    assert stage.name == "GaussianBlur"
    parts = [
        evaluate(model, x[k], y[k], RandomApply(GaussianBlur(3), 0.5), first=k.start, **options)
        for k in (slice(0, 2), slice(2, 6))
    ]
    outcomes = np.concatenate([part.rows[1].columns["adaptive"].outcomes for part in parts], axis=1)
    np.testing.assert_array_equal(outcomes, report.rows[1].columns["adaptive"].outcomes)


@pytest.mark.parametrize(
    ("defence", "message"),
    [
        (ThermometerEncoding((0, 1), 3), r"`defences\[0\]` must keep the shape .* Thermo.* into a Chain"),
        (ImageResize(5, 4), r"`defences\[0\]` must keep the shape"),
        (RandomResizePad(3, 5), r"`defences\[0\]` must keep the shape"),
        (GaussianAugmentation(0.1), r"`defences\[0\]` must leave labels and the other samples alone"),
        (Mixup(3), r"`defences\[0\]` must leave labels"),
        (LabelSmoothing(), r"`defences\[0\]` must leave labels"),
        (3, r"`defences\[0\]` must be a defence of preshield or ART, got 3"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("cls", [RandomApply, BarrageOfTransforms])
def test_what_cannot_be_applied_to_some_samples(cls, defence, message):
    with pytest.raises(ValueError, match=message):
        cls([defence])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomApply([]), "`defences` must hold at least one"),
        (lambda: RandomApply(3), "`defences` must be a list of defences, got int"),
        (lambda: RandomApply(NOISE, 1.5), "`probability` must be .* got 1.5"),
        (lambda: BarrageOfTransforms(DIGITS, 4), "`count` must be .* got 4"),
        (lambda: BarrageOfTransforms(DIGITS, (2, 1)), r"`count` must have its smaller number first"),
        (lambda: BarrageOfTransforms(DIGITS, (1, 2, 3)), "`count` must be one integer or a pair"),
        (lambda: BarrageOfTransforms([DIGITS[0], Cutout(2)]), "`defences` must have a domain in common"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()
