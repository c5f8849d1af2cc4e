"""Simulate full disks."""

import os
import subprocess
from contextlib import contextmanager

import pytest


def no_space(*_, **__):
    """Fail as a function of `os` that writes to a full disk."""
    raise OSError(28, "No space left on device")


def full_after(flushes):
    """Return an `os.fsync` that fails after so many calls."""
    fsync, calls = os.fsync, []

    def flush(descriptor):
        calls.append(descriptor)
        fsync(descriptor) if len(calls) <= flushes else no_space()

    return flush


@contextmanager
def small_disk(folder, size):
    """Mount a disk of a size such as "28k" on a new folder; skip the test if that is not allowed."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
