"""The work of an evaluation: what is done, how often, in how much memory, and what an interrupt leaves."""

import json
import tracemalloc
from functools import partial

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    Preprocessor,
    SpatialSmoothing,
    evaluate,
    sweep,
)
from preshield.evaluation import batch as work_of_batch
from preshield.evaluation import run as work
from preshield.evaluation.report import RobustnessReport
from tests.evaluation.analytic import Gain, Identity, threshold

SHAPE = (4, 4, 3)
SIZE = 48
RNG = np.random.default_rng(0)
Y = np.arange(12) % 2
OFFSETS = np.linspace(0.05, 0.35, 12)  # of the mean, from the boundary
X = np.float32((0.5 + np.where(Y, 1, -1) * OFFSETS)[:, None, None, None]) + np.float32(
    RNG.uniform(-0.1, 0.1, (12, *SHAPE))
)
DISTANCE = np.abs(X.mean(axis=(1, 2, 3)) - 0.5)


def classifier():
    return threshold(SHAPE, slope=10)


def run(defences=(), **options):
    options = {"budget": 20, "eot": 3, "verbose": False} | options
    model = options.pop("classifier", None) or classifier()
    defences = defences if isinstance(defences, dict) else list(defences)
    return evaluate(model, options.pop("x", X), options.pop("y", Y), defences, **options)


def timeless(report):
    """The report as JSON without what the clock says."""

    def strip(value):
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if "seconds" not in key}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(json.loads(report.to_json()))


# Figures, computed again from the parts


def test_norms_and_ratio_by_hand():
    class Half(Identity):
        """Halve the distance of every sample from grey: it takes as much to cross."""

        def _transform(self, x, draw):
            return 0.5 + (x - 0.5) / 2

        def _gradient(self, x, grad, draw):
            return grad / 2

    class Shift(Identity):
        """Move everything up: class 0 is nearer to the boundary, class 1 further."""

        def _transform(self, x, draw):
            return x + np.float32(0.04)

    report = run([Half(), Shift()])
    exact = DISTANCE * SIZE**0.5
    np.testing.assert_allclose(report["none"].norms, exact, rtol=0.01)
    np.testing.assert_allclose(report["Half"].norms, exact, rtol=0.01)
    shifted = np.abs(X.mean(axis=(1, 2, 3)) + 0.04 - 0.5) * SIZE**0.5
    np.testing.assert_allclose(report["Shift"].columns["adaptive"].norms, shifted, rtol=0.01)
    norm, ratio = report.median_norm("Shift")
    assert norm == pytest.approx(np.median(report["Shift"].norms), rel=1e-9)
    assert ratio == pytest.approx(norm / np.median(report["none"].norms), rel=1e-9)
    assert report.median_norm("Half")[1] == pytest.approx(1, rel=0.01)


def test_columns_of_a_bounded_threat_by_hand():
    report = run([Identity()], threat="linf", eps=0.2)
    for row in report.rows:
        expected = (DISTANCE > 0.2).astype(int)
        np.testing.assert_array_equal(row.columns["clean"].outcomes, np.ones((1, 12)))
        np.testing.assert_array_equal(row.columns["adaptive"].outcomes, [expected])
        np.testing.assert_array_equal(row.columns["oblivious"].outcomes, [expected])
        assert row.columns["noise"].outcomes.shape == (3, 12)
        np.testing.assert_array_equal(row.columns["shared"].outcomes, [expected])
        assert row.worst_case == min(column.accuracy for column in row.columns.values())
        assert (row.columns["adaptive"].norms <= 0.2 + 1e-6).all()
    assert list(report["none"].columns) == ["clean", "noise", "oblivious", "shared", "black-box", "adaptive"]


def test_shape_of_the_outcomes_of_a_stochastic_defence():
    report = run([Gain(0.2)], eot=5)
    for name, column in report["Gain"].columns.items():
        assert column.outcomes.shape == (5, 12), name
        assert column.norms.shape == (12,)
    assert report["Gain"].columns["clean"].deviation > 0
    assert report["none"].columns["clean"].outcomes.shape == (1, 12)


def test_noise_is_as_large_as_the_adaptive_perturbation():
    report = run([Identity()])
    for row in report.rows:
        np.testing.assert_array_equal(row.columns["noise"].norms, row.columns["adaptive"].norms)


