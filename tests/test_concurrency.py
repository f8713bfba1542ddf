"""Processes and threads: pickle, copies, forks, many callers, any number of threads."""

import asyncio
import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    LabelSmoothing,
    SpatialSmoothing,
    ThermometerEncoding,
    TotalVarMin,
)
from preshield._core.threads import block_length, map_blocks, thread_count
from tests.cases import ALL

# JAX, loaded by another test, warns of every fork. These are on purpose; the children leave JAX alone.
pytestmark = pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")

# Large enough that every defence works on it in several blocks.
LARGE = np.random.default_rng(0).random((24, 64, 64, 3), dtype=np.float32)
DEFENCES = {
    "squeeze": FeatureSqueezing((0, 1), 3),
    "squeeze per channel": FeatureSqueezing((np.zeros(3), np.ones(3)), 3),
    "noise": GaussianAugmentation(0.1, False),
    "augment": GaussianAugmentation(0.1, ratio=0.5),
    "jpeg": JpegCompression((0, 1)),
    "median": SpatialSmoothing(3, gradient="exact"),
    "thermometer": ThermometerEncoding((0, 1), 4),
    "total variation": TotalVarMin(max_iter=2),
    "chain": Chain([SpatialSmoothing(3), GaussianAugmentation(0.1, False), FeatureSqueezing((0, 1), 3)]),
}


def frozen_call(defence, x):
    with defence.frozen(1):
        return defence.transform(x)


def one_hot(n):
    return np.eye(3, dtype=np.float32)[np.arange(n) % 3]


# The number of threads


@pytest.mark.parametrize("name", DEFENCES)
def test_results_do_not_depend_on_the_number_of_threads(name, monkeypatch):
    defence, results = DEFENCES[name], []
    x = LARGE[:4] if name == "total variation" else LARGE
    for threads in ("1", "2", "7"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        out = frozen_call(defence, x)
        with defence.frozen(1):
            results.append((out, defence.estimate_gradient(x, np.ones(out.shape, np.float32))))
    for out, grad in results[1:]:
        np.testing.assert_array_equal(out, results[0][0])
        np.testing.assert_array_equal(grad, results[0][1])


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", " ", "²"])
def test_an_invalid_number_of_threads_is_refused(value, monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", value)
    with pytest.raises(ValueError, match=f"PRESHIELD_NUM_THREADS must be a positive integer, got '{value}'"):
        SpatialSmoothing(3).transform(LARGE)


def test_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "5")
    assert thread_count() == 5
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("PRESHIELD_NUM_THREADS")
        else:
            monkeypatch.setenv("PRESHIELD_NUM_THREADS", unset)
        assert 1 <= thread_count() <= os.cpu_count()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 4}, raising=False)
    assert thread_count() == 3


def test_blocks_cover_the_range_once(monkeypatch):
    for threads in ("1", "3"):
        monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
        for total, block in ((0, 4), (1, 4), (4, 4), (5, 4), (103, 4), (7, 100)):
            counts, longest = np.zeros(total, dtype=int), []

            def work(rows, counts=counts, longest=longest):
                counts[rows] += 1
                longest.append(rows.stop - rows.start)

            map_blocks(work, total, block)
            assert (counts == 1).all()
            assert max(longest, default=0) <= block


def test_threads_really_share_the_work(monkeypatch):
    """Two blocks that wait for each other can only end if two threads run them."""
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "2")
    barrier = threading.Barrier(2, timeout=20)
    map_blocks(lambda rows: barrier.wait() and None, 2, 1)


@pytest.mark.parametrize("threads", ["1", "4"])
def test_an_error_in_a_block_reaches_the_caller(threads, monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)

    def work(rows):
        if rows.start == 40:
            raise FloatingPointError("block 40")

    with pytest.raises(FloatingPointError, match="block 40"):
        map_blocks(work, 100, 1)
    map_blocks(lambda rows: None, 100, 1)  # and the next call works


def test_an_error_in_another_thread_reaches_the_caller(monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "2")
    both, caller = threading.Barrier(2, timeout=20), threading.current_thread()

    def work(rows):
        both.wait()
        if threading.current_thread() is not caller:
            raise FloatingPointError("elsewhere")

    with pytest.raises(FloatingPointError, match="elsewhere"):
        map_blocks(work, 2, 1)


def test_a_block_may_call_map_blocks_itself(monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "3")
    counts = np.zeros((8, 50), dtype=int)

    def outer(rows):
        for i in range(rows.start, rows.stop):
            map_blocks(lambda inner, i=i: counts[i].__setitem__(inner, counts[i][inner] + 1), 50, 1)

    map_blocks(outer, 8, 1)
    assert (counts == 1).all()


