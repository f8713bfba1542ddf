"""Samples from loaders and streams: the same bits as from arrays, in the memory of a batch."""

import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from preshield import FeatureSqueezing, RobustnessReport, curve, evaluate
from preshield._core.errors import ArgumentError
from preshield.evaluation.sources import samples_of
from tests.evaluation.analytic import threshold

SHAPE = (4, 4, 3)
Y = np.arange(10) % 2
X = np.random.default_rng(0).random((10, *SHAPE), dtype=np.float32) * 0.3 + np.float32(0.5) * Y[
    :, None, None, None
].astype(np.float32)
LEVELS = np.rint(X * 255).astype(np.uint8)


def batches(size=4):
    return ((X[i : i + size], Y[i : i + size]) for i in range(0, len(X), size))


def torch_data():
    torch = pytest.importorskip("torch")
    return torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


def loader():
    import torch

    return torch.utils.data.DataLoader(torch_data(), batch_size=3)


def iterable_of_torch():
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return zip(torch.from_numpy(X), Y, strict=True)

    return torch.utils.data.DataLoader(Stream(), batch_size=4)


def of_tensorflow(batch=3):
    data = pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((X, Y))
    return data.batch(batch) if batch else data


class Sequence:
    """As `keras.utils.PyDataset` is: batches by number, and no end of its own."""

    def __len__(self):
        return 2

    def __getitem__(self, place):
        return X[5 * place :][:5], Y[5 * place :][:5]


def of_dask():
    return pytest.importorskip("dask.array").from_array(X, chunks=(3, 2, 4, 3))


def of_zarr():
    return pytest.importorskip("zarr").array(X, chunks=(3, 2, 4, 3))


def rows_of_hugging_face():
    """Rows as its data sets give them when they are iterated over."""
    return ({"image": image, "label": int(y)} for image, y in zip(X, Y, strict=True))


