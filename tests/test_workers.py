"""Draws in other processes: workers, ranks and epochs differ, and follow from one seed."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from preshield import (
    Chain,
    GaussianAugmentation,
    PixelDeflection,
    Preprocessor,
)
from preshield._core import processes
from preshield._core.random import SeedStream

# JAX, loaded by another test, warns of every fork. These are on purpose; the children leave JAX alone.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more than there are cores
    pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning"),
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here"),
]

X = np.zeros((1, 3))
FORK = multiprocessing.get_context("fork")


def noise(rng=0):
    return GaussianAugmentation(1.0, augmentation=False, rng=rng)


def draw(defence, _=None):
    return defence.transform(X).tobytes()


SHARED = noise()  # by the forked workers below; in a spawned one, each makes its own when it starts


def draw_shared(_):
    return draw(SHARED)


def draw_global(_):
    return draw(noise(None))


def draw_seeded(seed):
    np.random.seed(seed)
    return draw(noise(None))


def draw_made_here(seed):
    return draw(noise(seed))


class Defended:
    """A torch data set whose samples are defended by whoever loads them."""

    def __init__(self, defence, length=8):
        self.defence = defence
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return self.defence.transform(X)[0]


def epochs(defence, workers=4, method="fork", number=2, seed=0, length=8, **options):
    """What the samples of a data set draw in each epoch."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    loader = torch.utils.data.DataLoader(
        Defended(defence, length),
        batch_size=1,
        num_workers=workers,
        multiprocessing_context=method if workers else None,
        timeout=60 if workers else 0,
        **options,
    )
    return [[batch.numpy().tobytes() for batch in loader] for _ in range(number)]


# torch's DataLoader


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "used"),
    [
        (lambda: noise(0), False),
        (lambda: noise(0), True),
        (lambda: noise(None), True),
        (lambda: noise(np.random.default_rng(0)), True),
        (lambda: Chain([noise(0), noise(np.random.default_rng(0))]), False),
    ],
    ids=["integer", "integer, used by the parent", "None", "generator", "chain"],
)
def test_samples_of_forked_loader_workers_differ_and_follow_from_the_seed(make, used):
    def run(seed, number=2):
        defence = make()
        before = draw(defence) if used else None
        found = epochs(defence, number=number, seed=seed)
        assert len({before, *(sample for epoch in found for sample in epoch)}) == 1 + 8 * number
        return found

    one = run(1)
    assert run(1) == one
    assert not set(run(2, number=1)[0]) & set(one[0])


def test_without_workers_the_stream_goes_on():
    defence, alone = noise(), noise()
    assert epochs(defence, workers=0) == [[draw(alone) for _ in range(8)] for _ in range(2)]


def test_persistent_workers_go_on():
    first, second = epochs(noise(), workers=2, persistent_workers=True, length=4)
    assert len({*first, *second}) == 8


@pytest.mark.slow
def test_spawned_loader_workers_draw_as_forked_ones():
    spawned = epochs(noise(), workers=2, method="spawn", length=4)
    assert spawned == epochs(noise(), workers=2, length=4)
    assert len({*spawned[0], *spawned[1]}) == 8