def test_every_draw_of_the_noise_meets_another_draw_of_the_defence():
    """Each sample under each draw, whatever the batch; the clean samples see others."""

    class Dropped(Preprocessor):
        """Take a number that is drawn for each sample from all of its values."""

        domains = ("image",)
        stochastic = True

        def __init__(self):
            self.used = []

        def _draw(self, x, rng):
            return rng.random((len(x), 1, 1, 1))

        def _transform(self, x, draw):
            self.used.append(np.asarray(draw).ravel().copy())
            return x - np.float32(0.001) * np.asarray(draw, np.float32)

    def used(batch_size):
        defence = Dropped()
        run([defence], columns=["noise"], eot=6, batch_size=batch_size)
        return defence.used

    parts = used(4)
    # once to try it; six clean predictions and six noisy ones, and some that are timed, of three batches
    for batch in range(3):
        begin = 1 + next(
            place for place in range(len(parts)) if sum(len(d) == 4 for d in parts[:place]) >= batch * 12
        )
        drawn = np.concatenate(parts[begin : begin + 12])
        assert len(np.unique(drawn)) >= 6 * 4
    whole = np.concatenate([d for d in used(12) if len(d) == 12])
    assert len(np.unique(whole)) >= 2 * 6 * 12
    split = np.unique(np.concatenate([d for d in parts if len(d) == 4]))
    assert np.isin(np.unique(whole), split).all()


def test_rejected_samples():
    def rejecting(x):
        mean = x.mean(axis=(1, 2, 3))
        return np.where(np.abs(mean - 0.5) < 0.08, -1, (mean > 0.5).astype(int))

    report = run([], classifier=rejecting, threat="linf", eps=0.45)
    clean = report["none"].columns["clean"]
    np.testing.assert_array_equal(clean.outcomes, [np.where(DISTANCE < 0.08, -1, 1)])
    assert clean.rejection_rate == (DISTANCE < 0.08).mean()
    assert clean.accepted_accuracy == 1
    assert "Coverage" in report.table()


# What is kept


def test_oblivious_attack_is_made_once():
    def asked(defences, **options):
        model = classifier()
        run(defences, classifier=model, **options)
        return model.differentiated

    columns = ["oblivious"]
    alone = asked([], columns=columns)
    many = [SpatialSmoothing(3), FeatureSqueezing((0, 1), 5), Identity()]
    assert alone > 0
    assert asked(many, columns=columns) == alone
    # nor is it made again as the adaptive one of the undefended row
    whole = ["oblivious", "adaptive"]
    assert asked([], columns=whole, threat="linf", eps=0.0) == 0
    ratio = asked([], columns=["adaptive"]) / asked([], columns=whole)
    assert ratio == 1


def test_memory_does_not_grow_with_the_data(tmp_path):
    """Samples on disk: only a few numbers for each may stay."""
    shape, batch = (64, 64, 3), 8

    def labels(x):
        return (x[:, 0, 0, 0] > 0.5).astype(int)

    def peak(count):
        path = tmp_path / f"{count}.npy"
        mapped = np.lib.format.open_memmap(path, "w+", np.float32, (count, *shape))
        mapped[:] = 0.75
        mapped.flush()
        mapped = np.load(path, mmap_mode="r")
        tracemalloc.start()
        report = evaluate(
            labels,
            mapped,
            np.ones(count, int),
            [Identity()],
            columns=["noise", "oblivious", "adaptive"],
            threat="linf",
            eps=0.1,
            eot=2,
            budget=1,
            batch_size=batch,
            verbose=False,
        )
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report["Identity"].columns["clean"].outcomes.shape == (1, count)
        return found

    peak(batch)  # imports, caches
    few, many = peak(4 * batch), peak(12 * batch)  # of which as many are examined
    sample = 4 * np.prod(shape)
    assert many - few < 8 * batch * sample / 20


def test_batches_do_not_change_what_is_deterministic():
    whole, parts = (run([SpatialSmoothing(3)], batch_size=size) for size in (12, 5))
    for row in whole.rows:
        for name in ("clean", "oblivious", "adaptive"):
            ours, theirs = row.columns[name], parts[row.name].columns[name]
            np.testing.assert_array_equal(ours.outcomes, theirs.outcomes)
            np.testing.assert_allclose(ours.norms, theirs.norms, rtol=1e-5)
    assert parts.settings["batch size"] == 5


