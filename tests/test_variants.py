"""ART's names for torch and TensorFlow: each is one more name of one class."""

import copy
import pickle
import warnings
from inspect import Parameter, signature
from typing import get_args

import numpy as np
import pytest

import preshield
from preshield import variants
from preshield._core.variant import Variant

NAMES = [name for name in variants.__all__ if isinstance(getattr(variants, name), Variant)]
ALIASES = [name for name in variants.__all__ if name not in NAMES]
REQUIRED = {
    "CutMixPyTorch": (10,),
    "CutoutPyTorch": (4,),
    "ImageResizePyTorch": (6, 5),
    "MixupPyTorch": (10,),
    "Mp3CompressionPyTorch": (16000,),
}


def one_class(name):
    """The class that a name stands for."""
    return getattr(
        preshield, name.replace("PyTorch", "").replace("TensorFlowV2", "").replace("TensorFlow", "")
    )


@pytest.mark.parametrize("name", ALIASES)
def test_a_name_without_other_arguments_is_the_class(name):
    assert getattr(preshield, name) is one_class(name)


@pytest.mark.parametrize("name", NAMES)
def test_objects_are_those_of_the_one_class(name):
    variant, cls = getattr(preshield, name), one_class(name)
    defence = variant(*REQUIRED.get(name, ()))
    assert type(defence) is cls
    assert isinstance(defence, variant)
    assert isinstance(cls(*REQUIRED.get(name, ())), variant)
    assert not isinstance(preshield.TotalVarMin(), variant)
    assert issubclass(variant, preshield.Preprocessor)
    assert issubclass(cls, variant)
    assert not issubclass(preshield.TotalVarMin, variant)
    assert repr(defence).startswith(f"{cls.__name__}(")
    for twin in (pickle.loads(pickle.dumps(defence)), copy.deepcopy(defence)):
        assert type(twin) is cls
        assert repr(twin) == repr(defence)
    assert pickle.loads(pickle.dumps(variant)) is variant
    assert get_args(variant | None)[0] is variant  # in annotations
    assert defence.get_params().keys() == set(cls.params)
    assert "device_type" not in cls.params


@pytest.mark.parametrize("name", NAMES)
def test_a_clone_is_one_of_the_one_class(name):
    base = pytest.importorskip("sklearn.base")
    defence = getattr(preshield, name)(*REQUIRED.get(name, ()))
    assert type(base.clone(defence)) is one_class(name)
    assert repr(base.clone(defence)) == repr(defence)


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_of_the_one_class_is_accepted(name):
    accepted = signature(getattr(preshield, name)).parameters
    assert set(signature(one_class(name)).parameters) <= set(accepted)
    assert all(
        accepted[key].kind is Parameter.KEYWORD_ONLY
        for key in accepted
        if key not in getattr(preshield, name).positional
    )


DEVICES = {
    "CutMixPyTorch": ((10, 0.3, 0.7, True, False, True, "cpu", True), {"verbose": True, "alpha": 0.3}),
    "CutoutPyTorch": ((4, True, False, True, "cpu", True), {"verbose": True, "apply_predict": True}),
    "LFilterPyTorch": (([0.5], [1.0], (0, 1), True, False, True, "cpu"), {"verbose": True, "axis": -1}),
    "MixupPyTorch": ((10, 0.3, 3, True, True, "cpu"), {"num_mix": 3, "apply_predict": True}),
    "Mp3CompressionPyTorch": ((16000, True, True, True, "cpu", True), {"verbose": True}),
    "SpatialSmoothingPyTorch": ((5, True, (0, 1), True, True, "cpu"), {"window_size": 5, "apply_fit": True}),
    "StandardisationMeanStdPyTorch": ((0.5, 0.2, True, False, "cpu"), {"std": 0.2, "apply_predict": False}),
}


@pytest.mark.parametrize("name", DEVICES)
def test_arts_device_is_ignored_with_a_warning(name):
    args, expected = DEVICES[name]
    with pytest.warns(
        UserWarning, match="`device_type` is ignored, got 'cpu': .* device of the tensors"
    ) as seen:
        defence = getattr(preshield, name)(*args)
    assert seen[0].filename == __file__
    params = defence.get_params()
    assert {key: params[key] for key in expected} == expected


@pytest.mark.parametrize("name", [*DEVICES, "VideoCompressionPyTorch"])
def test_the_one_class_accepts_the_keyword_too(name):
    """Scripts that wrote the shorter name in the place of the longer one keep it."""
    args = REQUIRED.get(name, ())
    kwargs = {"video_format": "mp4"} if "Video" in name else {}
    with pytest.warns(UserWarning, match="`device_type` is ignored, got 'gpu'") as seen:
        defence = one_class(name)(*args, **kwargs, device_type="gpu")
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repr(defence) == repr(one_class(name)(*args, **kwargs))
        assert repr(copy.copy(defence).set_params(apply_fit=defence.apply_fit)) == repr(defence)


@pytest.mark.parametrize("name", ["ImageResizePyTorch", "ImageSquarePadPyTorch"])
def test_channels_come_first_by_default_as_in_arts_variant(name):
    variant = getattr(preshield, name)
    assert variant(*REQUIRED.get(name, ())).channels_first is True
    assert variant(*REQUIRED.get(name, ()), channels_first=False).channels_first is False
    x = np.zeros((1, 3, 4, 6))
    shape = {"ImageResizePyTorch": (1, 3, 6, 5), "ImageSquarePadPyTorch": (1, 3, 6, 6)}[name]
    assert variant(*REQUIRED.get(name, ())).transform(x).shape == shape


def test_wrong_arguments_are_refused_as_ever():
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        preshield.CutoutPyTorch(4, size=3)
    with pytest.raises(TypeError, match="missing a required argument: 'length'"):
        preshield.CutoutPyTorch()
    with pytest.raises(ValueError, match="`length` must be at least 1, got 0"):
        preshield.CutoutPyTorch(0)


def test_a_class_derived_from_a_name_is_derived_from_the_one_class():
    class Mine(preshield.SpatialSmoothingPyTorch):
        def __init__(self, window_size=3):
            super().__init__(window_size, device_type="cpu")

    with pytest.warns(UserWarning, match="`device_type` is ignored"):
        mine = Mine(5)
    assert type(mine) is Mine
    assert not isinstance(mine, Variant)
    assert Mine.__bases__ == (preshield.SpatialSmoothing,)
    assert isinstance(mine, preshield.SpatialSmoothingPyTorch)
    assert not isinstance(preshield.SpatialSmoothing(), Mine)
    assert mine.get_params() == {"window_size": 5}


def test_a_name_is_listed_once():
    names = [row.name for row in preshield.list_defences()]
    assert len(names) == len(set(names))
    assert not set(names) & set(variants.__all__)


def test_a_users_own_device_type_is_a_parameter():
    class Mine(preshield.Preprocessor):
        def __init__(self, device_type="gpu"):
            self.device_type = device_type

    assert Mine("cpu").get_params() == {"device_type": "cpu"}
