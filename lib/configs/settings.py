"""Read and check the settings that users give with `--conf NAME VALUE`."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from lib.annotations.names import MAX_LABELS, is_label
from lib.exchange.property_codes import code_text, codes_from
from lib.trainers.background import GPU_MEMORY_SHARE
from lib.trainers.processes import GPUS
from lib.training.hyperparameters import Hyperparameters, Preset, first_error

# Other keys of a request, in which each label is a key too.
RESERVED_LABELS = (
    *("background", "foreground", "image", "model", "session", "label", "label_tag", "coordinates", "client_id"),
    *("use_stored_clicks", "absent"),
    *("result_extension", "result_dtype", "result_compress", "restore_label_idx", "save_label"),
)


_MODALITY = re.compile(r"[A-Z0-9_]{1,16}")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?")


class ConfigurationError(ValueError):
    """Error of an invalid `--conf`; its text names the setting and the expected values."""


class AppSettings(BaseModel):
    """Settings of the app; every hyper-parameter of training can be set too, by its own name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...] = Field(("lesion",), description="structures, comma-separated, in order: index 1, 2, ...")
    codes: dict[str, str] = Field(
        {}, description="codes of the labels in DICOM SEG: label=SCHEME:CODE, comma-separated; default: Tissue"
    )
    modalities: tuple[str, ...] = Field(("MR", "CT"), description="modalities of the archive's series that are served")
    preset: Preset = Field("auto", description="gpu, cpu, paper, or auto: gpu if there is one, else cpu")
    project_dir: Path | None = Field(
        None, description="absolute path of the folder for annotations, models and logs; default: the studies folder"
    )
    model_dir: Path | None = Field(
        None, description="absolute path of the folder of trained models; default: model/ in the project's folder"
    )
    allow_network_without_login: bool = Field(
        False, description="serve other machines without a login; anybody there may read and change the studies"
    )
    allowed_hosts: tuple[str, ...] = Field((), description="further host names of the server, comma-separated")
    allowed_origins: tuple[str, ...] = Field(
        (), description="comma-separated addresses of other servers whose pages may use this server"
    )
    users: Path | None = Field(
        None, description="absolute path of a file of users, who must log in; scripts/users.sh writes it"
    )
    readers: int = Field(1, ge=1, le=9, description="independent readers of each study; from 2 on, a reviewer decides")
    review: bool = Field(False, description="serve the pages of reviews only, without model, clicks and trainings")
    session_hours: float = Field(10.0, gt=0, le=168, description="hours after which a login expires")
    trusted_proxies: tuple[str, ...] = Field(
        (), description="comma-separated addresses of reverse proxies that terminate TLS, besides 127.0.0.1"
    )
    max_volume_gb: float = Field(4.0, gt=0, description="largest image that is read, in GB of float32 voxels")
    file_access: Literal["owner", "group"] = Field("owner", description="who may read the files that the app writes")
    keep_versions: int = Field(5, ge=1, description="versions of the model that are kept for rollback")
    auto_train: int = Field(
        0, ge=0, description="new annotations after which a training starts automatically; 0: only on request"
    )
    gpus: str = Field(
        "all", pattern=f"^({GPUS})$", description="GPUs that a training uses together: all, or numbers such as 0,1"
    )
    gpu_memory_share: float = Field(
        GPU_MEMORY_SHARE, gt=0, le=1, description="share of a GPU's memory that a training may use beside requests"
    )
    test_time_crf: Literal["auto", "true", "false"] = Field(
        "auto", description="refine automatic masks by a dense CRF; auto: if this improved the score in training"
    )

    @property
    def n_readers(self) -> int:
        """Number of readers of each study; at least two in a review."""
        return max(self.readers, 2) if self.review else self.readers

    @field_validator("project_dir", "model_dir", "users")
    @classmethod
    def _check_folder(cls, folder: Path | None) -> Path | None:
        # The training runs in another process, whose working directory may differ.
        if folder is not None and not folder.is_absolute():
            raise ValueError(f"expected an absolute path, such as {folder.absolute()}")
        return folder

    @field_validator("labels", mode="before")
    @classmethod
    def _split_labels(cls, value: object) -> object:
        return _split(value)

    @field_validator("allowed_hosts", "allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_addresses(cls, value: object) -> object:
        return () if value == "" else _split(value)

    @field_validator("allowed_hosts", "allowed_origins")
    @classmethod
    def _check_addresses(cls, addresses: tuple[str, ...], field: ValidationInfo) -> tuple[str, ...]:
        form, example = (_HOST, "host:8000") if field.field_name == "allowed_hosts" else (_ORIGIN, "https://host:8000")
        for address in addresses:
            if not form.fullmatch(address):
                raise ValueError(f"{address!r} cannot be used; expected such as {example}")
        return addresses

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ValueError(f"{proxy!r} cannot be used; expected an address such as 10.1.2.3") from error
        return proxies

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for label in labels:
            if not is_label(label):
                raise ValueError(f"{label!r} is not a label name; use letters, digits, spaces, '-' and '_'")
            if label.lower() in RESERVED_LABELS:
                raise ValueError(f"{label!r} cannot be a label; requests use this name for something else")
        if len(labels) > MAX_LABELS:
            raise ValueError(f"there are {len(labels)}; expected at most {MAX_LABELS}, as masks are of 8 bits")
        if len({label.lower() for label in labels}) < len(labels):
            raise ValueError(f"{', '.join(labels)}: each label may appear once")
        return labels

    @field_validator("modalities", mode="before")
    @classmethod
    def _split_modalities(cls, value: object) -> object:
        return _split(value.upper() if isinstance(value, str) else value)

    @field_validator("modalities")
    @classmethod
    def _check_modalities(cls, modalities: tuple[str, ...]) -> tuple[str, ...]:
        for modality in modalities:
            if not _MODALITY.fullmatch(modality):
                raise ValueError(f"{modality!r} is not a modality of DICOM; expected such as MR,CT,PT")
        return modalities

    @field_validator("codes", mode="before")
    @classmethod
    def _split_codes(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        return {label.strip(): code.strip() for label, _, code in pairs}

    @field_validator("codes")
    @classmethod
    def _check_codes(cls, texts: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        labels = info.data.get("labels", ())
        for label in texts:
            if label not in labels:
                raise ValueError(f"{label!r} is not a label of the app; expected one of {', '.join(labels)}")
        return {label: code_text(code) for label, code in codes_from(texts).items()}


def _split(value: object) -> object:
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


def read_conf(conf: Mapping[str, str]) -> tuple[AppSettings, Hyperparameters]:
    """Parse the settings and the hyper-parameters in MONAI Label's `--conf` values.

    Raises:
        ConfigurationError: an unknown name, or a value out of its range.
    """
    conf = {name: value for name, value in conf.items() if name not in _OF_MONAI_LABEL}
    known = [*AppSettings.model_fields, *Hyperparameters.model_fields]
    for name in conf:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}."
            raise ConfigurationError(f"--conf {name}: there is no such setting; {hint}")
    try:
        settings = AppSettings(**{n: v for n, v in conf.items() if n in AppSettings.model_fields})
        changes = {n: v for n, v in conf.items() if n in Hyperparameters.model_fields}
        return settings, Hyperparameters.of_preset(settings.preset).changed(changes)
    except ValidationError as error:
        raise ConfigurationError(f"--conf {first_error(error)}") from error


_OF_MONAI_LABEL = ("server_mode",)