def test_the_same_seed_gives_the_same_report():
    def once(**options):
        noise = GaussianAugmentation(0.2, augmentation=False, clip_values=(0, 1), apply_predict=True)
        return run([noise, Chain([noise, SpatialSmoothing(3)])], budget=5, eot=2, **options)

    for threat in ({}, {"threat": "linf", "eps": 0.2}):
        first = timeless(once(**threat))
        np.random.seed(5)
        assert first == timeless(once(**threat))
        assert first != timeless(once(seed=1, **threat))


def test_a_report_can_be_written_and_read():
    report = run([Identity()])
    assert timeless(RobustnessReport.from_json(report.to_json())) == timeless(report)


def test_pictures_are_of_samples_that_are_right():
    y = Y.copy()
    y[:3] = 1 - y[:3]
    shown = [3, 4, 5, 6, 7, 8]  # the first that are right, in their order; both classes are among them
    report = run([Identity()], y=y)
    np.testing.assert_allclose(report.pictures["clean"], X[shown], atol=1e-3)
    np.testing.assert_array_equal(report.pictures["labels"], Y[shown])
    np.testing.assert_array_equal(report.pictures["numbers"], shown)
    with pytest.warns(UserWarning, match="right on 0 of 12 samples"):
        nobody = run([Identity()], y=1 - Y)
    np.testing.assert_allclose(nobody.pictures["clean"], X[:6], atol=1e-3)
    assert report["Identity"].pictures["attacked"].shape == (6, *SHAPE)


@pytest.mark.parametrize("columns", [["oblivious"], ["adaptive"], None])
def test_a_report_shows_the_attack_on_the_undefended_model(columns):
    report = run([Identity()], columns=columns)
    labels = report.pictures["labels"]
    assert (classifier().predict(report.pictures["clean"]).argmax(axis=1) == labels).all()
    assert (classifier().predict(report.pictures["attacked"]).argmax(axis=1) != labels).all()
    assert "attacked" not in run([Identity()], columns=["black-box"], budget=1).pictures


@pytest.mark.parametrize("columns", [["oblivious", "adaptive"], ["black-box"]])
def test_pictures_have_predictions(columns):
    """Of two logits, as the logistic function of their difference; pictures are in half precision."""
    median = SpatialSmoothing(3)
    report = run([median], columns=columns, budget=3)
    pictures = report["SpatialSmoothing"].pictures
    np.testing.assert_allclose(
        pictures["received"], median.transform(pictures["attacked"]), rtol=1e-3, atol=1e-4
    )
    attacked = report.pictures.get("attacked", report.pictures["clean"])
    np.testing.assert_allclose(pictures["defended"], median.transform(attacked), rtol=1e-3, atol=1e-4)
    seen = [
        (report.pictures["clean"], report.pictures["predicted"], report.pictures["confidence"]),
        (median.transform(attacked), pictures["predicted"][:, 0], pictures["confidence"][:, 0]),
        (
            median.transform(pictures["attacked"]),
            pictures["predicted"][:, 1],
            pictures["confidence"][:, 1],
        ),
    ]
    for x, predicted, confidence in seen:
        logits = np.asarray(classifier().predict(x), np.float64)
        difference = logits[:, 1] - logits[:, 0]
        np.testing.assert_array_equal(predicted, difference > 0)
        np.testing.assert_allclose(confidence, 1 / (1 + np.exp(-np.abs(difference))), rtol=1e-5)


def test_a_classifier_of_labels_has_no_confidence():
    report = run(
        classifier=lambda x: (x.mean(axis=(1, 2, 3)) > 0.5).astype(int), columns=["black-box"], budget=1
    )
    np.testing.assert_array_equal(report.pictures["predicted"], report.pictures["labels"])
    assert np.isnan(report.pictures["confidence"]).all()
    assert timeless(RobustnessReport.from_json(report.to_json())) == timeless(report)


