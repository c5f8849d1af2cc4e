"""Programs beside the app's packages that some tests need."""

import os
import shutil
from pathlib import Path

import pytest

from lib.demo import orthanc

ROOT = Path(__file__).parents[1]
SCHEMATHESIS = ROOT / ".venv-schemathesis" / "bin" / "schemathesis"


def need_orthanc():
    _need(orthanc.is_installed(), orthanc.INSTALL_COMMAND)


def need_chromium():
    _need(shutil.which("chromium") is not None, "apt-get install chromium")


def need_schemathesis():
    install = ".venv-schemathesis/bin/pip install -r tests/server/schemathesis.txt"
    _need(SCHEMATHESIS.exists(), f"python3.11 -m venv .venv-schemathesis && {install}")


def _need(is_there, install_command):
    """Skips where it is missing, except in CI, which installs it."""
    if not is_there:
        reason = f"needs what is not installed here: {install_command}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
