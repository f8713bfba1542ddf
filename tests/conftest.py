"""What all tests share."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # programs run once here
if "PYTEST_XDIST_WORKER" in os.environ:  # workers, and what they start, share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

# TensorFlow, torch and JAX bring millions of objects, which each full collection walks through.
gc.set_threshold(50_000, 10, 10)

# The same examples at every run; no limit for the first one, which compiles kernels.
settings.register_profile("preshield", deadline=None, derandomize=True, database=None)
settings.load_profile("preshield")


def pytest_collection_finish():
    """What is loaded by then stays, and no collection need look at it again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed():
    """Tests draw the same numbers in whatever order they run."""
    np.random.seed(0)
