"""Batches on workers: the same report from threads, processes and Dask."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest

from preshield import FeatureSqueezing, PixelDeflection, evaluate
from preshield._core.errors import ArgumentError
from tests.evaluation.rowwise import RowWise, data

X, Y = data(24)


def run(model=None, **options):
    shown = {
        "squeezed": FeatureSqueezing((0, 1), 2),
        "deflected": PixelDeflection((0, 1), 3, 2, denoiser=None),
    }
    options = {
        "threat": "linf",
        "eps": 0.1,
        "budget": 6,
        "eot": 2,
        "batch_size": 6,
        "verbose": False,
        **options,
    }
    return evaluate(model or RowWise(), X, Y, shown, **options)


@pytest.fixture(scope="module")
def alone():
    return run()


class Deadly(RowWise):
    """End the process that predicts, once."""

    def __init__(self, flag):
        super().__init__()
        self.flag, self.home = flag, os.getpid()

    def predict(self, x):
        if os.getpid() != self.home and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(x)


def test_threads(alone):
    with ThreadPoolExecutor(2) as pool:
        assert run(client=pool) == alone


def test_processes(alone, tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        report = run(client=pool, keep_examples=tmp_path)
    assert report == alone
    assert report.examples["squeezed"]["adaptive"].shape == X.shape


def test_what_cannot_be_sent_to_a_process():
    class Local(RowWise):
        pass

    with (
        ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool,
        pytest.raises(ArgumentError, match="pool of processes, and the classifier or a defence cannot be"),
    ):
        run(Local(), client=pool)


def test_an_error_on_a_worker_is_the_error_of_the_run():
    class Broken(RowWise):
        def forward(self, x):
            raise OSError("no more of this")

    with ThreadPoolExecutor(2) as pool, pytest.raises(OSError, match="no more of this"):
        run(Broken(), client=pool)


@pytest.mark.parametrize("count", [2, 1])
def test_dask_on_workers_of_which_one_is_killed(count, alone, tmp_path):
    """The last one that has the model takes it along: Dask starts another, which is sent it again."""
    distributed = pytest.importorskip("distributed")
    import dask

    options = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    patient = dask.config.set({"distributed.comm.timeouts.connect": "120s"})  # where other tests run too
    with patient, distributed.Client(**options, local_directory=tmp_path) as client:
        report = run(Deadly(tmp_path / "killed"), client=client, checkpoint=tmp_path / "c")
    assert replace(report, settings={**report.settings, "classifier": "RowWise"}) == alone
    assert (tmp_path / "killed").exists()
    assert len(list((tmp_path / "c").glob("batch-*.npz"))) == 4


def test_what_is_no_client():
    for client in (2, "scheduler:8786"):
        with pytest.raises(ArgumentError, match=r"`client` must be a dask.distributed Client or an executor"):
            run(client=client)


def test_a_client_without_workers_and_a_closed_one():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
        client = distributed.Client(cluster)
        with client, pytest.raises(ArgumentError, match="`client` must have at least one worker, got none"):
            run(client=client)
        with pytest.raises(ArgumentError, match="must be connected to a scheduler, got the status 'closed'"):
            run(client=client)