def test_a_defence_made_in_a_loader_worker_draws_what_its_seed_says():
    class Numbered(Defended):
        def __getitem__(self, i):
            return noise(i).transform(X)[0]

    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(
        Numbered(None, 4), batch_size=1, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert [batch.numpy().tobytes() for batch in loader] == [draw(noise(i)) for i in range(4)]


# Pools


def test_tasks_of_a_pool_differ_in_whatever_worker_they_run():
    """A defence that travels with each task: alike with two workers and with three, and again."""
    results = []
    for workers in (2, 3, 3):
        with ProcessPoolExecutor(workers, FORK) as pool:
            results.append(list(pool.map(noise().transform, [X] * 6, timeout=60)))
    assert len({out.tobytes() for out in results[0]} | {draw(noise())}) == 7
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


@pytest.mark.parametrize("task", [draw_shared, draw_global])
def test_forked_workers_that_share_a_defence_or_numpys_state(task):
    def run():
        with FORK.Pool(3) as pool:
            return pool.map(task, range(9), chunksize=1)

    first, second = run(), run()
    assert len({*first, *second, task(0)}) == 19


def test_spawned_workers(tmp_path):
    """The defence of a script, which each worker makes anew, and one that travels with the task."""
    (tmp_path / "script.py").write_text(
        """
import multiprocessing, time
import numpy as np
from preshield import GaussianAugmentation

noise, x = GaussianAugmentation(1.0, False, rng=0), np.zeros((1, 3))

def work(sent):
    time.sleep(0.2)  # long enough for both workers to take tasks
    return sent.transform(x).tobytes(), noise.transform(x).tobytes()

if __name__ == "__main__":
    sent = GaussianAugmentation(1.0, False, rng=1)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        a, b = zip(*pool.map(work, [sent] * 4, chunksize=1))
    drawn = {*a, *b, sent.transform(x).tobytes(), noise.transform(x).tobytes()}
    assert len(drawn) == 10, len(drawn)
"""
    )
    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True, timeout=120)


@pytest.mark.parametrize("task", [draw_seeded, draw_made_here])
def test_a_task_that_seeds_its_draws_does_not_depend_on_the_worker(task):
    np.random.seed(99)
    draw_global(0)
    with FORK.Pool(3) as pool:
        assert pool.map(task, range(8), chunksize=1) == [task(i) for i in range(8)]


@pytest.mark.parametrize("count", [10, 1000, 5_000_000])
def test_numpys_state_is_inherited_after_other_draws_too(count):
    with ProcessPoolExecutor(2, FORK) as pool:
        results = [pool.submit(draw_after, count) for _ in range(4)]
        assert len({result.result(timeout=60) for result in results}) == 4


