import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    LabelSmoothing,
    MajorityVote,
    SpatialSmoothing,
    ThermometerEncoding,
    curve,
    evaluate,
)
from preshield._core.errors import ArgumentError

pytest.importorskip("art")

from art.attacks.evasion import DeepFool, FastGradientMethod

from preshield.evaluation.subjects import (
    as_factories,
    as_labels,
    as_samples,
    as_subjects,
    check_columns,
    head_of,
    named_classifier,
    nb_classes,
    range_of,
)
from tests.evaluation.analytic import in_art, linear, threshold

SHAPE = (8, 8, 3)
X = np.random.default_rng(0).random((4, *SHAPE), dtype=np.float32)
Y = np.array([0, 1, 1, 0])


# Columns


def test_columns():
    assert check_columns(None, None) == ("clean", "noise", "oblivious", "shared", "black-box", "adaptive")
    assert "transfer" in check_columns(None, object())
    assert check_columns(["adaptive", "noise"], None) == ("clean", "noise", "adaptive")
    assert check_columns([], None) == ("clean",)
    with pytest.raises(ValueError, match=r"`columns` must be one of 'clean', .*'adaptive', got 'adaptiv'"):
        check_columns(["adaptiv"], None)
    with pytest.raises(ValueError, match='`surrogate` must be given for the column "transfer"'):
        check_columns(["transfer"], None)
    with pytest.raises(ValueError, match='`columns` must hold "adaptive" with "shared"'):
        check_columns(["shared"], None)
    assert check_columns({"adaptive": 1}.keys(), None) == ("clean", "adaptive")
    for columns in ("adaptive", (name for name in ["adaptive"]), 3):
        with pytest.raises(TypeError, match=r'`columns` must be a list of names, such as .*"adaptive"'):
            check_columns(columns, None)


# Samples and labels


def test_samples():
    assert as_samples(X) is X
    assert as_samples(X.tolist()).shape == X.shape
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_samples(torch.from_numpy(X).requires_grad_()), X)


def test_mapped_samples_stay_on_disk(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert as_samples(mapped) is mapped


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (
            np.zeros(3),
            ValueError,
            r"`x` must hold at least one sample and .* batch axis, got shape \(3,\)",
        ),
        (np.zeros((0, 3)), ValueError, r"got shape \(0, 3\)"),
        (np.zeros((3, 0)), ValueError, r"got shape \(3, 0\)"),
        (
            np.array([[1.0, np.nan], [np.inf, 0]]),
            ValueError,
            "got 1 NaN and 1 infinite among 4",
        ),
        (
            np.array([np.zeros(2), np.zeros(3)], object),
            TypeError,
            "got an object array; bring the samples to",
        ),
        (np.array([["a"]]), TypeError, "`x` must hold real numbers, got dtype <U1"),
    ],
)
def test_refused_samples(x, error, match):
    with pytest.raises(error, match=match):
        as_samples(x)


@pytest.mark.parametrize(
    "y",
    [
        Y,
        Y.tolist(),
        Y.astype(float),
        Y.astype(bool),
        Y.astype(np.uint8),
        Y[:, None],
        np.eye(2)[Y],
        np.eye(2, dtype=int)[Y],
        np.eye(2)[Y] * 0.2 + 0.4,
    ],
)
def test_labels(y):
    labels = as_labels(y)
    np.testing.assert_array_equal(labels, Y)
    assert labels.dtype == np.int64


def test_labels_as_tensors():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_labels(torch.from_numpy(Y)), Y)
    np.testing.assert_array_equal(as_labels(torch.from_numpy(np.eye(2)[Y])), Y)


