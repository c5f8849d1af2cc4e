"""Simulate full disks, and catch refusals."""

import subprocess
from contextlib import contextmanager

import pytest
from fastapi import HTTPException


def refusal(call, *arguments, **keywords):
    """Return the status and the sentence of the HTTPException that a call raises."""
    with pytest.raises(HTTPException) as error:
        call(*arguments, **keywords)
    assert error.value.detail.encode()
    return error.value.status_code, error.value.detail


def no_space(*_, **__):
    """Fail as a function of `os` that writes to a full disk."""
    raise OSError(28, "No space left on device")


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
