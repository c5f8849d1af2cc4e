"""Read the headers of a series from DICOM JSON (PS3.18 F)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from pydicom.dataset import Dataset


def headers_of(metadata: Iterable[Mapping[str, Any]]) -> list[Dataset]:
    """Return the header of each instance, without elements that cannot be read or are not included, such as pixels.

    Raises:
        Exception: an instance is not a JSON object.
    """
    return [_header(instance) for instance in metadata]


def _header(instance: Mapping[str, Any]) -> Dataset:
    header = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for tag, element in instance.items():
            with suppress(Exception):  # pydicom raises errors of any kind
                header.update(Dataset.from_json({tag: element}, bulk_data_uri_handler=lambda uri: None))
    return header
