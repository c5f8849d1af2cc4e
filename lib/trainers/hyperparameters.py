"""Every hyper-parameter of the method and its training, in one place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from lib.data.augmentation import Augmentation

Preset = Literal["auto", "paper", "cpu"]


def _parse_size(value: object) -> object:
    size = value.lower().split("x") if isinstance(value, str) else value
    if not isinstance(size, (list, tuple)) or len(size) != 3:
        raise ValueError("expected three sizes in voxels, such as 96x96x32")
    return tuple(size)


_Length = Annotated[int, Field(ge=8, le=1024)]

# A list in /info/ is shown as a choice by viewers, so a size travels as one word: 224x224x48.
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


# Text in /info/, for viewers do not show an object.
Arguments = Annotated[dict[str, Any], BeforeValidator(_parse_arguments), PlainSerializer(json.dumps, return_type=str)]


class Hyperparameters(BaseModel):
    """Defaults are the paper's (Section 4); what the paper does not say has a comment.

    Lengths are in voxels of the network's grid unless the name says mm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_spacing_mm: float = Field(0.0, ge=0, description="scans of finer voxels are resampled to this spacing")
    roi_size: Size = Field((224, 224, 48), description="voxels of a patch")
    train_batch_size: int = Field(6, ge=1, le=256, description="patches of an iteration")
    iterations_per_epoch: int = Field(30, ge=1, le=100_000, description="iterations of an epoch")
    max_epochs: int = Field(300, ge=1, le=100_000, description="epochs of a training run")
    max_minutes: float = Field(0.0, ge=0, description="minutes of a training run, at most; 0: no limit")
    held_out_share: float = Field(
        0.2, ge=0, lt=1, description="share of annotated scans that a new model is compared on, not trained on"
    )
    publish_tolerance: float = Field(
        0.01, ge=0, le=1, description="by which a new model's agreement may be below the published one's"
    )
    annotated_fraction: float = Field(0.66, ge=0, le=1, description="share of patches placed on an annotated structure")
    augmentation: Augmentation = Field("flip", description="none, flip, or full: turned, bent, other contrast")
    network: str = Field("UNet2d5", description="the paper's 2.5D U-Net, or a class of monai.networks.nets")
    network_arguments: Arguments = Field({}, description="arguments of a network of MONAI, as a JSON object")
    base_channels: int = Field(16, ge=2, le=256, description="channels of UNet2d5's first stage, doubled at each")
    levels: int = Field(5, ge=2, le=6, description="stages of UNet2d5")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd, with Nesterov momentum, or adamw")
    learning_rate: float = Field(0.01, gt=0, le=10, description="initial learning rate")
    momentum: float = Field(0.99, ge=0, lt=1, description="Nesterov momentum of SGD")
    weight_decay: float = Field(3e-5, ge=0, description="weight decay")
    poly_power: float = Field(0.9, gt=0, description="power of the poly learning rate schedule")
    box_margin: int = Field(4, ge=0, le=1000, description="voxels by which the tight box is relaxed (r)")
    geodesic: Literal["none", "gradient", "gradient_euclidean", "deep"] = Field(
        "deep", description="row of the paper's Table 1; none: the clicks alone are foreground"
    )
    geodesic_band: int = Field(0, ge=0, le=1000, description="voxels around geodesics that are foreground too")
    deep_start_epoch: int = Field(
        0, ge=0, description="epochs before the network guides geodesics, when it starts untrained"
    )
    focal_weight: float = Field(1.0, ge=0, description="weight of the class-balanced focal loss beside Dice and CE")
    focal_schedule: Literal["constant", "linear"] = Field(
        "constant", description="of the focal weight; linear: it falls to 0 over a training run"
    )
    crf_weight: float = Field(1e-4, ge=0, description="weight of the CRF regularised loss (lambda)")
    sigma_alpha: float = Field(15.0, gt=0, description="spatial bandwidth of the CRF term, voxels")
    sigma_beta: float = Field(0.05, gt=0, description="intensity bandwidth of the CRF term, standard deviations")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of initialisation and sampling; each run draws anew")

    @classmethod
    def of_preset(cls, preset: Preset) -> Hyperparameters:
        """`cpu` is small enough to train within minutes on two cores; `auto` takes it where there is no GPU."""
        if preset == "auto":
            preset = "paper" if torch.cuda.is_available() else "cpu"
        return cls(**_CPU) if preset == "cpu" else cls()

    def changed(self, changes: Mapping[str, Any]) -> Hyperparameters:
        """A copy with some values changed, from text or numbers.

        Raises:
            pydantic.ValidationError: a value out of its range.
        """
        return type(self)(**{**dict(self), **changes})


_CPU: dict[str, Any] = {
    "min_spacing_mm": 1.0,
    "roi_size": (56, 56, 32),
    "train_batch_size": 2,
    "iterations_per_epoch": 20,
    "max_epochs": 12,
    "base_channels": 8,
    "levels": 4,
    "box_margin": 2,
    "crf_weight": 1e-3,
    "sigma_beta": 0.5,
}


def first_error(error: ValidationError) -> str:
    """One sentence for the first thing that is wrong: name, value, expectation."""
    first = error.errors()[0]
    name = first["loc"][0] if first["loc"] else "value"
    return f"{name}: {repr(first['input'])[:80]} cannot be used; {first['msg'].removeprefix('Value error, ')}."