@pytest.mark.parametrize(
    "y",
    [
        np.array([0.5, 1.0]),
        np.array([-1, 0]),
        np.array(["cat", "dog"]),
        np.array(3),
        np.zeros((2, 2, 2)),
        np.array([np.nan, 1]),
        np.array([np.inf, 1]),
        np.zeros((2, 0)),
    ],
)
def test_refused_labels(y):
    with pytest.raises(ValueError, match=r"`y` must hold class indices from 0 on, shape \(N,\), or one-hot"):
        as_labels(y)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([[1, 0, 0], [1, 0, 1]], r"1 of 2 rows do not fit; row 1, \[1\. 0\. 1\.\], names 2 classes"),
        ([[0, 0, 0], [1, 0, 0]], r"row 0, \[0\. 0\. 0\.\], names no class"),
        ([[0.4, 0.4, 0.2]], "has no single largest entry"),
        ([[0.25] * 4], "has no single largest entry"),
        ([[3.2, -1.0, 0.1]], "sums to 2.3"),
        ([[0.9, 0.4, 0.1]], "sums to 1.4"),
        ([[2, 0, 0]], "sums to 2"),
        ([[1, -1, -1]], "sums to -1"),
        ([[1.5, -0.5]], "sums to 1"),
        (np.eye(3)[[0, 1]].T, "names no class"),  # classes first
    ],
)
@pytest.mark.parametrize("kind", [np.float64, np.float16, list])
def test_rows_that_name_no_class_or_several(rows, what, kind):
    """The largest entry would be taken without a word."""
    rows = np.asarray(rows)
    if kind is np.float16 and rows.dtype.kind == "f":
        rows, what = rows.astype(kind), "do not fit"
    with pytest.raises(ArgumentError, match=rf"`y` of shape \(N, K\) .* one true class.*{what}"):
        as_labels(rows.tolist() if kind is list else rows)
    if rows.dtype.kind == "i":
        with pytest.raises(ArgumentError, match="do not fit"):
            as_labels(rows.astype(bool) if rows.min() >= 0 and rows.max() < 2 else rows.astype(np.int8))


def test_probabilities_as_labels():
    """Of any floating type, with the sums that its rounding leaves."""
    torch = pytest.importorskip("torch")
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((20, 1000)))
    for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        rows = torch.softmax(logits, dim=1)
        rows[:, 7] += 0.5
        rows = (rows / rows.sum(dim=1, keepdim=True)).to(kind)
        np.testing.assert_array_equal(as_labels(rows), np.full(20, 7))


def test_one_hot_labels_of_python_numbers():
    np.testing.assert_array_equal(as_labels(np.array([[0, True], [1, 0.0]], dtype=object)), [1, 0])


def test_labels_of_a_vote_and_of_a_curve():
    rows = np.array([[1, 1], [0, 1], [1, 0], [0, 1]])
    for call in (
        lambda: MajorityVote(threshold(SHAPE)).report(X, rows),
        lambda: evaluate(threshold(SHAPE), X, rows, []),
        lambda: curve(threshold(SHAPE), X, rows, {}, "eot", [1], verbose=False),
    ):
        with pytest.raises(ArgumentError, match=r"row 0, \[1\. 1\.\], names 2 classes"):
            call()


# The range of values


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.2, 0.9, (0, 1)),
        (0, 1, (0, 1)),
        (-0.5, 0.5, (-1, 1)),
        (0, 1.01, (0, 255)),
        (-3, 2, (-3, 2)),
        (0, 300, (0, 300)),
    ],
)
def test_range_that_holds_the_samples(low, high, expected):
    assert range_of(None, None, np.array([[low, high]])) == expected


def test_given_range():
    assert range_of((-2, 3), None, X) == (-2, 3)
    assert range_of((np.zeros(3), np.array([1.0, 2.0, 3.0])), None, X) == (0, 3)
    art = threshold(SHAPE)
    assert range_of(None, art, X) == (0, 1)
    assert range_of((0, 2), art, X) == (0, 2)


@pytest.mark.parametrize("bound", [0.1, 0.3, 0.6, 1 / 3])
def test_samples_in_single_precision_may_lie_on_the_bound(bound):
    x = np.array([[-bound, bound]], dtype=np.float32)
    assert range_of((-bound, bound), None, x) == (-bound, bound)


@pytest.mark.parametrize(
    ("clip_values", "match"),
    [
        (
            (0, 0.5),
            r"`x` must lie within the clip values \(0\.0, 0\.5\), got values .* scale the samples",
        ),
        ((1, 0), "`clip_values` must have minimum < maximum"),
        (3, r"`clip_values` must be a pair \(minimum, maximum\), got 3"),
        ((0, np.nan), "`clip_values` must be finite"),
    ],
)
def test_refused_ranges(clip_values, match):
    with pytest.raises(ValueError, match=match):
        range_of(clip_values, None, X)


# Attacks


def named(classifier):
    return DeepFool(classifier)


