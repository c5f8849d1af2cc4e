"""Classify voxels as structure or surroundings by a small network for structures of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from lib.clickmask.voxel_features import StructureNumbers, VoxelFeatures, VoxelMaps

FEATURES = VoxelMaps._fields + StructureNumbers._fields
"""Names of the network's inputs, in order."""

WEIGHTS = Path(__file__).with_name("structure_net.npz")
"""Weights, made by `python -m scripts.train_structure_net`."""

MAX_DEVIATIONS = 4.0
"""Maximum deviation of a feature from its mean in training, in standard deviations; larger ones are clipped."""

VOXELS_AT_ONCE = 16_384
"""Voxels per matrix product, few enough for the processor's cache."""


class StructureNetError(Exception):
    """Error of a file without a network for these features; the message says what to do."""


@dataclass(frozen=True, eq=False)
class StructureNet:
    """Perceptron with rectified linear units.

    Attributes:
        mean, deviation: (F,) float32 of the features in training.
        weights: (outputs, inputs) float32 of each layer; the last has one output, the log-odds.
        biases: (outputs,) float32 of each layer.
    """

    mean: np.ndarray
    deviation: np.ndarray
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]

    @classmethod
    def load(cls, path: Path) -> StructureNet:
        """Load a file.

        Raises:
            StructureNetError: the file does not exist, or is for other features.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                names = tuple(stored["features"].tolist())
                count = int(stored["layers"])
                arrays = {name: stored[name] for name in stored.files if name not in ("features", "layers")}
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise StructureNetError(f"{path} holds no network ({error}); restore the file.") from error
        if names != FEATURES:
            raise StructureNetError(f"{path} is for the features {names}; train it for {FEATURES}.")
        layers = range(count)
        return cls(
            arrays["mean"],
            arrays["deviation"],
            tuple(arrays[f"weight{n}"] for n in layers),
            tuple(arrays[f"bias{n}"] for n in layers),
        )

    def save(self, path: Path) -> None:
        layers = {f"weight{n}": weight for n, weight in enumerate(self.weights)}
        layers |= {f"bias{n}": bias for n, bias in enumerate(self.biases)}
        np.savez(
            path,
            features=np.array(FEATURES),
            layers=len(self.weights),
            mean=self.mean,
            deviation=self.deviation,
            **layers,
        )

    def log_odds(self, features: VoxelFeatures) -> np.ndarray:
        """Return the log-odds (X, Y, Z) float32 of the region of the features."""
        shape = features.maps.hull.shape
        maps = [volume.ravel() for volume in features.maps]
        numbers = self._scaled(np.array(features.numbers, dtype=np.float32), slice(len(maps), None))
        first, constant = self.weights[0][:, : len(maps)], self.weights[0][:, len(maps) :] @ numbers + self.biases[0]
        result = np.empty(maps[0].size, dtype=np.float32)
        for begin in range(0, result.size, VOXELS_AT_ONCE):
            voxels = slice(begin, begin + VOXELS_AT_ONCE)
            layer = first @ self._scaled(np.stack([of[voxels] for of in maps]), slice(0, len(maps))) + constant[:, None]
            for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
                layer = weight @ np.maximum(layer, 0) + bias[:, None]
            result[voxels] = layer[0]
        return result.reshape(shape)

    def _scaled(self, features: np.ndarray, which: slice) -> np.ndarray:
        """Return features (F,) or (F, N) as deviations from the mean."""
        mean, deviation = self.mean[which], self.deviation[which]
        if features.ndim == 2:
            mean, deviation = mean[:, None], deviation[:, None]
        return np.clip((features - mean) / deviation, -MAX_DEVIATIONS, MAX_DEVIATIONS)


@cache
def shipped() -> StructureNet:
    """Load the network that is shipped with the app."""
    return StructureNet.load(WEIGHTS)
