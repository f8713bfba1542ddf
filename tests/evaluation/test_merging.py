"""Shards of an evaluation become one report: the same bits as one run, for any split and batch size."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from preshield import (
    FeatureSqueezing,
    GaussianAugmentation,
    PixelDeflection,
    RobustnessReport,
    SpatialSmoothing,
    evaluate,
    sweep,
)
from preshield._core.errors import ArgumentError
from preshield.evaluation.batch import pictured
from tests.evaluation.rowwise import RowWise, data

X, Y = data(30)
BOUND = {"threat": "linf", "eps": 0.1}
THREATS = [BOUND, {"threat": "l2", "eps": 0.4}, {"threat": "l2-minimum"}, {"threat": "linf-minimum"}]


def defences():
    noise = GaussianAugmentation(
        0.1, augmentation=False, clip_values=(0, 1), apply_fit=False, apply_predict=True, rng=3
    )
    return {
        "squeezed": FeatureSqueezing((0, 1), 2),
        "noise": noise,
        "deflected": PixelDeflection((0, 1), 3, 2, denoiser=None, rng=3),
    }


def run(some=slice(None), shown=defences, **options):
    start = some.start or 0
    options = {"budget": 12, "eot": 2, "verbose": False, "first": start, **options}
    return evaluate(options.pop("model", RowWise()), X[some], Y[some], shown(), **options)


def split(*ends, **options):
    places = [0, *ends, len(X)]
    return [run(slice(a, b), **options) for a, b in pairwise(places)]


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat["threat"])
def test_shards_of_any_size_are_one_run(threat):
    whole = run(**threat)
    assert RobustnessReport.merge(split(9, 10, 27, **threat)[::-1]) == whole
    assert run(batch_size=7, **threat) == whole


def test_the_figures_of_shards_are_put_in_order():
    whole, shards = run(**BOUND), split(11, **BOUND)
    merged = RobustnessReport.merge(shards)
    for row in whole.rows:
        parts = [shard[row.name] for shard in shards]
        for name, column in row.columns.items():
            outcomes = np.concatenate([part.columns[name].outcomes for part in parts], axis=1)
            np.testing.assert_array_equal(merged[row.name].columns[name].outcomes, outcomes)
            np.testing.assert_array_equal(column.outcomes, outcomes)
    np.testing.assert_array_equal(merged.labels, Y)
    assert merged.settings["samples"] == len(X)
    seconds = merged["squeezed"].columns["adaptive"].seconds
    assert seconds == sum(shard["squeezed"].columns["adaptive"].seconds for shard in shards)


def test_another_seed_and_another_place_in_the_data_set_are_other_draws():
    def outcomes(**options):
        report = run(slice(0, 10), shown=lambda: {"noise": defences()["noise"]}, eot=8, **BOUND, **options)
        return report["noise"].columns["noise"].outcomes

    first = outcomes()
    np.testing.assert_array_equal(outcomes(), first)
    assert (outcomes(seed=1) != first).any()
    assert (outcomes(first=10) != first).any()


def test_a_report_equals_itself_read_back_and_no_other():
    report = run(slice(0, 8), **BOUND)
    assert RobustnessReport.from_json(report.to_json()) == report
    assert replace(report, versions={"python": "0"}, kept=("elsewhere",)) == report
    assert run(slice(0, 8), seed=1, **BOUND) != report
    assert report != "a report"


def test_a_sweep_keeps_its_curve():
    def shown():
        return sweep(FeatureSqueezing, "bit_depth", [1, 3], clip_values=(0, 1))

    whole = run(shown=shown, **BOUND)
    merged = RobustnessReport.merge(split(13, shown=shown, **BOUND))
    assert [curve.parameter for curve in merged.curves] == ["bit_depth"]
    assert merged == whole


def test_one_report_is_itself():
    report = run(slice(0, 8), **BOUND)
    assert RobustnessReport.merge([report]) == report


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda: [run(slice(0, 6), **BOUND), run(slice(5, 9), **BOUND)], r"0 and 5 overlap.*first=6"),
        (lambda: [run(slice(0, 6), **BOUND), run(slice(8, 9), **BOUND)], r"0 and 8 leave a gap.*first=6"),
        (lambda: [run(slice(0, 6), **BOUND)] * 2, r"overlap"),
        (list, r"at least one, got none"),
        (lambda: ["report.json"], r"RobustnessReports, at least one, got str"),
        (
            lambda: [run(slice(0, 6), **BOUND), run(slice(6, 9), budget=13, **BOUND)],
            r"differ in 'black-box attack'",
        ),
        (
            lambda: [run(slice(0, 6), **BOUND), run(slice(6, 9), seed=1, **BOUND)],
            r"differ in 'seed': 0 and 1",
        ),
        (
            lambda: [run(slice(0, 6), **BOUND), run(slice(6, 9), threat="linf", eps=0.2)],
            r"differ in 'threat'",
        ),
        (
            lambda: [
                run(slice(0, 6), lambda: [FeatureSqueezing((0, 1), 2)], **BOUND),
                run(slice(6, 9), lambda: [FeatureSqueezing((0, 1), 3)], **BOUND),
            ],
            r"differ in 'defences'",
        ),
        (
            lambda: [
                run(slice(0, 6), lambda: {"a": SpatialSmoothing(3)}, **BOUND),
                run(slice(6, 9), lambda: {"b": SpatialSmoothing(3)}, **BOUND),
            ],
            r"differ in 'rows'",
        ),
        (
            lambda: [run(slice(0, 6), **BOUND), run(slice(6, 9), columns=["adaptive"], **BOUND)],
            r"differ in 'columns'",
        ),
        (
            lambda: [replace(run(slice(0, 6), **BOUND), complete=False), run(slice(6, 9), **BOUND)],
            r"must be complete, got one that was interrupted, from sample 0",
        ),
    ],
)
def test_what_cannot_be_merged(parts, message):
    with pytest.raises(ArgumentError, match=message):
        RobustnessReport.merge(parts())


def test_where_the_samples_begin():
    with pytest.raises(ArgumentError, match="`first`"):
        run(slice(0, 4), first=-1)
    with pytest.raises(ArgumentError, match=r"`first` must be at most 2\*\*32 minus the 4 samples"):
        run(slice(0, 4), first=2**32 - 3)
    assert run(slice(0, 4), first=2**32 - 4, **BOUND).first == 2**32 - 4


def test_the_pictures_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count, room = int(rng.integers(1, 30)), int(rng.integers(1, 7))
        labels, right = rng.integers(0, int(rng.integers(1, 9)), count), rng.random(count) < rng.random()
        ends = np.sort(rng.integers(0, count + 1, 2))
        parts = [part for part in np.split(np.arange(count), ends) if len(part)]
        chosen = np.concatenate([part[pictured(right[part], labels[part], room)] for part in parts])
        again = chosen[pictured(right[chosen], labels[chosen], room)]
        np.testing.assert_array_equal(again, pictured(right, labels, room))


def test_a_network_of_torch_gives_the_same_bits_in_every_batch():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 4, 32), nn.ReLU())
        model.append(nn.Linear(32, 4)).eval()
    x = np.ascontiguousarray(np.moveaxis(X, -1, 1))
    y = model(torch.from_numpy(x)).argmax(dim=1).numpy()

    def part(some=slice(None), **options):
        options = {"threat": "l2-minimum", "budget": 8, "eot": 2, "verbose": False, **options}
        shown = {"noise": defences()["noise"], "squeezed": FeatureSqueezing((0, 1), 3)}
        return evaluate(model, x[some], y[some], shown, first=some.start or 0, **options)

    whole = part()
    assert RobustnessReport.merge([part(slice(0, 7)), part(slice(7, 30))]) == whole
    assert part(batch_size=3) == whole
