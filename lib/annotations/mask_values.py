"""Map the values of a mask to the labels of the app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lib.annotations.mask_file import MaskError

_CHUNK_VOXELS = 2**20


def mapped_values(array: np.ndarray, labels: Mapping[str, int], app_labels: Sequence[str], name: str) -> np.ndarray:
    """Replace the values of a mask (X, Y, Z) by the app's, as uint8.

    Args:
        labels: value of each label in `array`.
        app_labels: labels of the app, whose values are 1, 2, ...
        name: of the mask, for the message.

    Raises:
        MaskError: a value without a label, or a label that the app does not have.
    """
    result = np.zeros(array.shape, np.uint8)
    for value, in_app in values_in_app(values_in(array), labels, app_labels, name).items():
        result[array == value] = in_app
    return result


def values_in(array: np.ndarray) -> list[float]:
    """Return the distinct values other than 0 in a mask (X, Y, Z), in ascending order."""
    flat = array.ravel(order="K")
    found: set[float] = set()
    for first in range(0, flat.size, _CHUNK_VOXELS):
        chunk = flat[first : first + _CHUNK_VOXELS]
        found.update(np.unique(chunk[chunk != 0]).tolist())
    return sorted(map(float, found))


def labels_of_values(values: Sequence[float], labels: Mapping[str, int], name: str) -> dict[float, str]:
    """Return the label of each value.

    Raises:
        MaskError: a value without a label.
    """
    label_of = {value: label for label, value in labels.items()}
    found = {value: label_of.get(int(value)) if value.is_integer() else None for value in values}
    for value, label in found.items():
        if label is None:
            known = ", ".join(f"{index} for {label}" for label, index in labels.items())
            raise MaskError(f"The mask {name} holds the value {value:g}; expected 0, {known[:200]}.")
    return {value: str(label) for value, label in found.items()}


def values_in_app(
    values: Sequence[float], labels: Mapping[str, int], app_labels: Sequence[str], name: str
) -> dict[float, int]:
    """Return the app's value for each value of a mask.

    Raises:
        MaskError: see `mapped_values`.
    """
    found = labels_of_values(values, labels, name)
    for label in found.values():
        if label not in app_labels:
            raise MaskError(
                f"The mask {name} holds the label {label[:80]!r}, and this app has {', '.join(app_labels)}; start the "
                "server with a label of this name."
            )
    return {value: app_labels.index(label) + 1 for value, label in found.items()}
