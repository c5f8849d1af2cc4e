"""Parse and check click requests as viewers send them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.image_geometry import ImageGeometry

MAX_CLICKS = 1000
"""Maximum number of clicks in a request, all labels together."""

REMEDY = "Click the six extreme points: two ends along each of the three image axes."


class ClickRequestError(ValueError):
    """Error of a click request that is not a valid annotation; its text is for the annotator."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Annotations of one image; labels without any are omitted.

    Attributes:
        structures: the clicks on each clicked label.
        absent: labels that are not in the image.
    """

    structures: tuple[ExtremePoints, ...]
    absent: tuple[str, ...] = ()


def parse_click_request(request: Mapping[str, Any], labels: Sequence[str], geometry: ImageGeometry) -> Answers:
    """Return the annotations in a request.

    Two forms are accepted: one key per label (`{"lesion": [[i, j, k], ...], "background": [...]}`) and
    `{"foreground": [...], "background": [...], "label": "lesion"}`, where `label` may be omitted if there is only one.
    `"coordinates"` is the coordinate system: "voxel" (default), "lps" or "ras".
    `"absent": ["cyst"]` lists labels that are not in the image, with or without clicks on other labels.

    A background click excludes the labels that are clicked in the same request, and no others.

    Raises:
        ClickRequestError: no annotation, a label that the app does not have, a label both clicked and absent, fewer
            than six clicks, a coordinate that is not a number, a click outside the image, no extent along an axis, or
            background clicks without clicks on a label.
    """
    absent = named_labels(request, "absent", labels)
    clicks_by_label = _clicks_by_label(request, labels)
    background = request.get("background") or []
    count = sum(len(clicks) for clicks in (*clicks_by_label.values(), background) if isinstance(clicks, (list, tuple)))
    if count > MAX_CLICKS:
        raise ClickRequestError(f"The request has {count} clicks; expected at most {MAX_CLICKS}.")
    _check_labels(clicks_by_label, absent, background, labels)
    to_voxel = _coordinates(request, geometry)
    background_voxel = _points_voxel(background, "background", to_voxel, geometry)
    structures = tuple(
        _extreme_points(label, _points_voxel(clicks, label, to_voxel, geometry), background_voxel)
        for label, clicks in clicks_by_label.items()
    )
    return Answers(structures, absent)


def named_labels(request: Mapping[str, Any], key: str, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that a request lists under a key, in the app's order; none if the key is missing.

    Raises:
        ClickRequestError: not a list, or a label that the app does not have.
    """
    value = request.get(key) or []
    if not isinstance(value, (list, tuple)):
        raise ClickRequestError(f"The value of {key!r} is {_short(value)}; expected a list of labels.")
    for label in value:
        if label not in labels:
            raise _no_such_label(label, labels)
    named = set(value)
    return tuple(label for label in labels if label in named)


def _no_such_label(label: Any, labels: Sequence[str]) -> ClickRequestError:
    return ClickRequestError(f"Label {_short(label)} does not exist in this app; its labels are {_known(labels)}.")


def _known(labels: Sequence[str]) -> str:
    return ", ".join(repr(label) for label in labels)


def _check_labels(clicked: Collection[str], absent: Collection[str], background: Any, labels: Sequence[str]) -> None:
    """Raise a ClickRequestError if the request has no annotation, or a contradiction."""
    both = [label for label in clicked if label in absent]
    if both:
        raise ClickRequestError(f"Label {both[0]!r} is clicked and under 'absent'; leave out one of the two.")
    if not clicked and not absent:
        raise ClickRequestError(f"There are no clicks for any label ({_known(labels)}). {REMEDY}")
    if not clicked and background:
        raise ClickRequestError(
            f"There are background clicks and no clicks for any label that they could be about. {REMEDY}"
        )


def _clicks_by_label(request: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    unknown = [key for key, value in request.items() if key not in {*labels, *_NOT_LABELS} and _is_click_list(value)]
    if unknown:
        raise _no_such_label(unknown[0], labels)
    clicks = {label: request[label] for label in labels if request.get(label)}
    if request.get("foreground") and "foreground" not in labels:
        label = request.get("label", labels[0] if len(labels) == 1 else None)
        if not isinstance(label, str) or label not in labels:
            raise ClickRequestError(
                f"The clicks under 'foreground' are for label {_short(label)}; expected 'label' to be one of "
                f"{_known(labels)}."
            )
        clicks[label] = request["foreground"]
    return clicks


_NOT_LABELS = ("foreground", "background", "absent")


def _is_click_list(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, (list, tuple)) for item in value)


def _coordinates(request: Mapping[str, Any], geometry: ImageGeometry) -> Callable[[np.ndarray], np.ndarray]:
    conversions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "voxel": lambda points: points,
        "lps": geometry.lps_to_voxel,
        "ras": geometry.ras_to_voxel,
    }
    coordinates = request.get("coordinates", "voxel")
    if not isinstance(coordinates, str) or coordinates not in conversions:
        raise ClickRequestError(f"Coordinates are {_short(coordinates)}; expected one of {', '.join(conversions)}.")
    return conversions[coordinates]


def _points_voxel(
    clicks: Any, label: str, to_voxel: Callable[[np.ndarray], np.ndarray], geometry: ImageGeometry
) -> np.ndarray:
    if not isinstance(clicks, (list, tuple)):
        raise ClickRequestError(
            f"Label {label!r}: {_short(clicks)} is not a list of clicks; expected [[i, j, k], ...]."
        )
    for click in clicks:
        if not (isinstance(click, (list, tuple)) and len(click) == 3 and all(_is_number(c) for c in click)):
            raise ClickRequestError(f"Label {label!r}: the click {_short(click)} is not three finite numbers.")
    points = np.asarray(clicks, dtype=np.float64).reshape(-1, 3)
    points_voxel = np.rint(to_voxel(points))
    outside = np.flatnonzero(~geometry.contains(points_voxel))
    if len(outside):
        raise ClickRequestError(
            f"Label {label!r}: the click {clicks[outside[0]]} is outside the image, whose size is "
            f"{' x '.join(map(str, geometry.shape))} voxels."
        )
    return points_voxel.astype(np.int64)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12


def _extreme_points(label: str, clicks_voxel: np.ndarray, background_voxel: np.ndarray) -> ExtremePoints:
    if len(clicks_voxel) < 6:
        raise ClickRequestError(f"Label {label!r}: {len(clicks_voxel)} clicks; expected at least six. {REMEDY}")
    extent = np.ptp(clicks_voxel, axis=0)
    if not extent.all():
        axis = "ijk"[int(np.argmin(extent))]
        raise ClickRequestError(
            f"Label {label!r}: all clicks have the same {axis} index ({clicks_voxel[0, 'ijk'.index(axis)]}), so the "
            f"structure has no extent along that image axis. Scroll through the slices: {REMEDY}"
        )
    clicked = set(map(tuple, clicks_voxel.tolist()))
    in_both = next((p for p in background_voxel.tolist() if tuple(p) in clicked), None)
    if in_both is not None:
        raise ClickRequestError(f"Label {label!r}: the voxel {in_both} is clicked as foreground and as background.")
    return ExtremePoints.from_clicks(label, clicks_voxel, background_voxel)
