"""Every defence, once: the contract runs over all of its cases."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from preshield import (
    BandPass,
    BarrageOfTransforms,
    BlurNet,
    Chain,
    CropRescale,
    CutMix,
    Cutout,
    DefenseGAN,
    DiffusionPurification,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    ImageQuilting,
    ImageResize,
    ImageSquarePad,
    InverseGAN,
    JpegCompression,
    LabelSmoothing,
    LFilter,
    MedianSmoothing,
    Mixup,
    Mp3Compression,
    PixelDefend,
    PixelDeflection,
    Preprocessor,
    RandomApply,
    RandomResizePad,
    Resample,
    Shield,
    SpatialSmoothing,
    StandardisationMeanStd,
    ThermometerEncoding,
    TotalVarMin,
    VideoCompression,
    WaveletDenoising,
)

__all__ = ["ALL", "CASES", "Case", "audio", "features", "images", "videos"]


def images(channels: int = 3, *, channels_first: bool = False, scale: float = 1) -> np.ndarray:
    """Three images of 6 x 5 pixels in [0, scale], the ends of the range and ties among their values."""
    x = np.random.default_rng(0).random((3, 6, 5, channels), dtype=np.float32)
    x = np.round(x, 2)
    x[0, 0, 0], x[0, 0, 1] = 0, 1
    return np.ascontiguousarray(np.moveaxis(x, -1, 1) if channels_first else x) * np.float32(scale)


def videos(channels: int = 3, *, channels_first: bool = False, scale: float = 1) -> np.ndarray:
    """Two videos of 3 frames of 6 x 5 pixels in [0, scale]."""
    x = np.random.default_rng(1).random((2, 3, 6, 5, channels))
    return np.ascontiguousarray(np.moveaxis(x, -1, 1) if channels_first else x) * scale


def audio(*channels: int, channels_first: bool = False, scale: float = 1) -> np.ndarray:
    """Three recordings of 700 values: tones in noise within [-scale, scale]."""
    rng = np.random.default_rng(3)
    tones = np.sin(np.arange(700) * np.array([[0.05], [0.1], [0.3]]))
    x = 0.7 * tones.reshape(3, 700, *[1 for _ in channels]) + rng.uniform(-0.3, 0.3, (3, 700, *channels))
    return np.ascontiguousarray(np.moveaxis(x, -1, 1) if channels_first else x) * scale


def features() -> np.ndarray:
    """Four samples with seven features in [0, 1]."""
    return np.random.default_rng(2).random((4, 7))


def brightness(x: np.ndarray) -> np.ndarray:
    """An activation map of images or videos with the channels last, for lack of a model."""
    return x.mean(axis=-1) / 255


def near_the_left(x: np.ndarray) -> np.ndarray:
    """Logits of the levels of images with the channels last: the nearer to the left neighbour, the higher."""
    left = np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
    return -np.abs(255 * left[..., None] - np.arange(256))


def near_the_one_before(x: np.ndarray) -> np.ndarray:
    """Logits of the levels of feature vectors: the nearer to the feature before, the higher."""
    before = np.pad(x, ((0, 0), (1, 0)))[:, :-1]
    return -np.abs(255 * before[..., None] - np.arange(256))


def near_the_left_channels_first(x: np.ndarray) -> np.ndarray:
    """The same for images with the channels first, as one row for each image."""
    scores = near_the_left(np.moveaxis(x, 1, -1))
    return np.moveaxis(scores, 3, 1).reshape(len(x), -1)


def generator(*shape: int) -> torch.nn.Module:
    """Images of a shape as a linear function of two latents."""
    rng = np.random.default_rng(4)
    layer = torch.nn.Linear(2, int(np.prod(shape)))
    layer.weight.data = torch.tensor(rng.normal(size=layer.weight.shape), dtype=torch.float32)
    layer.bias.data = torch.full_like(layer.bias, 0.5)
    return torch.nn.Sequential(layer, torch.nn.Unflatten(1, shape))


def top_left(x: np.ndarray) -> np.ndarray:
    """Two numbers for each image, for lack of an encoder."""
    return x.reshape(len(x), -1)[:, :2]


class Mixing(torch.nn.Module):
    """The noise in images `(N, C, H, W)` as a function of their channels, for lack of a denoiser."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.3 * x + 0.2 * torch.sin(x.flip(1) + t[:, None, None, None])


@dataclass(frozen=True)
class Case:
    """A defence with some parameters, and a batch that it accepts."""

    defence: type[Preprocessor]
    name: str
    parameters: dict[str, Any]
    sample: np.ndarray

    def make(self) -> Preprocessor:
        return self.defence(**copy.deepcopy(self.parameters))

    def __str__(self) -> str:
        return f"{self.defence.__name__}-{self.name}"


