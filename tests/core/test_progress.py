"""The progress bar."""

import sys
import warnings
from importlib import import_module
from types import SimpleNamespace

import pytest

from preshield._core.progress import progress_bar


def test_a_bar_of_text(capsys):
    with progress_bar(total=2, desc="Work") as bar:
        bar.update(2)
    assert "Work: 100%" in capsys.readouterr().err


def test_a_notebook_without_widgets_gets_no_warning(monkeypatch):
    """tqdm.auto warns when it is imported in a notebook, if the widgets of its bar are missing."""
    notebook = pytest.importorskip("tqdm.notebook")
    monkeypatch.setattr(notebook, "IProgress", None)
    shell = type("Shell", (), {"config": {"IPKernelApp": {}}})()
    fake = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", fake)  # by which tqdm knows a notebook

    def warned(load):
        for module in ("tqdm.auto", "tqdm.autonotebook"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load()
        return [str(warning.message) for warning in caught]

    assert "IProgress not found" in warned(lambda: import_module("tqdm.auto"))[0]
    assert warned(lambda: progress_bar(total=1, disable=True).close()) == []