def test_attacks_by_name():
    assert as_factories(None, "linf") is None
    assert as_factories(DeepFool, "linf") == {"DeepFool": DeepFool}
    assert as_factories([DeepFool, named], "linf") == {"DeepFool": DeepFool, "named": named}
    assert as_factories({"mine": named}, "linf") == {"mine": named}


def test_attacks_of_one_name_are_all_kept():
    first, second, third = (lambda classifier: 1), (lambda classifier: 2), (lambda classifier: 3)
    assert list(as_factories([first, second, third], "linf").values()) == [first, second, third]


@pytest.mark.parametrize("attacks", ["DeepFool", [3], {"mine": None}])
def test_refused_attacks(attacks):
    message = '`attacks` must be "autoattack" or make an attack for a classifier: pass the class'
    with pytest.raises(TypeError, match=message):
        as_factories(attacks, "linf")


def test_an_attack_that_has_its_classifier_is_refused():
    with pytest.raises(TypeError, match="pass the class or a function, such as lambda classifier"):
        as_factories([FastGradientMethod(in_art(threshold(SHAPE)))], "linf")


@pytest.mark.parametrize("none", [[], {}, ()])
def test_no_attacks(none):
    with pytest.raises(ValueError, match="`attacks` must name at least one attack, got none; leave it out"):
        as_factories(none, "linf")


# Rows


def subjects(defences, model=None, x=X, y=Y):
    return as_subjects(threshold(SHAPE) if model is None else model, defences, x, y)


def test_names_of_rows():
    def names(defences):
        return [subject.name for subject in subjects(defences)]

    median, jpeg = SpatialSmoothing(3), JpegCompression((0, 1))
    assert names([]) == ["none"]
    assert names({}) == ["none"]
    assert names(median) == ["none", "SpatialSmoothing"]
    assert names((median, jpeg)) == ["none", "SpatialSmoothing", "JpegCompression"]
    assert names({"a": median, 5: jpeg}) == ["none", "a", "5"]
    wide = SpatialSmoothing(5)
    assert names([median, jpeg, wide]) == [
        "none",
        repr(median),
        "JpegCompression",
        repr(wide),
    ]
    assert names([median, median]) == ["none", repr(median), f"{median!r} (2)"]
    assert names([Chain([median, jpeg])]) == ["none", "Chain"]


def test_one_classifier_is_shared():
    classifier = threshold(SHAPE)
    none, row = subjects([SpatialSmoothing(3)], classifier)
    assert none.defence is None
    assert none.classifier is row.classifier is classifier


def test_a_defence_with_its_own_classifier():
    thermometer = ThermometerEncoding((0, 1), 4)
    own = threshold((8, 8, 12))
    for defences in ({"ThermometerEncoding": (thermometer, own)}, [(thermometer, own)]):
        _, row = subjects(defences)
        assert row.name == "ThermometerEncoding"
        assert row.defence is thermometer
        assert row.classifier is own


def never(x):
    raise AssertionError("nothing may be predicted")


@pytest.mark.parametrize(
    ("defences", "error", "match"),
    [
        (
            [3],
            TypeError,
            r"`defences\['int'\]` must be a defence of preshield or ART, .*, got 3 of type builtins\.int",
        ),
        (None, TypeError, r"`defences\['NoneType'\]` must be a defence of preshield or ART"),
        ({"a": "jpeg"}, TypeError, r"`defences\['a'\]` must be a defence of preshield or ART, or a pair"),
        ({"none": SpatialSmoothing(3)}, ValueError, 'must not use the name "none": it is the undefended'),
        ([LabelSmoothing()], ValueError, r"`defences\['LabelSmoothing'\]` is about labels"),
        (
            {"two": (SpatialSmoothing(3), JpegCompression((0, 1)))},
            TypeError,
            r"`defences\['two'\]` must be .* got two defences; put them into a Chain",
        ),
        (
            {"jpeg": JpegCompression((0, 1), channels_first=True)},
            ValueError,
            r"`x` .* pass channels_first=False, or .*\.\nRaised by `defences\['jpeg'\]` .* shape \(8, 8, 3\)",
        ),
        (
            {"noise": GaussianAugmentation()},
            ValueError,
            r"`defences\['noise'\]` must keep the number of samples, .* 4 into 8; pass augmentation=False",
        ),
        (
            [Chain([SpatialSmoothing(3), GaussianAugmentation(ratio=0.3)])],  # which leaves two samples two
            ValueError,
            r"`defences\['Chain'\]` must keep the number of samples, .* turns 4 into 5",
        ),
        (
            {"t": ThermometerEncoding((0, 1), 4)},
            ValueError,
            r"samples of shape \(8, 8, 3\) into \(8, 8, 12\), .* \{'t': \(defence, classifier\)\}",
        ),
        (
            {"t": (ThermometerEncoding((0, 1), 4), threshold((8, 8, 9)))},
            ValueError,
            r"`defences\['t'\]\[1\]` takes samples of shape \(8, 8, 9\), got \(8, 8, 12\)",
        ),
        (
            {"t": (SpatialSmoothing(3), 5)},
            TypeError,
            r"`defences\['t'\]\[1\]` must be a torch module, .*an ART classifier",
        ),
    ],
)
def test_refused_defences(defences, error, match):
    with pytest.raises(error, match=match):
        subjects(defences)


