"""An evaluation that stops goes on from what is finished, and refuses what is not its own."""

import json

import numpy as np
import pytest

from preshield import FeatureSqueezing, GaussianAugmentation, evaluate
from preshield._core.errors import ArgumentError
from tests.evaluation.rowwise import RowWise, data

X, Y = data(24)


class Crashing(RowWise):
    """Count the samples that are predicted, and stop the run after so many of them."""

    def __init__(self, most=np.inf, error=RuntimeError, **options):
        super().__init__(**options)
        self.most, self.error, self.seen = most, error, 0

    def predict(self, x):
        self.seen += len(x)
        if self.seen > self.most:
            raise self.error("killed")
        return super().predict(x)


def run(model=None, x=X, y=Y, **options):
    noise = GaussianAugmentation(
        0.1, augmentation=False, clip_values=(0, 1), apply_fit=False, apply_predict=True
    )
    shown = options.pop("shown", {"squeezed": FeatureSqueezing((0, 1), 2), "noise": noise})
    options = {
        "threat": "linf",
        "eps": 0.1,
        "budget": 6,
        "eot": 2,
        "batch_size": 6,
        "verbose": False,
        **options,
    }
    return evaluate(model or Crashing(), x, y, shown, **options)


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.fixture(scope="module")
def passes():
    model = Crashing()
    run(model)
    return model.seen


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_goes_on_after_a_crash(tmp_path, whole, passes, error):
    model = Crashing(passes * 0.6, error)
    if error is KeyboardInterrupt:
        assert not run(model, checkpoint=tmp_path).complete
    else:
        with pytest.raises(RuntimeError, match="killed"):
            run(model, checkpoint=tmp_path)
    finished = len(list(tmp_path.glob("batch-*.npz")))
    assert 1 <= finished < 4
    rest = Crashing()
    assert run(rest, checkpoint=tmp_path) == whole
    assert rest.seen < passes * (1.1 - finished / 4)
    assert not list(tmp_path.glob("*.preshield"))


def test_a_finished_run_is_read_back_without_an_attack(tmp_path, whole):
    assert run(checkpoint=tmp_path / "new") == whole
    model = Crashing()
    assert run(model, checkpoint=str(tmp_path / "new")) == whole
    assert model.seen < 20 + len(X)  # with which the classifier is tried, and of which it is right on some


def test_examples_of_finished_batches_are_kept_too(tmp_path, passes):
    with pytest.raises(RuntimeError, match="killed"):
        run(Crashing(passes * 0.6), checkpoint=tmp_path / "c", keep_examples=tmp_path / "e")
    resumed = run(checkpoint=tmp_path / "c", keep_examples=tmp_path / "e")
    expected = run(keep_examples=tmp_path / "f")
    for row, columns in expected.examples.items():
        for column, x in columns.items():
            np.testing.assert_array_equal(resumed.examples[row][column], x)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"eps": 0.2}, "black-box attack"),
        ({"eot": 3}, "draws"),
        ({"batch_size": 5}, "batch size"),
        ({"first": 6}, "first"),
        ({"columns": ["adaptive"]}, "columns"),
        ({"shown": {"squeezed": FeatureSqueezing((0, 1), 3)}}, "rows"),
        ({"x": X[::-1]}, "samples and labels"),
        ({"y": np.roll(Y, 1)}, "samples and labels"),
        ({"model": RowWise()}, "classifier"),
        ({"model": Crashing(slope=2)}, "scores of two samples"),
    ],
)
def test_a_folder_of_other_settings(tmp_path, changes, name):
    run(checkpoint=tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ArgumentError, match=f"`checkpoint` belongs to an evaluation with another '{name}"):
        run(checkpoint=tmp_path, **changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense"])
def test_a_damaged_batch_is_named(tmp_path, content):
    run(checkpoint=tmp_path)
    path = tmp_path / "batch-000000006.npz"
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"damaged file, .*batch-000000006.npz.*delete it"):
        run(checkpoint=tmp_path)
    path.unlink()
    run(checkpoint=tmp_path)


@pytest.mark.parametrize("content", ["{", "[1, 2]", "[" * 100_000], ids=["cut", "list", "levels"])
def test_damaged_settings(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ArgumentError, match=r"damaged file, .*settings.json.*use a new folder"):
        run(checkpoint=tmp_path)


def test_what_is_no_folder_for_it(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, 3):
        with pytest.raises(ArgumentError, match="`checkpoint` must be"):
            run(checkpoint=place)
    with pytest.raises(ArgumentError, match=r"holds 'file'"):
        run(checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_settings_are_legible(tmp_path):
    run(checkpoint=tmp_path)
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 0
