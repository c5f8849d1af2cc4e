"""Write a model as a MONAI bundle, whose inference gives the server's automatic masks."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lib.annotations.atomic_write import new_folder, write_atomically
from lib.modelexport import bundle_steps
from lib.modelexport.facts import ModelFacts
from lib.modelexport.source_files import LIBRARY, copied_sources
from lib.networks.spec import PAPERS_NETWORK, NetworkSpec

PACKAGE = "inextremis"
"""Name of the package in a bundle."""

REQUIRED_PACKAGES = ("nibabel", "numba", "pynrrd", "psutil", "pytorch-ignite", "scipy", "torchio", "filelock")
_STEPS = bundle_steps.__name__.replace(LIBRARY.name, PACKAGE, 1)


def write_bundle(folder: Path, facts: ModelFacts) -> None:
    """Write a bundle atomically.

    Raises:
        FileExistsError: a file or folder of this name exists.
        OSError: the disk is full or the folder cannot be written.
    """
    with new_folder(folder) as part:
        for name, content in bundle_files(facts).items():
            write_atomically(part / name, content)


def bundle_files(facts: ModelFacts) -> dict[str, bytes]:
    """Return the content of each file of a bundle by its path in the bundle."""
    weights = io.BytesIO()
    torch.save(facts.model.network.state_dict(), weights)
    return {
        "configs/metadata.json": _json(metadata(facts)),
        "configs/inference.json": _json(inference_config(facts)),
        "models/model.pt": weights.getvalue(),
        "docs/README.md": _readme(facts).encode(),
        "LICENSE": (LIBRARY.parent / "LICENSE").read_bytes(),
        **{name: text.encode() for name, text in copied_sources([bundle_steps.__name__], PACKAGE).items()},
    }


def metadata(facts: ModelFacts) -> dict[str, Any]:
    """Return `configs/metadata.json`, with all facts under the name of the package."""
    model, spec = facts.model, facts.model.spec
    network_input = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR or CT, as trained on",
        "num_channels": 1,
        "spatial_shape": list(spec.roi_size),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {"0": "image"},
    }
    network_output = {
        "type": "logits",
        "format": "segmentation",
        "num_channels": 1 + len(spec.labels),
        "spatial_shape": list(spec.roi_size),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {"0": "background", **{str(n): label for n, label in enumerate(spec.labels, start=1)}},
    }
    return {
        "version": f"{model.version}.0.0",
        "changelog": {f"{model.version}.0.0": f"version {model.version} of the model"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: version(name) for name in REQUIRED_PACKAGES},
        "name": f"{PACKAGE} {', '.join(spec.labels)}",
        "task": f"Segmentation of {', '.join(spec.labels)}",
        "description": "A network learnt from extreme points and accepted masks",
        "authors": "the annotators named under training, with InExtremIS",
        "copyright": "",
        "network_data_format": {"inputs": {"image": network_input}, "outputs": {"pred": network_output}},
        PACKAGE: facts.as_json(),
    }


def inference_config(facts: ModelFacts) -> dict[str, Any]:
    """Return `configs/inference.json`, which segments the scans of `dataset_dir` into `output_dir`."""
    model, spec = facts.model, facts.model.spec
    grid = {"spacing_mm": list(spec.spacing_mm)}
    windows = {"labels": list(spec.labels), **grid, "roi_size": list(spec.roi_size), "version": model.version}
    post = [
        _step("MostProbableOnScan"),
        _step("DenseCrf", enabled="@crf"),
        _step("SaveMask", folder="@output_dir", made_by=_made_by(facts)),
    ]
    return {
        "imports": ["$import sys", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/masks'",
        "crf": model.crf,
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "scans": {"_target_": f"{_STEPS}.scans_in", "folder": "@dataset_dir"},
        "network_def": _network(spec),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": [_step("OpenScan", **grid)]},
        "dataset": {"_target_": "Dataset", "data": "@scans", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": _step("GaussianWindows", **windows),
        "postprocessing": {"_target_": "Compose", "transforms": post},
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": False,
        },
        "initialize": ["$sys.path.insert(0, @bundle_root)"],
        "run": ["$@evaluator.run()"],
    }


def _step(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{_STEPS}.{name}", **arguments}


def _network(spec: NetworkSpec) -> dict[str, Any]:
    channels = {"in_channels": 1, "out_channels": 1 + len(spec.labels)}
    if spec.architecture == PAPERS_NETWORK:
        return {"_target_": f"{PACKAGE}.networks.unet2d5.{PAPERS_NETWORK}", **channels, **spec.arguments}
    return {"_target_": f"monai.networks.nets.{spec.architecture}", "spatial_dims": 3, **channels, **spec.arguments}


def _made_by(facts: ModelFacts) -> str:
    return f"InExtremIS model {facts.model.version}, SHA-256 {(facts.model.sha256 or '')[:32]}"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode()


def _readme(facts: ModelFacts) -> str:
    model = facts.model
    return f"""# {", ".join(model.spec.labels)}: version {model.version}

Segments {", ".join(model.spec.labels)} in NIfTI and NRRD scans. The masks are, voxel by voxel, the automatic masks of
the InExtremIS server that the model comes from, on the same kind of device and with the packages of these versions.

```
python -m monai.bundle run --config_file BUNDLE/configs/inference.json --bundle_root BUNDLE \\
    --dataset_dir SCANS --output_dir MASKS
```

- `--crf False` leaves the masks as the network drew them. By default the dense CRF is
  {"on" if model.crf else "off"}, as the training chose.
- Values in a mask: {", ".join(f"{n} {label}" for n, label in enumerate(model.spec.labels, start=1))}.
- `configs/metadata.json` says under `{PACKAGE}` what the model is made from. SHA-256 of its checkpoint:
  `{model.sha256}`.
- `{PACKAGE}/` holds the steps before and after the network, copied from InExtremIS. They need the packages that
  `required_packages_version` in the metadata lists, and nothing else of InExtremIS.

Not a medical device.
"""
