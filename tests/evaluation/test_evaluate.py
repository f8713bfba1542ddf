"""The public call: what the literature says of its figures, what it takes, and what it refuses."""

import random

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    MajorityVote,
    SpatialSmoothing,
    ThermometerEncoding,
    evaluate,
)

pytest.importorskip("art")

from art.attacks.evasion import DeepFool, FastGradientMethod, HopSkipJump
from art.estimators.classification import BlackBoxClassifier

from preshield._core.random import FROZEN
from tests.evaluation.analytic import Gain, Identity, in_art, linear, threshold
from tests.evaluation.conftest import channels_first

# Photographs


@pytest.fixture(scope="module")
def photographs(task, torch_model):
    """A classifier, samples that it takes, and their labels."""
    return torch_model, channels_first(task.x_test[::2]), task.y_test[::2]


@pytest.fixture(scope="module")
def deterministic(photographs):
    model, x, y = photographs
    median = SpatialSmoothing(3, channels_first=True)
    jpeg = JpegCompression((0, 1), 50, channels_first=True)
    defences = {
        "median": median,
        "jpeg": jpeg,
        "squeeze": FeatureSqueezing((0, 1), 3),
        "both": Chain([jpeg, median]),
    }
    columns = ("noise", "oblivious", "adaptive")
    return evaluate(model, x, y, defences, budget=40, columns=columns, verbose=False)


def test_oblivious_is_far_above_adaptive(deterministic):
    """The examples for the undefended model do not survive most defences; those made through them do."""
    report = deterministic
    plain = report["none"].columns
    assert plain["clean"].accuracy > 0.6
    assert plain["oblivious"].accuracy == plain["adaptive"].accuracy == 0
    for name in ("median", "jpeg", "both", "squeeze"):
        row = report[name].columns
        assert row["adaptive"].accuracy < 0.1
        assert row["oblivious"].accuracy > 0.5 * row["clean"].accuracy
        assert row["noise"].accuracy > 0.5 * row["clean"].accuracy


def test_worst_case_is_never_above_a_column(deterministic):
    for row in deterministic.rows:
        each = np.stack([(column.outcomes == 1).mean(axis=0) for column in row.columns.values()])
        assert row.worst_case == pytest.approx(each.min(axis=0).mean())
        assert all(row.worst_case <= column.accuracy for column in row.columns.values())


def test_norms_and_ratio_computed_again(deterministic, photographs):
    """From the outcomes and norms of the columns."""
    report = deterministic
    plain = report["none"]
    right = (plain.columns["clean"].outcomes == 1).all(axis=0)
    for row in report.rows:
        both = right & (row.columns["clean"].outcomes == 1).all(axis=0)
        smallest = np.full(len(right), np.inf)
        for name in ("oblivious", "adaptive"):
            column = row.columns[name]
            broken = (column.outcomes == 0).all(axis=0)
            smallest[broken] = np.minimum(smallest, column.norms)[broken]
        smallest[(row.columns["clean"].outcomes == 0).all(axis=0)] = 0
        norm, ratio = report.median_norm(row)
        assert norm == pytest.approx(np.median(smallest[both]))
        assert ratio == pytest.approx(norm / np.median(plain.norms[both]))
    assert report.median_norm("none")[1] == 1


def test_diagnostics_of_honest_rows(deterministic):
    assert not [d for d in deterministic.diagnostics if d.row == "none"]


def test_expectation_over_draws_helps_the_attacker(photographs):
    model, x, y = photographs
    noise = GaussianAugmentation(
        0.05, augmentation=False, clip_values=(0, 1), apply_fit=False, apply_predict=True
    )
    columns = ("oblivious", "adaptive")
    single, averaged = (
        evaluate(model, x[::2], y[::2], [noise], budget=12, eot=eot, columns=columns, verbose=False)
        for eot in (1, 4)
    )
    name = "GaussianAugmentation"
    assert averaged[name].columns["adaptive"].accuracy <= single[name].columns["adaptive"].accuracy
    assert averaged[name].columns["adaptive"].accuracy < averaged[name].columns["oblivious"].accuracy
    assert averaged[name].columns["clean"].outcomes.shape == (4, len(x[::2]))