class FailingError(ValueError):
    """An error that cannot be made again from its message."""

    def __init__(self, code, detail):
        super().__init__(code, detail)


@pytest.mark.parametrize(
    "error", [FailingError(1, "of the user"), KeyError("table"), RuntimeError("no memory")]
)
def test_errors_of_a_defence_are_its_own(error):
    class Failing(FeatureSqueezing):
        def _transform(self, x, draw):
            raise error

    match = r"Raised by `defences\['mine'\]` for samples of shape \(8, 8, 3\)"
    with pytest.raises(type(error), match=match) as caught:
        subjects({"mine": Failing((0, 1), 3)})
    assert caught.value is error


def test_an_unknown_size_fits_every_size():
    model = threshold(SHAPE)
    model.input_shape = (None, None, 3)
    assert len(subjects([SpatialSmoothing(3)], model)) == 2
    with pytest.raises(ValueError, match=r"\(8, 8, 12\), and the classifier takes \(None, None, 3\)"):
        subjects([ThermometerEncoding((0, 1), 4)], model)


def test_a_classifier_that_does_not_take_the_samples():
    with pytest.raises(
        ValueError,
        match=r"`classifier` takes samples of shape \(3, 8, 8\), got \(8, 8, 3\); pass np.moveaxis\(x, -1",
    ):
        subjects([], threshold((3, 8, 8)))
    with pytest.raises(ValueError, match=r"`surrogate` takes samples of shape \(3, 8, 8\), got \(8, 8, 3\)"):
        named_classifier(threshold((3, 8, 8)), head_of(X), Y, "surrogate")
    with pytest.raises(TypeError, match=r"`surrogate` must be a torch module, .*an ART classifier"):
        named_classifier(3, head_of(X), Y, "surrogate")


def test_labels_beyond_the_outputs():
    with pytest.raises(ValueError, match="`y` must hold classes below 2, the outputs of `classifier`, got 2"):
        subjects([], y=Y + 1)
    three = linear(np.zeros((192, 3)), np.zeros(3), SHAPE)
    with pytest.raises(ValueError, match=r"below 2, the outputs of `defences\['a'\]\[1\]`, got 2"):
        subjects({"a": (SpatialSmoothing(3), threshold(SHAPE))}, three, y=Y + 1)
    with pytest.raises(ValueError, match="classes below 2, the outputs of `surrogate`, got 2"):
        named_classifier(lambda x: np.zeros((len(x), 2)), head_of(X), Y + 1, "surrogate")


def test_number_of_classes():
    assert nb_classes(threshold(SHAPE)) == 2
    scores = named_classifier(lambda x: np.zeros((len(x), 4)), head_of(X), Y, "classifier")
    assert nb_classes(scores, head_of(X)) == 4
    assert nb_classes(scores) is None
    labels = named_classifier(lambda x: np.zeros(len(x)), head_of(X), Y, "classifier")
    assert nb_classes(labels, head_of(X)) is None


def test_two_samples_are_tried_and_nothing_drawn_from_the_defence():
    sizes = []

    def counted(x):
        sizes.append(len(x))
        return np.zeros((len(x), 2))

    squeeze = FeatureSqueezing((0, 1), 3)
    subjects([squeeze], counted)
    assert set(sizes) == {2}
    head = head_of(X)
    assert head.dtype == np.float32
    assert not np.shares_memory(head, X)
