"""Loaders and pools: with numbers, each sample has a draw of its own, the same in every epoch and process."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context

import numpy as np
import pytest

from preshield import (
    Chain,
    Cutout,
    GaussianAugmentation,
    JpegCompression,
    PixelDeflection,
    Preprocessor,
    SpatialSmoothing,
)

SAMPLES, WORKERS = 40, 4
NOISE = GaussianAugmentation(0.1, augmentation=False, rng=0)
ZEROS = np.zeros((SAMPLES, 3), dtype=np.float32)
EXPECTED = NOISE.transform(ZEROS, index=0)

# JAX, loaded by another test, warns of every fork. Those are on purpose, and leave JAX alone.
pytestmark = pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")


def check(epochs):
    """Forty samples, forty draws, those of one call; and the same in each epoch."""
    assert len(np.unique(EXPECTED, axis=0)) == SAMPLES
    for epoch in epochs:
        np.testing.assert_array_equal(epoch, EXPECTED)


def defended(numbers):
    return NOISE.transform(ZEROS[numbers], index=numbers)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes:UserWarning")
@pytest.mark.parametrize("of_batches", [False, True], ids=["samples", "batches"])
def test_a_data_loader_of_torch(of_batches):
    data = pytest.importorskip("torch").utils.data

    class Samples(data.Dataset):
        def __len__(self):
            return SAMPLES

        def __getitem__(self, i):
            return i, NOISE.transform_one(ZEROS[i], index=i)

    class Batches(Samples):
        def __getitems__(self, numbers):
            return list(zip(numbers, defended(np.array(numbers)), strict=True))

    dataset = Batches() if of_batches else Samples()
    loader = data.DataLoader(dataset, batch_size=5, shuffle=True, num_workers=WORKERS)
    epochs = []
    for _ in range(2):
        numbers, values = (np.concatenate(part) for part in zip(*loader, strict=True))
        assert not (numbers == np.arange(SAMPLES)).all()  # shuffled
        epochs.append(values[np.argsort(numbers)])
    check(epochs)


def test_tf_data():
    tf = pytest.importorskip("tensorflow")

    def pipeline(of_batches):
        dataset = tf.data.Dataset.from_tensor_slices(ZEROS).enumerate()
        if of_batches:
            dataset = dataset.batch(7).map(lambda i, x: NOISE.transform(x, index=i), WORKERS).unbatch()
        else:
            dataset = dataset.map(lambda i, x: NOISE.transform_one(x, index=i), WORKERS)
        return dataset

    for of_batches in (False, True):
        dataset = pipeline(of_batches)
        check([np.stack(list(dataset.as_numpy_iterator())) for _ in range(2)])


def test_pools_of_processes():
    numbers = [np.arange(i, i + 5) for i in range(0, SAMPLES, 5)]
    with get_context("fork").Pool(WORKERS) as pool:
        check([np.concatenate(pool.map(defended, numbers)) for _ in range(2)])
    noise = GaussianAugmentation(0.1, augmentation=False, rng=0)
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        parts = [pool.submit(noise.transform, ZEROS[i], index=i) for i in numbers]
        check([np.concatenate([part.result() for part in parts])])


def test_joblib():
    joblib = pytest.importorskip("joblib")
    numbers = [np.arange(i, i + 5) for i in range(0, SAMPLES, 5)]
    for backend in ("threading", "multiprocessing"):
        with joblib.Parallel(2, backend=backend) as parallel:
            parts = parallel(joblib.delayed(NOISE.transform)(ZEROS[i], index=i) for i in numbers)
        check([np.concatenate(parts)])


@pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)")  # what pyarrow defines
def test_hugging_face_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")

    def defend(batch, numbers):
        return {"x": NOISE.transform(np.array(batch["x"], dtype=np.float32), index=numbers)}

    def rows():
        yield from ({"x": row.tolist()} for row in ZEROS)

    dataset = datasets.Dataset.from_generator(rows, cache_dir=str(tmp_path))
    options = {"batched": True, "batch_size": 5, "with_indices": True, "num_proc": WORKERS}
    check(
        np.array(dataset.map(defend, **options, cache_file_name=str(tmp_path / name))["x"], dtype=np.float32)
        for name in ("a.arrow", "b.arrow")
    )


@pytest.mark.filterwarnings("ignore:unclosed file .*samples.tar:ResourceWarning")
def test_webdataset(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "samples.tar")) as tar:
        for i, x in enumerate(ZEROS):
            tar.write({"__key__": f"{i:06}", "x.npy": x})

    def defend(sample):
        return NOISE.transform_one(sample["x.npy"], index=int(sample["__key__"]))

    dataset = webdataset.WebDataset(str(tmp_path / "samples.tar"), shardshuffle=False).decode().map(defend)
    check([np.stack(list(dataset)) for _ in range(2)])


# What caches take for the identity of a defence


DEFENCES = {
    "integer": lambda rng=0: GaussianAugmentation(0.1, augmentation=False, rng=rng),
    "generator": lambda rng=0: GaussianAugmentation(0.1, augmentation=False, rng=np.random.default_rng(rng)),
    "chain": lambda rng=0: Chain([SpatialSmoothing(3), Cutout(3, rng=rng)]),
    "deterministic": lambda rng=50: JpegCompression((0, 1), quality=rng or 50),
    "global state": lambda rng=0.04: PixelDeflection((0, 1), sigma=rng or 0.04),
}


def hashes():
    found = {}
    if find_spec("joblib"):
        found["joblib"] = import_module("joblib").hash
    if find_spec("dask"):
        found["dask"] = import_module("dask.base").tokenize
    if find_spec("datasets"):
        found["datasets"] = import_module("datasets.fingerprint").Hasher.hash
    return found


class Mean(Preprocessor):
    def _fit(self, x, y):
        self.mean = float(x.mean())


@pytest.mark.parametrize("make", DEFENCES.values(), ids=DEFENCES.keys())
def test_fingerprints_depend_on_parameters_alone(make):
    x = np.random.default_rng(0).random((2, 6, 6, 3), dtype=np.float32)
    for name, fingerprint in hashes().items():
        defence = make()

        def defend(batch, defence=defence):
            return defence.transform(batch)

        values = [defence, defence.transform, partial(defence.transform, index=0)]
        values += [defend] if name != "joblib" else []  # which takes functions of modules alone
        before = [fingerprint(value) for value in values]
        defence.transform(x)
        pickle.dumps(defence)
        with defence.frozen(1):
            defence.estimate_gradient(x, x)
        assert [fingerprint(value) for value in values] == before
        assert fingerprint(make()) == before[0]
        assert fingerprint(make(rng=7 if "rng" in defence.params else 10)) != before[0]


def test_what_was_learned_is_part_of_the_fingerprint():
    for fingerprint in hashes().values():
        a, b = (Mean().fit(np.full((1, 2, 2, 1), value)) for value in (0.0, 1.0))
        assert fingerprint(a) != fingerprint(b)