def test_progress_counts_every_entry(monkeypatch, capsys):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "2")
    map_blocks(lambda rows: None, 100, 7, progress="Working")
    assert "Working: 100%" in capsys.readouterr().err
    map_blocks(lambda rows: None, 100, 7)
    assert capsys.readouterr().err == ""


def test_blocks_have_about_the_bytes_that_are_wanted():
    x = np.zeros((1000, 256), np.float32)
    assert block_length(x, 4096) == 4
    assert block_length(x, 1) == 1
    assert block_length(x[:0]) >= 1
    assert block_length(np.zeros((10, 0))) >= 1


# Many callers


@pytest.mark.parametrize("name", DEFENCES)
def test_eight_threads_at_once(name):
    defence = DEFENCES[name]
    batches = [LARGE[i : i + 4] for i in range(8)]
    with defence.frozen(1):
        expected = [defence.transform(x) for x in batches]
        ones = np.ones(expected[0].shape)
        grads = [defence.estimate_gradient(x, ones) for x in batches]
        start = threading.Barrier(8, timeout=60)

        def work(i):
            start.wait()
            with defence.frozen(1):
                return [
                    (defence.transform(batches[i]), defence.estimate_gradient(batches[i], ones)) for _ in "ab"
                ]

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(work, range(8)))
    for i, calls in enumerate(results):
        for out, grad in calls:
            np.testing.assert_array_equal(out, expected[i])
            np.testing.assert_array_equal(grad, grads[i])


def test_threads_share_one_stream_of_seeds():
    """Whichever thread is first: eight calls take the first eight draws, none twice."""
    x = np.zeros((1, 4))
    alone = GaussianAugmentation(1.0, False, rng=5)
    expected = sorted(alone.transform(x).tobytes() for _ in range(8))
    for _ in range(20):
        shared, start = GaussianAugmentation(1.0, False, rng=5), threading.Barrier(8, timeout=60)

        def work(_, shared=shared, start=start):
            start.wait()
            return shared.transform(x).tobytes()

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(work, range(8))) == expected


# Other processes


@pytest.mark.parametrize("case", ALL, ids=str)
def test_pickle_and_deepcopy(case):
    defence, y = case.make(), one_hot(len(case.sample))
    defence(case.sample, y)
    for twin in (pickle.loads(pickle.dumps(defence)), copy.deepcopy(defence), copy.copy(defence)):
        with defence.frozen(1), twin.frozen(1):
            for a, b in zip(defence(case.sample, y), twin(case.sample, y), strict=True):
                np.testing.assert_array_equal(a, b)
        assert twin.get_params().keys() == defence.get_params().keys()


def test_a_copy_shares_nothing_with_the_original():
    defence = FeatureSqueezing((np.zeros(3), np.ones(3)), 3)
    twin = copy.deepcopy(defence).set_params(bit_depth=1)
    twin.clip_values[1][:] = 9
    assert defence.bit_depth == 3
    np.testing.assert_array_equal(defence.clip_values[1], np.ones(3))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.parametrize("name", DEFENCES)
def test_a_forked_process_after_the_parent_used_the_defence(name, monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "3")
    defence = DEFENCES[name]
    x = LARGE[:8] if name == "total variation" else LARGE
    expected = frozen_call(defence, x)
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        for out in [pool.submit(frozen_call, defence, x) for _ in range(2)]:
            np.testing.assert_array_equal(out.result(timeout=60), expected)
    np.testing.assert_array_equal(frozen_call(defence, x), expected)


def test_a_spawned_process():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        out = pool.submit(SpatialSmoothing(3).transform, LARGE[:2]).result(timeout=120)
    np.testing.assert_array_equal(out, SpatialSmoothing(3).transform(LARGE[:2]))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_fork_while_other_threads_are_at_work(monkeypatch):
    """Forking in the middle of calls leaves neither parent nor child waiting for a lock."""
    code = """
import os, threading
import numpy as np
from preshield import FeatureSqueezing, SpatialSmoothing
x = np.random.default_rng(0).random((64, 64, 64, 3), dtype=np.float32)
squeeze, median, stop = FeatureSqueezing((0, 1), 3), SpatialSmoothing(3), threading.Event()
expected = squeeze.transform(x), median.transform(x)
def busy():
    while not stop.is_set():
        squeeze.transform(x), median.transform(x)
threads = [threading.Thread(target=busy) for _ in range(3)]
[t.start() for t in threads]
for _ in range(8):
    child = os.fork()
    if child == 0:
        same = all((a == b).all() for a, b in zip((squeeze.transform(x), median.transform(x)), expected))
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
[t.join() for t in threads]
"""
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "3")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


class Defended:
    """A torch data set whose samples are defended by whoever loads them."""

    def __init__(self, defence):
        self.defence = defence

    def __len__(self):
        return len(LARGE)

    def __getitem__(self, i):
        return self.defence.transform(LARGE[i : i + 1])[0]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.parametrize("name", ["squeeze", "jpeg", "median", "thermometer"])
