"""Blocks and threads."""

import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preshield._core.threads import block_length, map_blocks, thread_count

threads = pytest.mark.parametrize("threads", ["1", "2", "5"])


def test_the_environment_sets_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "7")
    assert thread_count() == 7
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "")
    assert thread_count() >= 1


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_threads_is_refused(monkeypatch, value):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", value)
    with pytest.raises(ValueError, match=rf"PRESHIELD_NUM_THREADS must be a positive integer, got '{value}'"):
        map_blocks(print, 3, 1)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.zeros((10, 100), np.uint8), 10),
        (np.zeros((10, 300), np.float64), 1),
        (np.zeros((0, 3)), 1000),
        (np.zeros((4, 0)), 1000),
        (np.zeros(5, np.uint8), 1000),
    ],
)
def test_block_length(x, expected):
    assert block_length(x, 1000) == expected


@settings(max_examples=30, deadline=None)
@given(total=st.integers(0, 50), block=st.integers(1, 60), count=st.integers(1, 6))
def test_every_entry_is_visited_once(total, block, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRESHIELD_NUM_THREADS", str(count))
        visits = np.zeros(total, dtype=int)
        lengths = []

        def work(rows):
            visits[rows] += 1
            lengths.append(rows.stop - rows.start)

        map_blocks(work, total, block)
    np.testing.assert_array_equal(visits, 1)
    assert all(1 <= length <= block for length in lengths)


@threads
def test_an_error_comes_through_and_ends_the_work(monkeypatch, threads):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
    seen = []

    def work(rows):
        seen.append(rows.start)
        if rows.start == 2:
            raise KeyError("third block")

    with pytest.raises(KeyError, match="third block"):
        map_blocks(work, 10_000, 1)
    assert len(seen) < 10_000


def test_an_error_stops_the_other_threads(monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "2")
    caller, both_work, failed, seen = threading.get_ident(), threading.Event(), threading.Event(), []

    def work(rows):
        seen.append(rows.start)
        if threading.get_ident() == caller:
            assert both_work.wait(60)
            failed.set()
            raise KeyError("first block")
        both_work.set()
        assert failed.wait(60)
        time.sleep(0.02)  # time for the caller to stop it

    with pytest.raises(KeyError, match="first block"):
        map_blocks(work, 40, 1)  # eight runs of five blocks, of which each thread has taken one
    assert len(seen) < 36


def test_no_more_threads_than_wanted(monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "4")
    workers = set()
    map_blocks(lambda rows: (workers.add(threading.get_ident()), time.sleep(1e-3)), 50, 1, threads=1)
    assert workers == {threading.get_ident()}


def test_blocks_run_at_the_same_time(monkeypatch):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "3")
    barrier = threading.Barrier(3, timeout=30)  # breaks unless three blocks are worked on at once
    map_blocks(lambda rows: barrier.wait() and None, 3, 1)


def test_a_helper_that_never_ran_keeps_nothing(monkeypatch):
    """A cancelled task stands in the queue of a busy pool until a thread comes to it."""
    queue = []
    monkeypatch.setattr("preshield._core.threads._pool", lambda: SimpleNamespace(submit=queue.append))
    visited = set()
    kept = weakref.ref(visited)
    map_blocks(lambda rows, visited=visited: visited.add(rows.start), 8, 1, threads=2)
    assert queue
    assert visited == set(range(8))
    del visited
    assert kept() is None


@threads
def test_calls_inside_calls_from_many_threads_end(monkeypatch, threads):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)

    def call(_):
        sums = np.zeros(20, dtype=int)

        def outer(rows):
            def inner(columns):
                sums[rows] += columns.stop - columns.start

            map_blocks(inner, 1, 1)

        map_blocks(outer, 20, 3)
        return sums.tolist()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(16), timeout=60)) == [[1] * 20] * 16


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this platform")
def test_a_forked_child_can_work():
    code = """
import os, warnings
warnings.simplefilter("ignore")
os.environ["PRESHIELD_NUM_THREADS"] = "3"
from preshield._core.threads import map_blocks
def total():
    seen = []
    map_blocks(lambda rows: seen.append(rows.start), 9, 1)
    return len(seen)
assert total() == 9
child = os.fork()
if child == 0:
    os._exit(0 if total() == 9 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@threads
def test_progress(monkeypatch, capsys, threads):
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", threads)
    map_blocks(lambda rows: None, 10, 3)
    assert capsys.readouterr().err == ""
    map_blocks(lambda rows: None, 10, 3, progress="Working")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Working: 100%" in captured.err
    assert "10/10" in captured.err


INTERRUPT = """
import threading
from preshield._core.threads import map_blocks

start = threading.Thread.start

def interrupted(thread):
    threading.Thread.start = start
    start(thread)
    raise KeyboardInterrupt

threading.Thread.start, done = interrupted, []
try:
    map_blocks(done.append, 10**6, 1)
except KeyboardInterrupt:
    print(len(done) < 10**6)
"""


@pytest.mark.parametrize("started", [0, 1, 2])
def test_without_threads_the_caller_does_the_work(monkeypatch, started):
    """Also if threads that were started before come to what was meant for those that could not be."""
    monkeypatch.setenv("PRESHIELD_NUM_THREADS", "5")
    monkeypatch.setattr("preshield._core.threads._pool", cache(lambda: ThreadPoolExecutor(9)))
    left, start = iter(range(started)), threading.Thread.start

    def limited(thread):
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    for _ in range(20):
        done = np.zeros(40)

        def work(rows, done=done):
            time.sleep(0.0002)
            done[rows] += 1

        map_blocks(work, 40, 1)
        assert (done == 1).all()


def test_an_interrupt_while_a_thread_starts_lets_the_process_end():
    script = [sys.executable, "-c", INTERRUPT]
    env = {**os.environ, "PRESHIELD_NUM_THREADS": "2"}
    out = subprocess.run(script, capture_output=True, text=True, timeout=60, check=True, env=env)
    assert out.stdout == "True\n"
