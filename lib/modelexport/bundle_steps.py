"""Run the steps of a bundle's inference, from the file of a scan to the file of its mask, as a server does.

A bundle contains a copy of this module and of its imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from monai.transforms import Transform
from torch import nn

from lib.annotations.atomic_write import write_atomically
from lib.data.grid import network_image
from lib.geometry.boxes import Box
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.nifti_image import nifti_gz, nifti_image
from lib.geometry.parallel_grids import ParallelGrids
from lib.geometry.volume import load_volume
from lib.geometry.volume_files import EXTENSIONS
from lib.inference.automatic_mask import refined_label_map
from lib.inference.prediction import label_map_on_scan, predict_on_grid, probability_on_scan
from lib.networks.checkpoint import TrainedModel
from lib.networks.spec import NetworkSpec

Data = dict[str, Any]


def scans_in(folder: str) -> list[dict[str, str]]:
    """List the scans of a folder, `{"image": path}` each; its subfolders are not searched.

    Raises:
        ValueError: there are none.
    """
    place = Path(folder)
    names = sorted(path.name for path in place.iterdir() if not path.name.startswith(".")) if place.is_dir() else []
    found = [{"image": str(place / name)} for name in names if name.endswith(EXTENSIONS)]
    if not found:
        raise ValueError(f"There is no {', '.join(EXTENSIONS)} in {folder}; name a folder of scans with --dataset_dir.")
    return found


class OpenScan(Transform):
    """Reader of a scan, which resamples it to the network's grid.

    It replaces `image`, a path, by `image` (1, X, Y, Z) float16 on the grid of the network, and adds `grid_affine`
    (4, 4), `scan` (X, Y, Z) float32, `scan_affine` (4, 4) and `scan_name` of the file.

    Args:
        spacing_mm: of the network's grid, along right, anterior, superior.
    """

    def __init__(self, spacing_mm: Sequence[float]) -> None:
        right, anterior, superior = spacing_mm
        self.spacing_mm = (right, anterior, superior)

    def __call__(self, data: Mapping[str, Any]) -> Data:
        """Read a scan.

        Raises:
            VolumeError: the scan cannot be read or resampled.
        """
        path = Path(data["image"])
        volume = load_volume(path)
        image, affine = network_image(volume, self.spacing_mm)
        scan = {"scan": volume.array, "scan_affine": volume.geometry.affine_ras, "scan_name": path.name}
        return {"image": image[None], "grid_affine": affine, **scan}


class GaussianWindows(Inferer):
    """Inferer from images (B, 1, X, Y, Z) to the probabilities (B, C, X, Y, Z) float16 of the labels, no background.

    Args:
        labels: names of the foreground channels.
        spacing_mm: of the network's grid.
        roi_size: voxels of a window.
        version: of the model.
    """

    def __init__(
        self, labels: Sequence[str], spacing_mm: Sequence[float], roi_size: Sequence[int], version: int
    ) -> None:
        right, anterior, superior = spacing_mm
        x, y, z = roi_size
        self.spec = NetworkSpec(tuple(labels), (right, anterior, superior), (x, y, z), "", {})
        self.version = version

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Predict the probabilities.

        Raises:
            BrokenModelError: the probabilities are not finite.
        """
        assert isinstance(network, nn.Module)
        model = TrainedModel(self.spec, network, self.version)
        return torch.stack([predict_on_grid(model, image[0], inputs.device) for image in inputs])


class MostProbableOnScan(Transform):
    """Transform of `pred` from probabilities (C, X, Y, Z) to label indices (X', Y', Z') uint8 on the scan's grid.

    The probabilities are kept as `probability`.
    """

    def __call__(self, data: Mapping[str, Any]) -> Data:
        probability = torch.as_tensor(data["pred"]).cpu()
        label_map = label_map_on_scan(probability, _matrix(data["grid_affine"]), _geometry(data))
        return {**data, "probability": probability, "pred": label_map}


class DenseCrf(Transform):
    """Refinement of `pred` by a dense CRF.

    Args:
        enabled: False returns `pred` unchanged.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def __call__(self, data: Mapping[str, Any]) -> Data:
        if not self.enabled:
            return dict(data)
        geometry = _geometry(data)
        grids = ParallelGrids.of(geometry.affine_ras, _matrix(data["grid_affine"]))

        def of_label(index: int, box: Box) -> np.ndarray:
            return probability_on_scan(data["probability"][index - 1], grids, box).numpy()

        scan = np.asarray(data["scan"])
        return {**data, "pred": refined_label_map(scan, data["pred"], of_label, geometry.spacing_mm)}


class SaveMask(Transform):
    """Writer of `pred` as NIfTI on the grid of the scan, under the scan's name.

    Args:
        folder: created if it does not exist.
        made_by: description in the header, at most 79 characters.
    """

    def __init__(self, folder: str, made_by: str) -> None:
        self.folder, self.made_by = Path(folder), made_by

    def __call__(self, data: Mapping[str, Any]) -> Data:
        """Write a mask."""
        image = nifti_image(np.asarray(data["pred"]), _geometry(data).affine_ras)
        image.header["descrip"] = self.made_by[:79]
        name = data["scan_name"]
        name = name.removesuffix(next(end for end in EXTENSIONS if name.endswith(end)))
        write_atomically(self.folder / f"{name}.nii.gz", nifti_gz(image))
        return dict(data)


def _geometry(data: Mapping[str, Any]) -> ImageGeometry:
    x, y, z = data["scan"].shape
    return ImageGeometry((x, y, z), _matrix(data["scan_affine"]))


def _matrix(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
