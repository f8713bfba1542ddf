"""ART's names for torch and TensorFlow: each is one more name of the class that takes every tensor.

Where ART's variant takes its arguments in the same order, the name is the class itself.
"""

from typing import Any, ClassVar

from ._core.variant import Variant
from .defences.cut_mix import CutMix
from .defences.cutout import Cutout
from .defences.image_resize import ImageResize
from .defences.image_square_pad import ImageSquarePad
from .defences.lfilter import LFilter
from .defences.mixup import Mixup
from .defences.mp3_compression import Mp3Compression
from .defences.spatial_smoothing import SpatialSmoothing
from .defences.standardisation_mean_std import StandardisationMeanStd
from .defences.video_compression import VideoCompression

__all__ = [
    "CutMixPyTorch",
    "CutMixTensorFlowV2",
    "CutoutPyTorch",
    "CutoutTensorFlowV2",
    "ImageResizePyTorch",
    "ImageResizeTensorFlowV2",
    "ImageSquarePadPyTorch",
    "ImageSquarePadTensorFlowV2",
    "LFilterPyTorch",
    "MixupPyTorch",
    "MixupTensorFlowV2",
    "Mp3CompressionPyTorch",
    "Mp3CompressionTensorFlowV2",
    "SpatialSmoothingPyTorch",
    "SpatialSmoothingTensorFlowV2",
    "StandardisationMeanStdPyTorch",
    "StandardisationMeanStdTensorFlow",
    "VideoCompressionPyTorch",
]

CutMixTensorFlowV2 = CutMix
CutoutTensorFlowV2 = Cutout
ImageResizeTensorFlowV2 = ImageResize
ImageSquarePadTensorFlowV2 = ImageSquarePad
MixupTensorFlowV2 = Mixup
Mp3CompressionTensorFlowV2 = Mp3Compression
SpatialSmoothingTensorFlowV2 = SpatialSmoothing
StandardisationMeanStdTensorFlow = StandardisationMeanStd
VideoCompressionPyTorch = VideoCompression  # all arguments are keywords


class CutMixPyTorch(CutMix, metaclass=Variant):
    """`CutMix`: `device_type` stands before `verbose`."""

    positional = (
        *("num_classes", "alpha", "probability", "channels_first"),
        *("apply_fit", "apply_predict", "device_type", "verbose"),
    )


class CutoutPyTorch(Cutout, metaclass=Variant):
    """`Cutout`: `device_type` stands before `verbose`."""

    positional = ("length", "channels_first", "apply_fit", "apply_predict", "device_type", "verbose")


class ImageResizePyTorch(ImageResize, metaclass=Variant):
    """`ImageResize`: channels come first by default."""

    positional = (
        *("height", "width", "channels_first", "label_type", "interpolation", "clip_values"),
        *("apply_fit", "apply_predict", "verbose"),
    )
    defaults: ClassVar[dict[str, Any]] = {"channels_first": True}


class ImageSquarePadPyTorch(ImageSquarePad, metaclass=Variant):
    """`ImageSquarePad`: channels come first by default."""

    positional = (
        *("channels_first", "label_type", "pad_mode", "pad_kwargs", "clip_values"),
        *("apply_fit", "apply_predict", "verbose"),
    )
    defaults: ClassVar[dict[str, Any]] = {"channels_first": True}


class LFilterPyTorch(LFilter, metaclass=Variant):
    """`LFilter`: `axis` and `initial_cond` are keywords, and `device_type` comes last."""

    positional = (
        *("numerator_coef", "denominator_coef", "clip_values", "apply_fit", "apply_predict", "verbose"),
        "device_type",
    )


class MixupPyTorch(Mixup, metaclass=Variant):
    """`Mixup`: `device_type` comes last."""

    positional = ("num_classes", "alpha", "num_mix", "apply_fit", "apply_predict", "device_type")


class Mp3CompressionPyTorch(Mp3Compression, metaclass=Variant):
    """`Mp3Compression`: `device_type` stands before `verbose`."""

    positional = ("sample_rate", "channels_first", "apply_fit", "apply_predict", "device_type", "verbose")


class SpatialSmoothingPyTorch(SpatialSmoothing, metaclass=Variant):
    """`SpatialSmoothing`: `device_type` comes last."""

    positional = (
        *("window_size", "channels_first", "clip_values", "apply_fit", "apply_predict"),
        "device_type",
    )


class StandardisationMeanStdPyTorch(StandardisationMeanStd, metaclass=Variant):
    """`StandardisationMeanStd`: `device_type` comes last."""

    positional = ("mean", "std", "apply_fit", "apply_predict", "device_type")