def test_class_names():
    assert run(class_names=["dark", "light"], columns=[]).class_names == ("dark", "light")
    assert run(columns=[]).class_names == ()
    with pytest.raises(
        ValueError, match=r"`class_names` must hold a name for each of the 2 classes.*, got 1"
    ):
        run(class_names=["dark"])
    with pytest.raises(ValueError, match=r"`class_names` must be a sequence of strings, got 'ab'"):
        run(class_names="ab")


def test_pictures_are_as_exact_as_the_samples():
    report = run([Identity()], threat="linf", eps=1 / 255)
    norms = np.abs(report["Identity"].pictures["attacked"] - report.pictures["clean"]).max(axis=(1, 2, 3))
    np.testing.assert_allclose(norms, 1 / 255, rtol=1e-4)


def test_curve_of_eps_and_of_a_sweep():
    defences = sweep(FeatureSqueezing, "bit_depth", [2, 5], clip_values=(0, 1))
    report = evaluate(classifier(), X, Y, defences, budget=20, verbose=False)
    eps, swept = report.curves
    assert eps.parameter == "eps"
    for name, accuracy in eps.accuracy.items():
        assert accuracy == tuple(report[name].accuracy_at(value) for value in eps.values)
        assert list(accuracy) == sorted(accuracy, reverse=True)
    assert (swept.parameter, swept.values) == ("bit_depth", (2, 5))
    for name in ("clean", "noise", "oblivious", "shared", "black-box", "adaptive"):
        by_hand = tuple(report[row].columns[name].accuracy for row in ("bit_depth=2", "bit_depth=5"))
        assert swept.accuracy[name] == by_hand
    assert swept.accuracy["worst case"] == tuple(row.worst_case for row in report.rows[1:])
    assert run([Identity()], threat="linf", eps=0.1).curves == ()


# Progress and interrupts


def test_progress_rises_to_the_end(capsys, monkeypatch):
    every = partial(work.progress_bar, mininterval=0, miniters=0)  # show every step
    monkeypatch.setattr(work, "progress_bar", every)
    run([Identity(), SpatialSmoothing(3)], verbose=True, batch_size=5, surrogate=classifier())
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "\rabout 1 s   0%|" in shown
    percents = [
        int(part.split("%")[0].split()[-1].rsplit("]")[-1]) for part in shown.split("\r") if "%" in part
    ]
    assert percents == sorted(percents)
    assert len(set(percents)) > 20  # within batches too
    run([Identity()])
    assert capsys.readouterr().err == ""


def test_the_estimate_by_hand(capsys, monkeypatch):
    """Gradients and queries that the budget allows, each of a second, and what is examined again."""
    monkeypatch.setattr(work_of_batch, "_seconds", lambda call: 1.0)
    monkeypatch.setattr(work, "progress_bar", partial(work.progress_bar, mininterval=0))
    # 12 samples in batches of 4: white-box and black-box attack on both rows, and on the first 4 the
    # diagnostics, which take twice the gradients
    run([Identity()], threat="linf", eps=0.1, budget=20, batch_size=4, verbose=True)
    seconds = 3 * 2 * (20 + 4 * 20) + 2 * 2 * 20
    assert f"about {seconds / 60:.2g} min" in capsys.readouterr().err
    run([Identity()], columns=["oblivious"], budget=20, batch_size=4, verbose=True)
    assert "about 60 s" in capsys.readouterr().err  # gradients of the first row alone


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (80, "80 s"), (100, "1.7 min"), (6000, "1.7 h"), (5e5, "5.8 days"), (5e6, "58 days")],
)
def test_times_in_words(seconds, words):
    assert work._in_words(seconds) == words


class Interrupted(Identity):
    """Interrupt the work at the pass after a number of them."""

    def __init__(self, passes=0, error=KeyboardInterrupt):
        self.passes = passes
        self.error = error
        self.count = [0]

    def _transform(self, x, draw):
        self.count[0] += 1
        if self.count[0] > self.passes:
            raise self.error
        return x


