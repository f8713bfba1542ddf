"""Numba's cache: missing, damaged, full, or only to be read."""

import errno
import importlib.util
import logging

import pytest

numba = pytest.importorskip("numba")
from numba.core import caching  # noqa: E402

from preshield._core import kernels  # noqa: E402

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")

CODE = """
from preshield._core.kernels import kernel

@kernel
def double(x):
    return 2 * x
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Import a module with one kernel, anew each time; its cache is in the folder `cache`."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "_told", [])
    path = tmp_path / "module.py"
    path.write_text(CODE)

    def imported():
        spec = importlib.util.spec_from_file_location("module", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.double

    return imported


def works(double):
    """Call it; return whether it came from the cache."""
    assert double(21) == 42
    return sum(double.stats.cache_hits.values()) == 1


def files(tmp_path, ending):
    return [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ending]


def test_a_kernel_is_cached(load, tmp_path):
    assert not works(load())
    assert works(load())
    assert kernels._told == []


def test_processes_that_start_together_do_not_take_each_others_kernel(load, monkeypatch):
    """Both find no index, and one writes while the other does. Numba gives both files one name."""
    first, second, save = load(), load(), caching.IndexDataCacheFile._save_data
    between = iter([lambda: second(21)])

    def interrupted(self, name, data):
        for run in between:
            run()
        save(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(caching.IndexDataCacheFile, "_load_index", lambda self: {})
        patch.setattr(caching.IndexDataCacheFile, "_save_data", interrupted)
        assert first(2.5) == 5
    assert next(between, None) is None
    for value, kind in ((21, int), (2.5, float)):
        doubled = load()(value)
        assert doubled == 2 * value
        assert type(doubled) is kind  # and not computed by the kernel for the other type
    assert works(load())


@pytest.mark.parametrize(("ending", "kept"), [(".nbi", 0), (".nbi", 20), (".nbc", 20)])
def test_a_damaged_cache_is_mended(load, tmp_path, ending, kept):
    works(load())
    (path,) = files(tmp_path, ending)
    path.write_bytes(path.read_bytes()[:kept])
    assert not works(load())
    assert works(load())


def test_a_file_that_is_gone(load, tmp_path):
    works(load())
    (path,) = files(tmp_path, ".nbc")
    path.unlink()
    assert not works(load())
    assert works(load())


def test_a_full_disk(load, tmp_path, monkeypatch, caplog):
    def full(self, path):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(caching.IndexDataCacheFile, "_open_for_write", full)
    with caplog.at_level(logging.DEBUG, "preshield"):
        assert not works(load())
        assert not works(load())
    (record,) = caplog.records  # once
    assert "compiled without a cache on disk" in record.getMessage()
    assert "No space left" in record.getMessage()


def test_no_place_for_a_cache(load, tmp_path, monkeypatch, caplog):
    def nowhere(cls, function, path):
        return None

    for locator in kernels._Places._locator_classes:
        monkeypatch.setattr(locator, "from_function", classmethod(nowhere))
    with caplog.at_level(logging.DEBUG, "preshield"):
        assert not works(load())
    assert "no locator available" in caplog.text


def test_a_cache_that_can_only_be_read(load, tmp_path, monkeypatch):
    works(load())

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    monkeypatch.setattr(caching.IndexDataCacheFile, "_open_for_write", read_only)
    assert works(load())
