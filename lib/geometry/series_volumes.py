"""Divide a series into volumes by the acquisition parameters of frames at the same position."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import TypeVar

import numpy as np

from lib.geometry.acquisition import FACTS
from lib.geometry.dicom_frames import Frame, SeriesError

SAME_POSITION_MM = 1e-3
NAME = re.compile(r"[a-z0-9][a-z0-9.\-]{0,63}")
_MAX_FACTS = 3
T = TypeVar("T")


def volumes_of(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """Return the frames of each volume by its name, in the order of the frames.

    The only volume of a series has no name. Otherwise a volume is named by acquisition parameters, such as `b1000` or
    `te4.6-time2`: by the fewest that divide the series into volumes with every position once. If none do, volumes are
    counted (`volume1`) in the order of the instance numbers, if these are in order of volumes or of positions.

    Args:
        frames: parallel, in order of position.

    Raises:
        SeriesError: positions repeat, and the frames cannot be divided into volumes.
    """
    positions = _positions(frames)
    count = max(positions, default=-1) + 1
    if len(frames) == count:
        return {"": list(frames)}
    for key in _keys(frames):
        groups = _grouped(frames, key)
        if _is_whole(groups, frames, positions, count) and all(NAME.fullmatch(key(group[0])) for group in groups):
            return _in_order({key(group[0]): group for group in groups})
    counted = _counted(frames, positions, count)
    if counted is not None:
        return counted
    raise SeriesError(
        f"The series has more than one slice at the same position, {len(frames) - count} in all, as a time series has, "
        "and nothing in the headers tells its volumes apart. Choose another."
    )


def _positions(frames: Sequence[Frame]) -> list[int]:
    """Return the index of the position of each frame, from 0."""
    if not frames:
        return []
    normal = np.cross(*frames[0].plane.directions)
    along_mm = np.array([frame.plane.position_lps_mm for frame in frames]) @ normal
    return np.cumsum(np.diff(along_mm, prepend=along_mm[0]) > SAME_POSITION_MM).tolist()


def _keys(frames: Sequence[Frame]) -> Iterator[Callable[[Frame], str]]:
    """Yield functions that name a frame by one, two, ... of the parameters that differ."""
    differing = [fact for fact in FACTS if len({frame.facts.get(fact) for frame in frames}) > 1]
    for size in range(1, min(_MAX_FACTS, len(differing)) + 1):
        for facts in combinations(differing, size):
            yield partial(_name, facts=facts)


def _name(frame: Frame, facts: Sequence[str]) -> str:
    texts = ((fact, frame.facts.get(fact, "none")) for fact in facts)
    return "-".join(text if fact == "kind" else f"{fact}{text}" for fact, text in texts)


def _grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def _is_whole(groups: list[list[Frame]], frames: Sequence[Frame], positions: Sequence[int], count: int) -> bool:
    """Tell whether every group has each position once."""
    position = {id(frame): at for frame, at in zip(frames, positions, strict=True)}
    return all(len(group) == count == len({position[id(frame)] for frame in group}) for group in groups)


def _counted(frames: Sequence[Frame], positions: Sequence[int], count: int) -> dict[str, list[Frame]] | None:
    """Divide frames into volumes by the order of their instances; None if that is not possible."""
    order = sorted(range(len(frames)), key=lambda n: frames[n].order)
    if len(frames) % count or len({frame.order for frame in frames}) < len(frames):
        return None
    by_volume = {n: rank // count for rank, n in enumerate(order)}
    by_position = {n: rank % (len(frames) // count) for rank, n in enumerate(order)}
    for number in (by_volume, by_position):
        groups = _grouped(range(len(frames)), number.__getitem__)
        volumes = {number[group[0]] + 1: [frames[n] for n in group] for group in groups}
        if _is_whole(list(volumes.values()), frames, positions, count):
            named = {f"{_common(of, list(volumes.values()))}volume{n}": of for n, of in volumes.items()}
            return _in_order(named)
    return None


def _common(group: list[Frame], groups: list[list[Frame]]) -> str:
    """Return a prefix of a volume's name: the first parameter that is constant in, but differs between volumes."""
    for fact in FACTS:
        values = [{frame.facts.get(fact) for frame in one} for one in groups]
        if all(len(of_volume) == 1 for of_volume in values) and len(set().union(*values)) > 1:
            name = f"{_name(group[0], [fact])}-"
            return name if NAME.fullmatch(name) else ""
    return ""


def _in_order(volumes: dict[str, list[Frame]]) -> dict[str, list[Frame]]:
    """Sort volumes by the order of their instances."""
    return dict(sorted(volumes.items(), key=lambda item: min(frame.order for frame in item[1])))