@pytest.mark.parametrize("passes", [1, 2, 10, 50])
def test_an_interrupt_leaves_the_rows_that_are_finished(passes):
    report = run([Identity(), Interrupted(passes), SpatialSmoothing(3)])
    assert [row.name for row in report.rows] == ["none", "Identity"]
    assert not report.complete
    assert "Interrupted: the table holds the rows that were finished." in str(report)
    whole = run([Identity()])
    assert whole.complete
    np.testing.assert_array_equal(report["Identity"].norms, whole["Identity"].norms)
    assert [curve.parameter for curve in report.curves] == ["eps"]


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_an_interrupt_of_a_later_batch_leaves_the_batches_that_are_finished(share):
    def counted(most):
        defence = Interrupted(most)
        return run([Identity(), defence], batch_size=4, **options), defence.count[0]

    options = {"threat": "linf", "eps": 0.2, "budget": 4, "columns": ["adaptive"]}
    whole, passes = counted(10**9)
    report, _ = counted(int(share * passes))
    assert not report.complete
    finished = len(report.labels)
    assert finished in (4, 8)
    assert [row.name for row in report.rows] == ["none", "Identity", "Interrupted"]
    for row in report.rows:
        np.testing.assert_array_equal(
            row.columns["adaptive"].outcomes, whole[row.name].columns["adaptive"].outcomes[:, :finished]
        )


@pytest.mark.parametrize(("batch_size", "passes"), [(4, 4), (128, 6)])
def test_an_error_leaves_what_an_interrupt_leaves(batch_size, passes):
    options = {"threat": "linf", "eps": 0.2, "budget": 4, "columns": ["adaptive"], "batch_size": batch_size}
    interrupted = run([Identity(), Interrupted(passes)], **options)
    with pytest.raises(ZeroDivisionError, match=r"^mine") as caught:
        run([Identity(), Interrupted(passes, ZeroDivisionError("mine"))], **options)
    report = caught.value.report
    assert report == interrupted
    assert not report.complete
    (note,) = [note for note in caught.value.__notes__ if "`report`" in note]
    assert f"holds what was finished: {len(report.labels)} of 12 samples, 2 of 3 rows." in note


def test_a_row_that_cannot_be_finished_is_left_out():
    """Its columns are made, and the defence fails for good before its time is taken."""
    options = {"threat": "linf", "eps": 0.2, "budget": 4, "columns": ["adaptive"]}
    with pytest.raises(ZeroDivisionError, match=r"^mine") as caught:
        run([Identity(), Interrupted(12, ZeroDivisionError("mine"))], **options)
    assert [row.name for row in caught.value.report.rows] == ["none", "Identity"]


def test_an_error_with_nothing_finished_has_no_report():
    model = classifier()
    model.scores = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError, match=r"^division by zero$") as caught:
        run([], classifier=model)
    assert not hasattr(caught.value, "report")


def test_rows_of_an_unfinished_batch_are_no_checkpoint(tmp_path):
    """The report has them, and the same call does the batch again."""
    options = {"threat": "linf", "eps": 0.2, "budget": 4, "columns": ["adaptive"], "batch_size": 6}
    defence = Interrupted(4)
    report = run([Identity(), defence], checkpoint=tmp_path, **options)
    assert [row.name for row in report.rows] == ["none", "Identity"]
    assert not report.complete
    assert not list(tmp_path.glob("batch-*"))
    defence.count[0] = -(10**9)  # nobody interrupts it again
    again = run([Identity(), defence], checkpoint=tmp_path, **options)
    assert again.complete
    assert [row.name for row in again.rows] == ["none", "Identity", "Interrupted"]


def test_an_interrupt_with_nothing_finished_is_passed_on():
    def stop(x):
        raise KeyboardInterrupt

    model = classifier()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run([Interrupted()], classifier=model)  # while it is tried
    model.scores = stop
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run([], classifier=model)


def test_an_interrupted_sweep_has_no_curve_of_its_own():
    def defence(passes):
        return Interrupted(passes)

    swept = sweep(Interrupted, "passes", [10**9, 10])
    report = evaluate(classifier(), X, Y, swept, budget=20, verbose=False)
    assert [row.name for row in report.rows] == ["none", f"passes={10**9}"]
    assert [curve.parameter for curve in report.curves] == ["eps"]


def test_other_errors_are_passed_on():
    class Broken(Identity):
        def _gradient(self, x, grad, draw):
            raise ZeroDivisionError("in the backward pass")

    with pytest.raises(ZeroDivisionError, match="in the backward pass"):
        run([Broken()])