def draw_after(count):
    np.random.random(count // 2)  # two words each
    return draw(noise(None)), draw(noise(None))


def test_a_generator_of_another_kind_in_numpys_global_state():
    previous = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        with FORK.Pool(2) as pool:
            assert len({*pool.map(draw_global, range(6), chunksize=1)}) == 6
    finally:
        np.random.set_bit_generator(previous)


def load_and_draw(data):
    return draw(pickle.loads(data))


def test_workers_that_load_one_file():
    """Not sent by the parent of this process: the workers are all that differs."""
    code = "import pickle, sys, preshield; noise = preshield.GaussianAugmentation(1.0, False, rng=0)\n"
    code += "sys.stdout.buffer.write(pickle.dumps(noise))"
    data = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    drawn = []
    for _ in range(3):
        with FORK.Pool(1) as pool:
            drawn.append(pool.apply(load_and_draw, (data,)))
    assert len(set(drawn)) == 3
    assert load_and_draw(data) == draw(noise())  # in a main process it goes on


# Bare forks


def forked(function):
    """What a function returns in a child of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, pickle.dumps(function()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        result = pickle.load(file)
    os.waitpid(child, 0)
    return result


@pytest.mark.parametrize("rng", [0, None], ids=repr)
def test_bare_forks(rng):
    def family():
        defence = noise(rng)
        children = [forked(lambda: [draw(defence), draw(defence)]) for _ in range(2)]
        grandchildren = forked(lambda: [forked(lambda: draw(defence)) for _ in range(2)])
        return [*children[0], *children[1], *grandchildren, draw(defence)]

    assert len(set(family())) == 7
    if rng is not None:  # a family begins to count its children anew
        assert forked(family)[6] == draw(noise(rng))


def test_forks_are_told_apart_from_those_of_multiprocessing(monkeypatch):
    lineage, identity = processes._Lineage(), ()
    monkeypatch.setattr(processes, "_identity", lambda: identity)

    def fork(child):
        nonlocal identity
        lineage.before_fork()
        lineage.after_fork()
        identity = child

    for child, bare in (((), (1,)), ((3,), (1,)), ((3,), (1, 1)), ((3, 2), (1, 1))):
        fork(child)
        assert lineage.bare_forks() == bare


# Ranks


def test_ranks(monkeypatch):
    drawn = {}
    for rank in ("0", "1", "2", "none", "-1", "²"):
        monkeypatch.setenv("RANK", rank)
        np.random.seed(0)
        drawn[rank] = draw(noise(0)), draw(noise(None)), draw(noise(np.random.default_rng(1)))
    assert drawn["0"] == drawn["none"] == drawn["-1"] == drawn["²"]
    assert len({*drawn["0"], *drawn["1"], *drawn["2"]}) == 9
    monkeypatch.setenv("RANK", "1")
    assert draw(noise(0)) == drawn["1"][0]


def test_ranks_of_torch(monkeypatch):
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available():
        pytest.skip("torch without torch.distributed")
    drawn = {"0": draw(noise())}
    for rank in (1, 2):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        with monkeypatch.context() as patch:
            patch.setattr(distributed, "is_initialized", lambda: True)
            patch.setenv("RANK", "7")  # of which torch knows better
            drawn[rank] = draw(noise())
        monkeypatch.setenv("RANK", str(rank))
        assert draw(noise()) == drawn[rank]
    assert len(set(drawn.values())) == 3


@pytest.mark.parametrize("rng", [0, None], ids=repr)
def test_loader_workers_of_two_ranks(rng, monkeypatch):
    samples = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        samples += epochs(noise(rng), workers=2, number=1, length=4)[0]
    assert len(set(samples)) == 8


# What stays as it was


def everything(defence):
    with defence.frozen(3):
        return defence.transform(np.full((2, 4, 4, 3), 0.5, np.float32)).tobytes()


@pytest.mark.parametrize(
    "defence", [noise(), Chain([PixelDeflection((0, 1), deflections=4, window=2, denoiser=None), noise()])]
)
def test_frozen_is_the_same_in_every_process_and_rank(defence, monkeypatch):
    expected = everything(defence)
    assert forked(lambda: everything(defence)) == expected
    with FORK.Pool(1) as pool:
        assert pool.apply(everything, (defence,)) == expected
    monkeypatch.setenv("RANK", "5")
    assert everything(defence) == expected


def test_the_seeds_of_an_evaluation_are_the_same_everywhere(monkeypatch):
    expected = SeedStream(np.random.default_rng(0), everywhere=True).next()
    np.testing.assert_array_equal(expected, SeedStream(np.random.default_rng(0)).next())
    monkeypatch.setenv("RANK", "5")
    np.testing.assert_array_equal(SeedStream(np.random.default_rng(0), everywhere=True).next(), expected)


def test_copies_in_a_worker_go_on_alike():
    defence = noise()

    def run():
        draw(defence)
        twins = [copy.deepcopy(defence), pickle.loads(pickle.dumps(defence))]
        return {draw(d) for d in (defence, *twins)}, {draw(d) for d in (defence, *twins)}

    first, second = forked(run)
    assert len(first) == len(second) == 1
    assert first != second


def test_two_defences_with_one_seed_draw_alike_in_a_worker():
    one, two = noise(5), noise(5)
    assert len(set(forked(lambda: [draw(one), draw(two)]))) == 1


def test_rng_is_a_parameter_where_a_class_has_it():
    class Plain(Preprocessor):
        pass

    assert not hasattr(Plain(), "rng")
    with pytest.raises(AttributeError, match="'Plain' object has no attribute 'rng'"):
        Plain().rng  # noqa: B018
    generator = np.random.default_rng(0)
    assert noise(generator).rng is generator


def test_a_new_seed_belongs_to_the_process_that_sets_it():
    defence = noise()
    draw(defence)
    assert forked(lambda: draw(defence.set_params(rng=3))) == draw(noise(3))
    defence.rng = 4
    assert draw(defence) == draw(noise(4))