# What goes in

SHAPE = (4, 4, 3)
SIZE = 48
Y = np.arange(10) % 2
OFFSETS = np.linspace(0.05, 0.35, 10)  # of the mean, from the boundary
SIGNS = np.where(Y, 1, -1)
X = np.float32((0.5 + SIGNS * OFFSETS)[:, None, None, None] * np.ones(SHAPE))
EXACT = OFFSETS * SIZE**0.5


def classifier(**options):
    return threshold(SHAPE, slope=10, **options)


def quick(model=None, x=X, y=Y, defences=(), **options):
    options = {"budget": 20, "eot": 2, "verbose": False, "columns": ("oblivious", "adaptive")} | options
    return evaluate(classifier() if model is None else model, x, y, defences, **options)


@pytest.mark.parametrize("form", ["one-hot", "probabilities", "column", "floats", "list"])
def test_labels(form):
    eye = np.eye(2)[Y]
    y = {
        "one-hot": eye,
        "probabilities": 0.8 * eye + 0.1,
        "column": Y[:, None],
        "floats": Y.astype(float),
        "list": Y.tolist(),
    }[form]
    np.testing.assert_array_equal(quick(y=y)["none"].norms, quick()["none"].norms)


@pytest.mark.parametrize("form", ["mapped", "float64", "torch", "list", "not contiguous", "read-only"])
def test_samples(form, tmp_path):
    if form == "mapped":
        np.save(tmp_path / "x.npy", X)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif form == "torch":
        x = pytest.importorskip("torch").from_numpy(X)
    elif form == "not contiguous":
        x = np.repeat(X, 2, axis=1)[:, ::2]
    elif form == "read-only":
        x = X.copy()
        x.flags.writeable = False
    else:
        x = X.astype(float) if form == "float64" else X.tolist()
    report = quick(x=x, defences=[SpatialSmoothing(3)])
    np.testing.assert_allclose(report["none"].norms, EXACT, rtol=0.01)
    np.testing.assert_array_equal(report["none"].norms, quick()["none"].norms)


def test_samples_of_bytes():
    x = np.round(X * 255).astype(np.uint8)
    before = x.copy()
    model = linear(classifier().jacobian(X)[0].reshape(2, -1).T / 255, [0, -5], SHAPE, (0, 255))
    report = quick(model, x=x, defences=[FeatureSqueezing((0, 255), 8)])
    assert report.threat.clip_values == (0, 255)
    for row in report.rows:
        np.testing.assert_allclose(row.norms, 255 * EXACT, rtol=0.03)
    np.testing.assert_array_equal(x, before)
    no_range = quick(lambda x: (x.mean(axis=(1, 2, 3)) > 127.5).astype(int), x=x, columns=[])
    assert no_range.threat.clip_values == (0, 255)
    assert no_range["none"].worst_case == 1


def test_samples_that_the_model_gets_wrong():
    y = Y.copy()
    y[:4] = 1 - y[:4]
    report = quick(y=y, defences=[Identity()])
    for row in report.rows:
        np.testing.assert_array_equal(row.columns["clean"].outcomes, [np.arange(10) >= 4])
        np.testing.assert_array_equal(row.norms[:4], 0)
        np.testing.assert_allclose(row.norms[4:], EXACT[4:], rtol=0.01)
    assert report.median_norm("Identity")[0] == pytest.approx(np.median(EXACT[4:]), rel=0.01)
    with pytest.warns(UserWarning, match="right on 0 of 10 samples without any attack"):
        nothing = quick(y=1 - Y, defences=[Identity()], columns=None)
    assert nothing["Identity"].worst_case == 0
    assert np.isnan(nothing.median_norm("Identity")).all()
    assert str(nothing)


@pytest.mark.parametrize("threat", ["linf", "l2", "l2-minimum"])
def test_eps_zero(threat):
    report = quick(defences=[Identity(), Gain(0.1)], threat=threat, eps=0, columns=None)
    for row in report.rows:
        reference = row.columns["clean"].accuracy
        for name in ("noise", "oblivious", "adaptive", "black-box"):
            if threat != "l2-minimum":
                assert row.columns[name].accuracy == pytest.approx(reference, abs=0.1)
            elif row.name != "Gain" and name == "black-box":
                assert row.columns[name].accuracy == 1
    if threat != "l2-minimum":
        assert report["none"].worst_case == 1