def test_forked_data_loader_workers(name):
    torch = pytest.importorskip("torch")
    defence = DEFENCES[name]
    expected = defence.transform(LARGE)  # the parent uses it first
    loader = torch.utils.data.DataLoader(
        Defended(defence), batch_size=8, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    np.testing.assert_array_equal(torch.cat(list(loader)), expected)
    np.testing.assert_array_equal(defence.transform(LARGE), expected)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_forked_data_loader_workers_collate_tensors():
    """The defence as a collate function: on tensors, with labels, with draws that differ by worker."""
    torch = pytest.importorskip("torch")
    noise = Chain([GaussianAugmentation(0.1, False), LabelSmoothing(0.8)])
    noise(torch.zeros(1, 2), torch.eye(3)[:1])

    def collate(rows):
        return noise(torch.zeros(len(rows), 100), torch.eye(3)[rows])

    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(
        [0, 1, 2, 0],
        batch_size=1,
        num_workers=2,
        collate_fn=collate,
        multiprocessing_context="fork",
        timeout=60,
    )
    batches = list(loader)
    labels = torch.cat([y for _, y in batches])
    np.testing.assert_allclose(labels, (0.1 + 0.7 * np.eye(3))[[0, 1, 2, 0]], rtol=1e-6)
    assert len({x.numpy().tobytes() for x, _ in batches}) == 4


# Frozen draws


def test_one_thread_freezes_no_other():
    noise, x = GaussianAugmentation(0.1, False, rng=0), np.zeros((2, 3))
    inside, done = threading.Event(), threading.Event()

    def hold():
        with noise.frozen(1):
            inside.set()
            done.wait(30)
            return noise.transform(x)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        inside.wait(30)
        free = [noise.transform(x) for _ in range(2)]
        done.set()
    twin = GaussianAugmentation(0.1, False, rng=0)
    for found in free:  # the stream of rng=0, untouched
        np.testing.assert_array_equal(found, twin.transform(x))
    np.testing.assert_array_equal(held.result(), frozen_call(twin, x))


def test_each_thread_may_freeze_its_own_draw():
    noise, x = GaussianAugmentation(0.1, False), np.zeros((2, 3))
    barrier = threading.Barrier(4, timeout=30)

    def hold(seed):
        with noise.frozen(seed):
            barrier.wait()
            return noise.transform(x)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(hold, range(4)))
    for seed, result in enumerate(results):
        with noise.frozen(seed):
            np.testing.assert_array_equal(result, noise.transform(x))


def test_each_task_may_freeze_its_own_draw():
    """Asynchronous tasks take turns in one thread; what one of them calls in another thread is its own."""
    noise, x = GaussianAugmentation(0.1, False, rng=0), np.zeros((2, 3))

    async def hold(seed):
        with noise.frozen(seed):
            await asyncio.sleep(0)  # until the others are in their blocks
            return noise.transform(x), await asyncio.to_thread(noise.transform, x)

    async def free():
        await asyncio.sleep(0)
        return [noise.transform(x) for _ in range(2)]

    async def together():
        return await asyncio.gather(free(), *map(hold, range(3)))

    unheld, *results = asyncio.run(together())
    twin = GaussianAugmentation(0.1, False, rng=0)
    for found in unheld:
        np.testing.assert_array_equal(found, twin.transform(x))
    for seed, (here, there) in enumerate(results):
        with noise.frozen(seed):
            np.testing.assert_array_equal(here, noise.transform(x))
        np.testing.assert_array_equal(here, there)


def test_a_copy_made_inside_the_block_is_not_frozen():
    noise, x = GaussianAugmentation(0.1, False, rng=0), np.zeros((2, 3))
    with noise.frozen(1):
        twin, unpickled = copy.deepcopy(noise), pickle.loads(pickle.dumps(noise))
    assert (twin.transform(x) != twin.transform(x)).any()
    assert (unpickled.transform(x) != unpickled.transform(x)).any()


def test_a_compiled_graph_draws_what_its_caller_has_frozen():
    tf = pytest.importorskip("tensorflow")
    noise, x = GaussianAugmentation(0.1, False), tf.zeros((2, 3))
    graph = tf.function(noise.transform)
    np.testing.assert_array_equal(frozen_call(noise, x.numpy()), graph_of(noise, graph, x))
    assert (graph(x).numpy() != graph(x).numpy()).any()
    inside, done = threading.Event(), threading.Event()

    def hold():
        with noise.frozen(2):
            inside.set()
            done.wait(30)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        inside.wait(30)
        with pytest.raises(
            tf.errors.UnknownError, match=r"frozen with the seeds \[1, 2\] by several threads"
        ):
            graph_of(noise, graph, x)
        done.set()
        held.result()


def graph_of(defence, graph, x):
    with defence.frozen(1):
        return graph(x).numpy()