SOURCES = {
    "generator": (batches, None),
    "loader": (loader, None),
    "data of torch": (torch_data, None),
    "stream of torch": (iterable_of_torch, None),
    "tensorflow": (of_tensorflow, None),
    "tensorflow, sample by sample": (lambda: of_tensorflow(0), None),
    "sequence": (Sequence, None),
    "one-hot": (lambda: ((x, np.eye(2)[y]) for x, y in batches()), None),
    "mappings": (lambda: [{"pixel_values": x, "labels": y, "id": y} for x, y in batches()], None),
    "rows": (rows_of_hugging_face, None),
    "dask": (of_dask, Y),
    "zarr": (of_zarr, Y),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources_hold_what_the_arrays_hold(name):
    make, y = SOURCES[name]
    with samples_of(make(), y) as (x, labels):
        assert isinstance(x, np.memmap)
        assert x.dtype == X.dtype
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(labels, Y)


def test_arrays_pass_as_they_are():
    for x in (X, X.tolist(), X[:1]):
        with samples_of(x, Y) as (same, labels):
            assert same is x
            assert labels is Y


def test_samples_of_torch_whose_labels_are_rows():
    """A one-hot row next to as many channels is no batch of labels."""
    torch = pytest.importorskip("torch")
    images, rows = torch.from_numpy(X).reshape(10, 3, 16)[:, :2], torch.eye(2)[torch.from_numpy(Y)]
    with samples_of(torch.utils.data.TensorDataset(images, rows)) as (x, y):
        np.testing.assert_array_equal(x, images)
        np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize("channels_first", [False, True])
def test_pictures_of_pillow(channels_first):
    pictures = [Image.fromarray(levels) for levels in LEVELS]
    expected = LEVELS.astype(np.float32) / np.float32(255)
    expected = np.moveaxis(expected, -1, 1) if channels_first else expected
    for stream in ([(pictures, Y)], zip(pictures, Y, strict=True)):
        with samples_of(stream, channels_first=channels_first) as (x, y):
            np.testing.assert_array_equal(x, expected)
            np.testing.assert_array_equal(y, Y)


# What an evaluation makes of them


def run(x=X, y=Y, **options):
    model = threshold(SHAPE, slope=10)
    options = {"threat": "linf", "eps": 0.1, "budget": 3, "verbose": False, **options}
    return evaluate(model, x, y, [FeatureSqueezing((0, 1), 3)], **options)


@pytest.fixture(scope="module")
def whole():
    return run()


def test_a_generator_gives_the_report_of_the_arrays(whole, tmp_path):
    options = {"checkpoint": tmp_path / "run", "keep_examples": tmp_path / "kept", "batch_size": 4}
    first = run(batches(3), None, **options)
    assert first == whole
    assert run(Sequence(), None, **options) == whole  # read back: the same samples
    np.testing.assert_array_equal(
        first.examples["FeatureSqueezing"]["adaptive"][:4],
        run(X[:4], Y[:4], keep_examples=tmp_path / "part").examples["FeatureSqueezing"]["adaptive"],
    )


def test_parts_and_workers(whole):
    with ThreadPoolExecutor(2) as pool:
        parts = [
            run([(X[:4], Y[:4])], None),
            run(batch_size=3, x=[(X[4:], Y[4:])], y=None, first=4, client=pool),
        ]
    assert RobustnessReport.merge(parts) == whole


def test_fields_and_curves():
    stream = [{"a": x, "b": y} for x, y in batches()]
    options = {"columns": ["black-box"], "budget": 2, "verbose": False}
    model = threshold(SHAPE, slope=10)
    found = curve(model, iter(stream), None, [], "eps", [0, 1], fields=("a", "b"), **options)
    assert found == curve(model, X, Y, [], "eps", [0, 1], **options)


def test_memory_is_that_of_a_batch():
    """40 MB of samples, none of which is kept."""
    large = (100, 100, 10)
    kept = np.zeros((10, *large), np.float32)

    def stream():
        for value in np.linspace(0.1, 0.9, 10, dtype=np.float32):
            kept.fill(value)
            yield kept, np.arange(10) % 2

    tracemalloc.start()
    with samples_of(stream()) as (x, _):
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert x.nbytes == 40_000_000
        np.testing.assert_allclose(x[::10, 0, 0, 0], np.linspace(0.1, 0.9, 10))
    assert peak < x.nbytes / 20


def test_the_file_goes_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = []

    def stream(error=None):
        yield X, Y
        left.append(list(tmp_path.iterdir()))
        if error:
            raise error

    with samples_of(stream()):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt, match="stop"), samples_of(stream(KeyboardInterrupt("stop"))):
        pass
    with pytest.raises(OSError, match="lost") as caught, samples_of(stream(OSError("lost"))):
        pass
    assert caught.value.__notes__ == ["Raised by `x` when it was asked for batch 1, counted from 0."]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_says_where_more_room_is_to_be_had(monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("preshield.evaluation.sources.TemporaryFile", lambda **_: Full())
    with pytest.raises(OSError, match="No space left") as caught, samples_of(batches()):
        pass
    assert "set the environment variable TMPDIR to a folder with more room" in caught.value.__notes__[0]


# What is refused


def bare_tensors():
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.from_numpy(X), batch_size=4)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (lambda: iter(()), None, "`x` must hold at least one sample, got none; a generator can be read only"),
        (lambda: [(X[:0], Y[:0])], None, "`x` must hold at least one sample"),
        (lambda: X, None, "`y` must be given with an array of shape (10, 4, 4, 3): its labels, got None"),
        (of_zarr, None, "`y` must be given with an array"),
        (loader, Y, "`y` must be left out where `x`, here of type torch.utils.data.dataloader.DataLoader"),
        (batches, [FeatureSqueezing((0, 1), 3)], "pass defences by name: evaluate(classifier, x, defences=["),
        (
            bare_tensors,
            None,
            "got a torch.Tensor without labels in batch 0, counted from 0; let its data set",
        ),
        (lambda: [[X]], None, "must hold pairs of samples and their labels, got a list of 1 in batch 0"),
        (
            lambda: [(X, Y, Y)],
            None,
            "got a tuple of 3 in batch 0, counted from 0; pass ((parts[0], parts[1])",
        ),
        (lambda: (X, Y), None, "got a numpy.ndarray without labels in batch 0"),
        (lambda: [(X, Y), (X, Y[:4])], None, "got 4 for samples of shape (10, 4, 4, 3) in batch 1, counted"),
        (lambda: [(X, Y), (X[:, :3], Y)], None, "got (3, 4, 3) in batch 1, counted from 0, and (4, 4, 3) be"),
        (lambda: [(X, Y), (X * 1.0, Y), (LEVELS, Y)], None, "got uint8 in batch 2, counted from 0, and flo"),
        (lambda: [([X[0], X[0, :2]], [1, 0])], None, "got object in batch 0, counted from 0; bring its sam"),
        (lambda: [(["a", "b"], [1, 0])], None, "must hold batches of numbers, got <U1 in batch 0"),
        (lambda: [{"a": X, "label": Y}], None, '`fields` must be given, such as ("image", "label"), where'),
        (
            lambda: [{"x": X, "image": X, "y": Y}],
            None,
            "the samples have one of several of the names image, ",
        ),
        (
            lambda: {"train": 1, "test": 2},
            None,
            "got builtins.dict with 'train', 'test'; pass one of them: x[",
        ),
        (lambda: "pictures/", None, "of a folder of pictures make torchvision.datasets"),
        (lambda: None, None, "`x` must be samples, with their labels as `y`, or a loader"),
        (
            lambda: of_tensorflow().repeat(),
            None,
            "`x` must end, got a data set that repeats for ever; pass x",
        ),
    ],
)
def test_refusals(x, y, message):
    with pytest.raises(ArgumentError, match=re.escape(message)), samples_of(x(), y):
        pass


def test_a_label_that_is_none_names_its_batch():
    with pytest.raises(ArgumentError, match="`y` must hold class indices") as caught:
        evaluate(threshold(SHAPE), [(X, Y), (X, Y + 0.5)], verbose=False)
    assert caught.value.__notes__ == ["It is in batch 1 of `x`, counted from 0."]


@pytest.mark.parametrize("fields", ["image", ("image",), ("image", 3)])
def test_fields_are_two_names(fields):
    with pytest.raises(ArgumentError, match="`fields` must name the samples and the labels of a batch"):
        evaluate(threshold(SHAPE), [(X, Y)], fields=fields)
    with pytest.raises(ArgumentError, match="got 'b', and batch 0, counted from 0, has image, label"):
        evaluate(threshold(SHAPE), [{"image": X, "label": Y}], fields=("image", "b"), verbose=False)