CASES: dict[type[Preprocessor], dict[str, tuple[dict[str, Any], np.ndarray]]] = {
    BandPass: {
        "band": ({"sample_rate": 16000, "low": 300, "high": 3400}, audio()),
        "high-pass": (
            {"sample_rate": 8000, "low": 500.5, "order": 2, "channels_first": True},
            audio(2, channels_first=True),
        ),
    },
    BarrageOfTransforms: {
        "images": ({"defences": [Cutout(2), GaussianBlur(3)], "count": (1, 2)}, images()),
    },
    BlurNet: {
        "box": ({}, images()),
        "gaussian": (
            {"kernel_size": 7, "kernel": "gaussian", "channels_first": True},
            videos(channels_first=True),
        ),
    },
    CropRescale: {
        "images": ({}, images()),
        "nearest": (
            {"crop_size": (4, 3), "channels_first": True, "interpolation": "nearest", "rng": 3},
            images(2, channels_first=True, scale=255),
        ),
    },
    CutMix: {
        "images": ({"num_classes": 3, "probability": 1.0}, images()),
        "videos": (
            {"num_classes": 3, "alpha": 0.5, "probability": 0.7, "channels_first": True, "rng": 3},
            videos(2, channels_first=True, scale=255),
        ),
    },
    Cutout: {
        "images": ({"length": 3}, images()),
        "videos": ({"length": 2, "channels_first": True, "rng": 3}, videos(channels_first=True)),
    },
    DefenseGAN: {
        "images": ({"gan": generator(6, 5, 3), "restarts": 2, "max_iter": 5}, images()),
        "other layout": (
            {
                "gan": generator(6, 5, 2),
                "restarts": 1,
                "max_iter": 5,
                "optimiser": "adam",
                "rng": 3,
                "batch_size": 2,
                "clip_values": (0, 1),
                "channels_first": True,
            },
            images(2, channels_first=True),
        ),
    },
    DiffusionPurification: {
        "images": (
            {
                "clip_values": (np.array([-1, -2]), np.array([2, 3])),
                "model": Mixing(),
                "t_star": 0.3,
                "schedule": np.linspace(0.99, 0.5, 10),
                "batch_size": 2,
                "channels_first": True,
            },
            images(2, channels_first=True),
        ),
    },
    FeatureSqueezing: {
        "images": ({"clip_values": (0, 1), "bit_depth": 3}, images()),
        "soft": ({"clip_values": (-1, 2), "bit_depth": 2, "gradient": "soft"}, features()),
        "per channel": ({"clip_values": (np.zeros(3), np.array([1, 2, 3])), "bit_depth": 4}, videos()),
    },
    GaussianAugmentation: {
        "augment": ({"sigma": 0.1, "ratio": 0.7}, images()),
        "replace": (
            {"sigma": 0.1, "augmentation": False, "clip_values": (0, 1), "rng": 3, "apply_predict": True},
            features(),
        ),
    },
    GaussianBlur: {
        "images": ({}, images(2)),
        "channels first": (
            {"kernel_size": 3, "sigma": 0.7, "channels_first": True},
            images(channels_first=True, scale=255),
        ),
        "videos": ({"kernel_size": 13, "sigma": 4}, videos()),
    },
    ImageQuilting: {
        "images": (
            {
                "clip_values": (0, 1),
                "patch_size": 3,
                "overlap": 1,
                "patches": np.random.default_rng(6).random((20, 3, 3, 3)),
            },
            images(),
        ),
        "patches": (
            {
                "clip_values": (0, 255),
                "patch_size": 2,
                "overlap": 1,
                "neighbours": 3,
                "channels_first": True,
                "patches": 255 * np.random.default_rng(5).random((20, 2, 2, 2)),
                "rng": 3,
            },
            images(2, channels_first=True, scale=255),
        ),
    },
    ImageResize: {
        "larger": ({"height": 9, "width": 8}, images()),
        "smaller": (
            {
                "height": 4,
                "width": 3,
                "channels_first": True,
                "interpolation": "bicubic",
                "clip_values": (0.2, 0.8),
            },
            images(2, channels_first=True),
        ),
        "area": ({"height": 4, "width": 7, "interpolation": "area"}, images(1, scale=255)),
    },
    ImageSquarePad: {
        "constant": ({"pad_kwargs": {"constant_values": 0.5}}, images()),
        "reflect": (
            {"channels_first": True, "pad_mode": "REFLECT", "clip_values": (0.2, 0.8)},
            images(2, channels_first=True),
        ),
        "median": ({"pad_mode": "median", "pad_kwargs": {"stat_length": 4}}, images(1, scale=255)),
    },
    InverseGAN: {
        "images": ({"gan": generator(6, 5, 3), "apply_predict": True, "max_iter": 5}, images()),
        "encoder": (
            {
                "gan": generator(6, 5, 1),
                "inverse_gan": top_left,
                "apply_predict": True,
                "restarts": 2,
                "max_iter": 5,
                "clip_values": (0.2, 0.8),
            },
            images(1),
        ),
    },
    JpegCompression: {
        "colour": ({"clip_values": (0, 1)}, images()),
        "grey": (
            {"clip_values": (0, 1), "quality": 80, "channels_first": True},
            images(1, channels_first=True),
        ),
        "videos": (
            {"clip_values": (0, 255), "channels_first": True},
            videos(2, channels_first=True, scale=255),
        ),
        "straight-through": (
            {"clip_values": (0, 1), "subsampling": "4:2:2", "gradient": "straight-through"},
            images(),
        ),
        "soft": ({"clip_values": (0, 1), "subsampling": "4:4:4", "gradient": "soft"}, images()),
    },
    LFilter: {
        "finite": ({"numerator_coef": np.array([0.5, 0.3, -0.2])}, audio()),
        "infinite": (
            {
                "numerator_coef": [0.2, 0.1],
                "denominator_coef": [2.0, -1.0, 0.5],
                "axis": 0,
                "initial_cond": [0.3, -0.1],
                "clip_values": (-0.13, 0.13),
            },
            audio(2),
        ),
    },
    LabelSmoothing: {
        "one-hot": ({}, images()),
        "classes": ({"max_value": 0.6, "num_classes": 3}, features()),
    },
    MedianSmoothing: {
        "16 bits": ({"window_size": 5}, np.rint(audio(2, scale=99)).astype(np.int16)),
        "exact": (
            {"window_size": 6, "channels_first": True, "gradient": "exact"},
            audio(2, channels_first=True),
        ),
    },
    Mixup: {
        "two": ({"num_classes": 3}, images()),
        "three": ({"num_classes": 3, "alpha": 0.4, "num_mix": 3, "rng": 3}, features()),
    },
    Mp3Compression: {
        "mono": ({"sample_rate": 16000}, audio()),
        "stereo": (
            {"sample_rate": 44100, "channels_first": True, "bit_rate": 64000, "full_scale": 1.0},
            audio(2, channels_first=True),
        ),
        "16 bits": ({"sample_rate": 8000}, np.rint(audio(1, scale=32767)).astype(np.int16)),
    },
    PixelDefend: {
        "sequential": ({"pixel_cnn": near_the_left}, images()),
        "features": ({"pixel_cnn": near_the_one_before, "clip_values": (0, 2)}, 2 * features()),
        "one-pass": (
            {
                "clip_values": (0, 255),
                "eps": 40,
                "pixel_cnn": near_the_left_channels_first,
                "batch_size": 2,
                "decoding": "one-pass",
                "channels_first": True,
            },
            images(1, channels_first=True, scale=255),
        ),
    },
    PixelDeflection: {
        "images": ({"clip_values": (0, 1), "deflections": 5, "window": 2}, images()),
        "exact": (
            {
                "clip_values": (0, 2),
                "deflections": 0.7,
                "channels_first": True,
                "activation_map": np.linspace(0, 1, 30).reshape(6, 5),
                "denoiser": None,
                "gradient": "exact",
            },
            images(2, channels_first=True, scale=2),
        ),
        "videos": (
            {"clip_values": (0, 255), "activation_map": brightness, "denoiser": "tv", "rng": 3},
            videos(scale=255),
        ),
    },
    RandomApply: {
        "images": ({"defences": Cutout(3)}, images()),
        "several": (
            {
                "defences": [JpegCompression((0, 1), gradient="soft"), FeatureSqueezing((0, 1), 2)],
                "probability": 0.7,
                "random_order": True,
                "rng": 3,
            },
            videos(2),
        ),
    },
    RandomResizePad: {
        "images": ({}, images()),
        "bilinear": (
            {
                "min_size": (4, 3),
                "max_size": (9, 7),
                "channels_first": True,
                "interpolation": "bilinear",
                "rng": 3,
            },
            images(2, channels_first=True, scale=255),
        ),
    },
    Resample: {
        "down": ({"sr_original": 16000, "sr_new": 8000}, audio()),
        "up": (
            {"sr_original": 16000, "sr_new": 22050, "channels_first": True, "filter": "kaiser_fast"},
            audio(2, channels_first=True),
        ),
        "there and back": (
            {"sr_original": 44100, "sr_new": 44101, "filter": "kaiser_best", "restore": True},
            np.rint(audio(1, scale=32767)).astype(np.int16),
        ),
    },
    Shield: {
        "images": ({"clip_values": (0, 1)}, images()),
        "videos": (
            {"clip_values": (0, 255), "qualities": (10, 90), "channels_first": True, "rng": 3},
            videos(2, channels_first=True, scale=255),
        ),
        "soft": ({"clip_values": (0, 1), "subsampling": "4:4:4", "gradient": "soft"}, images()),
    },
    SpatialSmoothing: {
        "images": ({}, images()),
        "exact": (
            {"window_size": 2, "channels_first": True, "clip_values": (0.2, 0.9), "gradient": "exact"},
            images(2, channels_first=True),
        ),
        "videos": ({"window_size": 5, "gradient": "exact"}, videos()),
        "frames first": (
            {"gradient": "exact", "layout": "NFCHW"},
            np.ascontiguousarray(np.moveaxis(videos(), -1, 2)),
        ),
    },
    StandardisationMeanStd: {
        "number": ({"mean": 0.4, "std": 0.3}, features()),
        "channels": (
            {"mean": np.array([0.4, 0.5, 0.3]), "std": [0.2, 0.3, 0.4]},
            images(channels_first=True),
        ),
    },
    ThermometerEncoding: {
        "images": ({"clip_values": (0, 1), "num_space": 4}, images()),
        "videos": ({"clip_values": (0, 2), "channels_first": True}, videos(channels_first=True)),
        "identity": ({"clip_values": (-1, 1), "num_space": 3, "gradient": "identity"}, features()),
        "soft": ({"clip_values": (-1, 1), "num_space": 3, "gradient": "soft"}, features()),
    },
    TotalVarMin: {
        "images": ({"max_iter": 3}, images()),
        "generator": (
            {
                "solver": "CG",
                "norm": 1,
                "max_iter": 3,
                "rng": np.random.default_rng(5),
                "clip_values": (0, 1),
            },
            videos(1),
        ),
        "blur": ({"max_iter": 2, "gradient": "blur"}, videos(2)),
        "Newton": (
            {"solver": "Newton-CG", "max_iter": 2, "channels_first": True},
            images(channels_first=True),
        ),
    },
    VideoCompression: {
        "in [0, 1]": ({"video_format": "mp4"}, videos()),
        "bright and dark": ({"video_format": "mp4"}, videos() * np.array([1, 255]).reshape(2, 1, 1, 1, 1)),
        "in [0, 255]": (
            {
                "video_format": "avi",
                "constant_rate_factor": 20,
                "channels_first": True,
                "clip_values": (0, 255),
                "preset": "fast",
            },
            videos(channels_first=True, scale=255),
        ),
        "soft": ({"video_format": "mp4", "constant_rate_factor": 40, "gradient": "soft"}, videos()),
        "frames first": (
            {"video_format": "mp4", "layout": "NFCHW"},
            np.ascontiguousarray(np.moveaxis(videos(), -1, 2)),
        ),
    },
    WaveletDenoising: {
        "images": ({"clip_values": (0, 1)}, images()),
        "channels first": (
            {"clip_values": (0, 255), "sigma": 0.2, "channels_first": True},
            images(2, channels_first=True, scale=255),
        ),
        "per channel": ({"clip_values": (np.zeros(3), np.array([1, 2, 3])), "sigma": 0.1}, videos()),
        "frames first": (
            {"clip_values": (-1, 1), "layout": "NFCHW"},
            np.ascontiguousarray(np.moveaxis(videos(), -1, 2)),
        ),
    },
    Chain: {
        "gradients": (
            {"defences": [SpatialSmoothing(gradient="exact"), FeatureSqueezing((0, 1), 2, gradient="soft")]},
            images(),
        ),
        "shapes, labels and draws": (
            {
                "defences": [
                    GaussianAugmentation(0.1, ratio=0.5, clip_values=(0, 1)),
                    LabelSmoothing(),
                    Chain((JpegCompression((0, 1)), GaussianAugmentation(0.1, False))),
                    ThermometerEncoding((0, 1), 3),
                ],
                "apply_fit": True,
            },
            images(),
        ),
        "labels": ({"defences": (LabelSmoothing(), LabelSmoothing(0.8))}, features()),
        "recordings": (
            {"defences": [Resample(16000, 8000), Mp3Compression(8000, full_scale=1), Resample(8000, 16000)]},
            audio(2),
        ),
    },
}

ALL = [Case(defence, name, *case) for defence, cases in CASES.items() for name, case in cases.items()]
