"""Define every hyper-parameter of the method and of its training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from lib.data.augmentation import Augmentation

Preset = Literal["auto", "gpu", "cpu", "paper"]
Method = Literal["app", "paper"]


def _parse_size(value: object) -> object:
    size = value.lower().split("x") if isinstance(value, str) else value
    if not isinstance(size, (list, tuple)) or len(size) != 3:
        raise ValueError("expected three sizes in voxels, such as 96x96x32")
    return tuple(size)


_Length = Annotated[int, Field(ge=8, le=1024)]

# Viewers show a list in /info/ as a choice, so a size is sent as one word: 224x224x48.
Size = Annotated[
    tuple[_Length, _Length, _Length],
    BeforeValidator(_parse_size),
    PlainSerializer(lambda size: "x".join(map(str, size)), return_type=str),
]


def _parse_arguments(value: object) -> object:
    try:
        arguments = json.loads(value) if isinstance(value, str) else value
        text = json.dumps(arguments, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        arguments, text = None, ""
    if not isinstance(arguments, dict):
        raise ValueError('expected a JSON object, such as {"channels": [16, 32, 64], "strides": [2, 2]}')
    if "/" in text or "\\\\" in text or "pretrained" in text:
        raise ValueError("expected numbers and names, and neither files, addresses nor pretrained weights")
    return arguments


# Viewers do not show an object in /info/, so arguments are sent as text.
Arguments = Annotated[dict[str, Any], BeforeValidator(_parse_arguments), PlainSerializer(json.dumps, return_type=str)]


class Hyperparameters(BaseModel):
    """Hyper-parameters with the defaults of the paper (Sections 3 and 4).

    Lengths are in voxels of the network's grid, in mm if the name says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Method = Field("paper", description="paper: its objective; app: the one that did best on real scans")
    min_spacing_mm: float = Field(0.0, ge=0, description="scans of finer voxels are resampled to this spacing")
    patch_context: float = Field(
        0.0, ge=0, le=10, description="a patch reaches over so many times a large structure; 0: the scans' own grid"
    )
    roi_size: Size = Field((224, 224, 48), description="voxels of a patch")
    train_batch_size: int = Field(6, ge=1, le=256, description="patches of an iteration")
    iterations: int = Field(9000, ge=1, le=10_000_000, description="iterations of a training run")
    max_minutes: float = Field(0.0, ge=0, description="minutes of a training run, at most; 0: no limit")
    held_out_share: float = Field(
        0.2, ge=0, lt=1, description="share of annotated scans that a new model is compared on, not trained on"
    )
    annotated_fraction: float = Field(0.66, ge=0, le=1, description="share of patches placed on an annotated structure")
    augmentation: Augmentation = Field("flip", description="none, flip, full: turned, scaled, other contrast")
    network: str = Field("UNet2d5", description="the paper's 2.5D U-Net, or a class of monai.networks.nets")
    network_arguments: Arguments = Field({}, description="arguments of a network of MONAI, as a JSON object")
    base_channels: int = Field(16, ge=2, le=256, description="channels of UNet2d5's first stage, doubled at each")
    levels: int = Field(5, ge=2, le=6, description="stages of UNet2d5")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd, with Nesterov momentum, or adamw")
    learning_rate: float = Field(0.01, gt=0, le=10, description="initial learning rate")
    momentum: float = Field(0.99, ge=0, lt=1, description="Nesterov momentum of SGD")
    weight_decay: float = Field(3e-5, ge=0, description="weight decay")
    poly_power: float = Field(0.9, gt=0, description="power of the poly learning rate schedule")
    warm_up_iterations: int = Field(0, ge=0, le=100_000, description="over which the learning rate rises from 0")
    gradient_clip: float = Field(0.0, ge=0, description="largest norm of the gradient; 0: no limit")
    mixed_precision: bool = Field(True, description="16-bit arithmetic, where the GPU or the processor has it")
    box_margin: int = Field(4, ge=0, le=1000, description="voxels by which the tight box is relaxed (r)")
    geodesic: Literal["none", "gradient", "gradient_euclidean", "deep"] = Field(
        "deep", description="row of the paper's Table 1; none: the clicks alone are foreground"
    )
    focal_weight: float = Field(1.0, ge=0, description="weight of the class-balanced focal loss beside Dice and CE")
    click_mask_weight: float = Field(0.0, ge=0, description="weight of the loss with the masks of the clicks")
    crf_weight: float = Field(1e-4, ge=0, description="weight of the CRF regularised loss (lambda)")
    sigma_alpha: float = Field(15.0, gt=0, description="spatial bandwidth of the CRF term, voxels")
    sigma_beta: float = Field(0.05, gt=0, description="intensity bandwidth of the CRF term, standard deviations")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of initialisation and sampling; each run draws anew")

    @classmethod
    def of_preset(cls, preset: Preset, method: Method | None = None) -> Hyperparameters:
        """Return the values of a preset.

        Args:
            preset: `gpu` takes at most ten minutes, `cpu` at most five on one core; `auto` is `gpu` if the machine has
                one, else `cpu`; `paper` reproduces the paper's training.
            method: by default `paper` for the preset `paper`, else `app`.
        """
        if preset == "auto":
            preset = "gpu" if torch.cuda.is_available() else "cpu"
        method = method or ("paper" if preset == "paper" else "app")
        return cls(**{**_PRESETS[preset], **_METHODS[method], "method": method})

    def changed(self, changes: Mapping[str, Any]) -> Hyperparameters:
        """Return a copy with values changed, from text or numbers; another `method` sets its own values too.

        Raises:
            pydantic.ValidationError: a value is out of its range.
        """
        method = changes.get("method", self.method)
        of_method = _METHODS.get(str(method), {}) if method != self.method else {}
        return type(self)(**{**dict(self), **of_method, **changes})


_RECIPE: dict[str, Any] = {
    "augmentation": "full",
    "optimizer": "adamw",
    "learning_rate": 3e-3,
    "weight_decay": 0.05,
    "warm_up_iterations": 30,
    "gradient_clip": 5.0,
}

_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "gpu": {
        **_RECIPE,
        "patch_context": 1.25,
        "roi_size": (128, 128, 48),
        "train_batch_size": 4,
        "iterations": 5000,
        "max_minutes": 10.0,
    },
    "cpu": {
        **_RECIPE,
        "min_spacing_mm": 1.0,
        "patch_context": 1.25,
        "roi_size": (48, 48, 48),
        "train_batch_size": 2,
        "iterations": 1000,
        "max_minutes": 5.0,
        "base_channels": 12,
        "levels": 4,
        "box_margin": 2,
    },
}

_METHODS: dict[str, dict[str, Any]] = {
    "paper": {"focal_weight": 1.0, "click_mask_weight": 0.0, "crf_weight": 1e-4},
    "app": {"focal_weight": 1.0, "click_mask_weight": 0.5, "crf_weight": 1e-4},
}


def first_error(error: ValidationError) -> str:
    """Describe the first error in one sentence: name, value, expectation."""
    first = error.errors()[0]
    name = first["loc"][0] if first["loc"] else "value"
    return f"{name}: {repr(first['input'])[:80]} cannot be used; {first['msg'].removeprefix('Value error, ')}."
