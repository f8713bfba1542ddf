"""Imports of optional packages."""

import json

import pytest

from preshield._core.optional import require


def test_what_is_there_is_returned():
    assert require("json", extra="demo") is json
    assert require("json.decoder", extra="demo") is json.decoder


@pytest.mark.parametrize("module", ["preshield_absent", "preshield_absent.part"])
def test_what_is_missing_names_its_extra(module):
    with pytest.raises(
        ImportError, match=r"needs the package 'preshield_absent': pip install \"preshield\[demo\]\""
    ) as error:
        require(module, extra="demo")
    assert error.value.name == "preshield_absent"
    assert not isinstance(error.value, ModuleNotFoundError)


def test_what_is_broken_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "preshield_broken.py").write_text("import preshield_absent\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'preshield_absent'"):
        require("preshield_broken", extra="demo")
