"""Limit the size of volumes by a setting and by the free memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

# Set by `--conf max_volume_gb`; an environment variable, so that trainings inherit it.
MAX_VOLUME_VARIABLE = "INEXTREMIS_MAX_VOLUME_GB"
# 1000 x 1000 x 1000 voxels.
DEFAULT_MAX_VOLUME_GB = 4.0
GB = 10**9

_FLOAT32_BYTES = 4
# By version of control groups: folder, limit, usage, and the reclaimable part of the usage.
_CGROUP_V2 = ("", "memory.max", "memory.current", "inactive_file")
_CGROUP_V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def too_large(shape: Sequence[int], bytes_per_voxel: float = 0) -> str | None:
    """Return the reason why a volume is too large, before memory is allocated.

    Args:
        bytes_per_voxel: peak memory of the processing; 0 skips the check of free memory.

    Returns:
        The rest of a sentence that begins with the volume, or None for a volume that is not too large.
    """
    voxels = math.prod(float(length) for length in shape)  # large integers cannot be divided
    size = f"has the size {' x '.join(map(str, shape))}, {voxels * _FLOAT32_BYTES / GB:.3g} GB as 32-bit numbers"
    try:
        limit_gb = max_volume_gb()
    except ValueError as error:
        return f"cannot be checked for its size. {error}"
    if voxels * _FLOAT32_BYTES > limit_gb * GB:
        return f"{size}; expected at most {limit_gb:g} GB. Crop or resample it, or raise max_volume_gb."
    if bytes_per_voxel and voxels * bytes_per_voxel > (free := free_bytes()):
        return (
            f"{size}, and takes about {voxels * bytes_per_voxel / GB:.1f} GB of memory, of which {free / GB:.1f} GB "
            "are free. Crop or resample it, or retry when the server has less to do."
        )
    return None


def max_volume_gb() -> float:
    """Return the limit, in GB (10^9 bytes) of voxels as float32.

    Raises:
        ValueError: the setting is not a number above 0.
    """
    text = os.environ.get(MAX_VOLUME_VARIABLE) or str(DEFAULT_MAX_VOLUME_GB)
    try:
        limit_gb = float(text)
    except ValueError:
        limit_gb = 0.0
    if not limit_gb > 0:
        raise ValueError(f"max_volume_gb is {text!r}; expected a number of GB above 0, such as 4.")
    return limit_gb


def free_bytes() -> int:
    """Return the free memory of the machine or, if less, of a container or service with a limit."""
    return min([psutil.virtual_memory().available, *cgroup_free_bytes()])


def cgroup_free_bytes(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """Yield the free memory of each control group of this process that has a limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, *files = _CGROUP_V1 if controllers else _CGROUP_V2
        inside = Path(group.lstrip("/"))
        for folder in (inside, *inside.parents):
            try:
                yield _left(root / mount / folder, *files)
            except (OSError, ValueError):  # this group has no limit, or is outside the container
                continue


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> int:
    """Return the free memory of a control group.

    Raises:
        OSError, ValueError: the group has no limit.
    """
    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    used = int((group / usage).read_text()) - int(statistics.get(reclaimable, 0))
    return max(0, int((group / limit).read_text()) - used)
