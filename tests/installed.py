"""Programs from Debian's packages that some tests need."""

import os
import shutil

import pytest

from lib.demo import orthanc


def need_orthanc():
    _need(orthanc.is_installed(), orthanc.INSTALL_COMMAND)


def need_chromium():
    _need(shutil.which("chromium") is not None, "apt-get install chromium")


def _need(is_there, install_command):
    """Skips where it is missing, except in CI, which installs it."""
    if not is_there:
        reason = f"needs Debian's packages: {install_command}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