@pytest.mark.parametrize("kind", ["callable", "labels", "ART"])
def test_without_gradients(kind):
    def labels(x):
        return (x.mean(axis=(1, 2, 3)) > 0.5).astype(int)

    def scores(x):
        return classifier().scores(x)

    model = {"callable": scores, "labels": labels, "ART": BlackBoxClassifier(scores, SHAPE, 2)}[kind]
    report = quick(model, defences=[Identity()], columns=None, threat="linf", eps=0.45, budget=50)
    for row in report.rows:
        assert row.columns["adaptive"].attack.startswith("Square")
        assert any("there are no gradients" in remark for remark in row.remarks)
        if kind != "labels":
            assert row.columns["adaptive"].accuracy < 0.5
        np.testing.assert_array_equal(row.columns["adaptive"].outcomes, row.columns["black-box"].outcomes)
    assert "the adaptive column is the black-box attack, which is weaker" in str(report)
    assert report.diagnostics == ()


@pytest.mark.parametrize("threat", ["l2-minimum", "linf"])
def test_surrogate(threat):
    """It takes half of the values for all: examples for it reach half as far."""
    weights = np.zeros((SIZE, 2))
    weights[: SIZE // 2, 1] = 20 / SIZE
    surrogate = linear(weights, [0, -5], SHAPE)
    eps = None if threat == "l2-minimum" else 0.2
    report = quick(defences=[Identity()], surrogate=surrogate, threat=threat, eps=eps, columns=None)
    assert list(report["none"].columns)[3] == "transfer"
    for row in report.rows:
        transfer = row.columns["transfer"]
        if threat == "linf":
            clear = np.abs(OFFSETS - 0.1) > 0.04  # the other half stays at its random start
            np.testing.assert_array_equal(transfer.outcomes[:, clear], [OFFSETS[clear] > 0.1])
        else:
            np.testing.assert_allclose(transfer.norms, OFFSETS * (SIZE // 2) ** 0.5, rtol=0.01)
            assert transfer.accuracy == 1
    assert "transfer" not in quick(columns=None)["none"].columns


def test_a_surrogate_without_gradients():
    def surrogate(x):
        return classifier().scores(x)

    report = quick(surrogate=surrogate, columns=["transfer", "adaptive"], budget=50)
    columns = report["none"].columns
    assert columns["transfer"].attack.startswith("Square")
    assert columns["adaptive"].attack.startswith("minimum-norm")
    assert columns["transfer"].accuracy < 1


def test_a_defence_with_a_classifier_of_its_own():
    thermometer = ThermometerEncoding((0, 1), 4)
    own = threshold((4, 4, 12), level=0.4, slope=10)
    report = quick(defences={"code": (thermometer, own)})
    row = report["code"]
    assert row.defence.name == "ThermometerEncoding"
    expected = (thermometer.transform(X).mean(axis=(1, 2, 3)) > 0.4) == Y
    np.testing.assert_array_equal(row.columns["clean"].outcomes, [expected])
    assert row.remarks == (
        "it has a classifier of its own; the oblivious examples were made on the first classifier.",
    )
    assert report["none"].remarks == ()


def test_a_changed_shape_is_refused_before_any_attack_runs():
    model = classifier()
    with pytest.raises(ValueError, match=r"\(4, 4, 3\) into \(4, 4, 12\), and the classifier takes"):
        quick(model, defences=[SpatialSmoothing(3), ThermometerEncoding((0, 1), 4)])
    assert model.differentiated == 0


def test_thermometer_with_its_own_keras_model(task):
    keras = pytest.importorskip("keras")
    from preshield.neural.small_cnn import train

    x, y = task.x_test[::4], task.y_test[::4]
    model = keras.Sequential(
        [
            keras.Input((16, 16, 12)),
            keras.layers.AveragePooling2D(4),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    thermometer = ThermometerEncoding((0, 1), 4)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    train(model, thermometer.transform(task.x_train[::4]), task.y_train[::4], epochs=2)
    plain = linear(np.random.default_rng(0).standard_normal((768, 10)) / 30, np.zeros(10), (16, 16, 3))
    report = quick(plain, x=x, y=y, defences={"code": (thermometer, model)}, budget=5)
    seen = np.asarray(model(thermometer.transform(x))).argmax(axis=1)
    np.testing.assert_array_equal(report["code"].columns["clean"].outcomes, [seen == y])
    with pytest.raises(
        ValueError, match=r"\[.code.\]\[1\]` takes samples of shape \(16, 16, 12\), got \(16,"
    ):
        quick(plain, x=x, y=y, defences={"code": (SpatialSmoothing(3), model)})


@pytest.mark.parametrize("shape", [(64,), (3, 8, 8, 3)], ids=["waveforms", "clips"])
@pytest.mark.parametrize("kind", ["ART", "torch", "callable"])
def test_waveforms_and_clips(shape, kind):
    size = int(np.prod(shape))
    x = np.float32((SIGNS * OFFSETS)[(slice(None), *[None] * len(shape))] * np.ones(shape))
    weights = np.zeros((size, 2))
    weights[:, 1] = 10 / size
    model = linear(weights, [0, 0], shape, (-1.0, 1.0))
    if kind == "callable":
        model = model.scores
    elif kind == "torch":
        torch = pytest.importorskip("torch")
        layer = torch.nn.Linear(size, 2, bias=False)
        with torch.no_grad():
            layer.weight[:] = torch.from_numpy(weights.T)
        model = torch.nn.Sequential(torch.nn.Flatten(), layer)
    noise = GaussianAugmentation(0.01, augmentation=False, clip_values=(-1, 1), apply_predict=True)
    defences = [noise, Identity()]
    report = quick(model, x=x, defences=defences, columns=None, budget=20, eot=4)
    assert report.threat.clip_values == (-1, 1)
    assert report.settings["shape"] == shape
    if kind != "callable":
        for name in ("none", "Identity"):
            np.testing.assert_allclose(report[name].norms, OFFSETS * size**0.5, rtol=0.02)
        assert report["GaussianAugmentation"].columns["adaptive"].accuracy < 0.2
    bounded = quick(model, x=x, defences=defences, columns=None, threat="linf", eps=0.4, budget=20)
    for row in bounded.rows:
        assert row.worst_case < 1
        assert row.worst_case == 0 or kind == "callable"


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("threat", ["l2-minimum", "linf"])
def test_models_of_other_floating_types(kind, threat):
    """Behind defences, in a vote and as a surrogate, with the norms of the model in float32."""
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        """As the models of Hugging Face: the scores are one field of several."""

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(SIZE, 2)
            with torch.no_grad():
                self.layer.weight[:] = torch.tensor([[-10 / SIZE], [10 / SIZE]])
                self.layer.bias[:] = torch.tensor([5.0, -5.0])

        def forward(self, x):
            return {"loss": None, "logits": self.layer(x.flatten(1))}

    model = Network().to(getattr(torch, kind))
    noise = GaussianAugmentation(0.01, augmentation=False, clip_values=(0, 1), apply_predict=True)
    defences = {
        "jpeg": JpegCompression((0, 1), 90),
        "noise": noise,
        "squeeze": FeatureSqueezing((0, 1), 8),
        "vote": MajorityVote(model, [None, SpatialSmoothing(3)]),
    }
    eps = None if threat == "l2-minimum" else 0.45
    report = quick(model, defences=defences, surrogate=model, columns=None, threat=threat, eps=eps)
    for row in report.rows:
        assert row.columns["clean"].accuracy == 1
        if row.name == "noise":  # the smallest perturbations do not hold on all fresh draws
            assert row.columns["adaptive"].accuracy < 0.5
            continue
        assert row.columns["adaptive"].accuracy == 0
        if eps is None:
            tolerance = 0.02 if kind != "bfloat16" else 0.08  # steps of 2**-7 in samples near 1
            np.testing.assert_allclose(row.norms, EXACT, rtol=tolerance, atol=tolerance)
    checks = {d.check for d in report.diagnostics}
    assert not checks & {"zero or non-finite gradients", "softmax instead of logits"}
    assert next(model.parameters()).dtype == getattr(torch, kind)


@pytest.mark.parametrize("rows", [[1, 1], [0, 0], [0.5, 0.5]])
def test_labels_that_name_no_single_class(rows):
    y = np.eye(2)[Y]
    y[3] = rows
    with pytest.raises(ValueError, match=r"`y` of shape \(N, K\) .* 1 of 10 rows do not fit; row 3"):
        quick(y=y)


# Options


def test_columns():
    model = classifier()
    report = quick(model, defences=[Identity()], columns=["noise"])
    assert [list(row.columns) for row in report.rows] == [["clean", "noise"]] * 2
    assert model.differentiated == 0
    assert list(quick(columns=["adaptive", "black-box"])["none"].columns) == [
        "clean",
        "black-box",
        "adaptive",
    ]
    assert list(quick(columns=[])["none"].columns) == ["clean"]


def fast(model):
    return FastGradientMethod(model, eps=0.5)


@pytest.mark.parametrize(
    "attacks",
    [
        FastGradientMethod,
        [DeepFool, fast],
        {"one": lambda m: HopSkipJump(m, max_iter=2, max_eval=50, init_eval=5, verbose=False)},
    ],
    ids=["class", "list", "dict"],
)
def test_attacks(attacks):
    names = {"one": "one"} if isinstance(attacks, dict) else None
    words = "one" if names else "DeepFool, fast" if isinstance(attacks, list) else "FastGradientMethod"
    report = quick(attacks=attacks, defences=[Identity()], columns=None)
    assert report["none"].columns["adaptive"].attack == words
    assert report["Identity"].columns["adaptive"].attack == f"{words}, through the defence"
    assert (report["Identity"].norms >= EXACT * 0.999).all()
    assert report["Identity"].columns["adaptive"].accuracy < 0.5


def test_an_attack_that_exceeds_the_bound_is_brought_back():
    report = quick(attacks=fast, threat="linf", eps=0.2, defences=[Identity()])
    for row in report.rows:
        np.testing.assert_array_equal(row.columns["adaptive"].outcomes, [OFFSETS > 0.2])
        assert row.columns["adaptive"].norms.max() <= 0.2 + 1e-6


def test_without_gradients_but_with_an_attack_that_needs_none():
    def hop(model):
        return HopSkipJump(model, max_iter=2, max_eval=50, init_eval=5, verbose=False)

    report = quick(lambda x: classifier().scores(x), attacks=hop, defences=[Identity()])
    assert report["Identity"].columns["adaptive"].accuracy < 0.5
    assert report["Identity"].remarks == ()
    with pytest.raises(TypeError, match="PredictOnly has no gradients; choose `attacks` that need none"):
        quick(lambda x: classifier().scores(x), attacks=fast)


def test_default_bound_of_the_black_box_attack(tmp_path):
    """Twice as far from each sample as the oblivious attack went, or a twentieth of the diagonal."""
    usual = np.full(10, SIZE**0.5 / 20)
    columns = ["oblivious", "black-box"]
    for model, own, bounds in (
        (None, columns, 2 * EXACT),
        (None, ["black-box"], usual),
        (classifier().scores, columns, usual),
    ):
        report = quick(model, columns=own, eot=1, budget=50, keep_examples=tmp_path / f"{len(own)}.npz")
        assert report.threat.eps is None
        moved = report.examples["none"]["black-box"]
        lengths = np.linalg.norm((moved - X).reshape(10, -1), axis=1)
        found = np.isfinite(report["none"].columns["black-box"].norms)
        assert (lengths <= bounds * 1.01).all()
        assert (lengths[~found] > 0.9 * bounds[~found]).all()  # but for what the range clips
        assert found.any() == (bounds > EXACT * 1.01).any()
    near = quick(columns=columns, threat="l2-minimum", eps=0.5, budget=50)["none"].columns["black-box"]
    assert not np.isfinite(near.norms[EXACT > 0.5]).any()


@pytest.mark.parametrize("threat", ["l2-minimum", "linf-minimum", "l1-minimum", "linf", "l2"])
def test_two_classes_one_sample(threat):
    """Targeted attacks have one target; a batch has one sample."""
    eps = None if threat.endswith("minimum") else {"linf": 0.06, "l2": 0.06 * SIZE**0.5}[threat]
    report = quick(x=X[:1], y=Y[:1], defences=[Identity()], threat=threat, eps=eps, columns=None, budget=8)
    scale = {"l2": SIZE**0.5, "linf": 1, "l1": SIZE}[threat.removesuffix("-minimum")]
    for row in report.rows:
        assert row.worst_case == 0
        if eps is None:
            np.testing.assert_allclose(row.norms, OFFSETS[:1] * scale, rtol=0.02)
        for column in row.columns.values():
            assert column.outcomes.shape[1] == 1


@pytest.mark.parametrize("defences", [[], {}, ()])
def test_no_defences(defences):
    report = quick(defences=defences, columns=None, batch_size=1000)
    assert [row.name for row in report.rows] == ["none"]
    assert "shared" not in report["none"].columns
    assert str(report)


def test_passes_are_counted():
    """As many as the classifier has seen; little more than one forward for each gradient."""
    model = classifier()
    report = quick(model, defences=[Identity()], columns=["oblivious", "adaptive"], threat="linf", eps=0.2)
    spent = {row.name: row.columns["adaptive"] for row in report.rows}
    for column in spent.values():
        assert (column.backward <= 20).all()
        np.testing.assert_array_equal(column.backward[OFFSETS > 0.2], 20)
        assert (column.forward <= 1.1 * column.backward + 1).all()
        assert (column.forward >= column.backward).all()
    assert (report["Identity"].columns["oblivious"].backward == 0).all()  # was paid for in the first row
    words = f"none {spent['none'].forward.mean():.0f} and {spent['none'].backward.mean():.0f}"
    assert words in report.to_markdown()


@pytest.mark.parametrize("threat", ["linf", "l2-minimum"])
def test_scores_that_are_not_finite_are_refused_before_any_attack(threat):
    def broken(x):
        return classifier().scores(x) * np.nan

    with pytest.raises(ValueError, match="must return numbers, got NaN for 2 of 2 samples"):
        quick(broken, threat=threat, eps=0.1, columns=None)


@pytest.mark.parametrize("threat", ["linf", "l2", "l2-minimum", "linf-minimum"])
def test_a_class_that_is_ruled_out(threat):
    """Its score is minus infinity: the attacks go elsewhere, and no warning is given."""
    weights = np.zeros((SIZE, 4))
    weights[:, 1] = 10 / SIZE
    model = linear(weights, [0, -5, -np.inf, -np.inf], SHAPE)
    eps = None if threat.endswith("minimum") else {"linf": 0.36, "l2": 0.36 * SIZE**0.5}[threat]
    report = quick(model, threat=threat, eps=eps, defences=[Identity()], columns=None)
    for row in report.rows:
        assert row.columns["adaptive"].accuracy == 0
        if eps is None:
            np.testing.assert_allclose(row.norms, EXACT if threat == "l2-minimum" else OFFSETS, rtol=0.02)


def test_double_precision():
    """A model that computes in it is attacked in it: offsets that single precision does not know."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(SIZE, 2).double()
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[-1.0], [1.0]]) * 1e6
        layer.bias[:] = torch.tensor([1.0, -1.0]) * 1e6 * SIZE / 2
    model = torch.nn.Sequential(torch.nn.Flatten(), layer)
    x = 0.5 + (X.astype(np.float64) - 0.5) * 1e-8
    report = quick(model, x=x, threat="linf-minimum", defences=[Identity()])
    np.testing.assert_allclose(report["none"].norms, OFFSETS * 1e-8, rtol=0.01)


def test_a_large_seed():
    assert quick(seed=2**40)["none"].worst_case == 0


# What stays as it was


def test_global_state_is_left_alone():
    noise = GaussianAugmentation(0.1, augmentation=False, apply_predict=True)
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    quick(defences=[noise], threat="linf", eps=0.1, columns=None)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state


def test_torch_modules_keep_their_training_flags():
    torch = pytest.importorskip("torch")

    def network():
        layers = torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(SIZE, 2)
        model = torch.nn.Sequential(*layers).train()
        model[1].eval()
        return model

    models = first, own, surrogate = [network() for _ in range(3)]
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    quick(first, defences={"own": (Identity(), own)}, surrogate=surrogate, columns=None, budget=2)
    for model, state in zip(models, before, strict=True):
        assert [module.training for module in model.modules()] == [True, True, False, True]
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name])


def test_samples_and_defences_are_left_alone():
    x, before = X.copy(), X.copy()
    squeeze = FeatureSqueezing((0, 1), 4)
    quick(x=x, defences=[squeeze, Chain([squeeze])], columns=None)
    np.testing.assert_array_equal(x, before)
    assert squeeze.get_params() == FeatureSqueezing((0, 1), 4).get_params()
    assert FROZEN.seed(squeeze) is None


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"threat": "l1"}, ValueError, "`threat` must be one of 'l2-minimum', .* got 'l1'"),
        ({"threat": "linf"}, ValueError, "`eps` must be given with threat='linf': .* got None"),
        (
            {"eps": 0.1},
            ValueError,
            '`threat` must be given with `eps`, got eps=0.1 alone.*\n.*threat="linf", eps=0.1',
        ),
        ({"threat": "l2"}, ValueError, "`eps` must be given with threat='l2'"),
        ({"eps": -1}, ValueError, "`eps` must be at least 0, got -1"),
        ({"eps": np.inf}, ValueError, "`eps` must be finite, got inf"),
        ({"eps": "8/255"}, TypeError, "`eps` must be a number, got '8/255'"),
        ({"eot": 0}, ValueError, "`eot` must be at least 1, got 0"),
        ({"eot": 1.5}, TypeError, "`eot` must be an integer, got 1.5"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0, got -1"),
        ({"seed": 2**32, "attacks": DeepFool}, ValueError, "`seed` must be between 0 and 4294967295, got"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1, got 0"),
        ({"budget": 0}, ValueError, "`budget` must be at least 1, got 0"),
        ({"verbose": 1}, TypeError, "`verbose` must be True or False, got 1"),
        ({"columns": ["clear"]}, ValueError, "`columns` must be one of 'clean'"),
        ({"columns": ["transfer"]}, ValueError, "`surrogate` must be given"),
        (
            {"attacks": FastGradientMethod(in_art(threshold(SHAPE)))},
            TypeError,
            "pass the class or a function",
        ),
        ({"attacks": "autoattack"}, ValueError, 'pass threat="linf" or threat="l2" and eps, got'),
        ({"attacks": "apgd"}, TypeError, '`attacks` must be "autoattack" or make an attack'),
        ({"first": -1}, ValueError, "`first` must be at least 0, got -1"),
        ({"columns": ["shared"]}, ValueError, '`columns` must hold "adaptive" with "shared"'),
        ({"attacks": []}, ValueError, "`attacks` must name at least one attack"),
        ({"y": Y[:4]}, ValueError, "`y` must hold one label for each of the 10 samples of `x`, got 4"),
        ({"y": Y + 1}, ValueError, "`y` must hold classes below 2, the outputs of `classifier`, got 2"),
        ({"y": Y - 1}, ValueError, "`y` must hold class indices from 0 on"),
        ({"x": np.full((10, *SHAPE), np.nan)}, ValueError, "`x` must be finite, got 480 NaN"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "`x` must hold at least one sample"),
        ({"x": X + 1}, ValueError, r"`x` must lie within the clip values \(0\.0, 1\.0\), got values from"),
        ({"clip_values": (1, 0)}, ValueError, "`clip_values` must have minimum < maximum"),
        ({"defences": ["jpeg"]}, TypeError, r"`defences\['str'\]` must be a defence of preshield or ART"),
        ({"model": object()}, TypeError, "`classifier` must be a torch module, .* got builtins.object"),
        ({"surrogate": 5}, TypeError, "`surrogate` must be a torch module, .* got builtins.int"),
    ],
)
def test_refusals(options, error, match):
    model = classifier()
    with pytest.raises(error, match=match):
        quick(**{"model": model} | options)
    assert model.differentiated == 0
