"""Programs beside the app's packages that some tests need."""

import os
import shutil
from pathlib import Path

import pytest

from lib.demo import orthanc

ROOT = Path(__file__).parents[1]
OIDC_PROVIDER = ROOT / ".oidc-provider"
BIDS_VALIDATOR = ROOT / ".venv-bids" / "bin" / "bids-validator-deno"
SCHEMATHESIS = ROOT / ".venv-schemathesis" / "bin" / "schemathesis"


def need_orthanc():
    _need(orthanc.is_installed(), orthanc.INSTALL_COMMAND)


def need_dciodvfy():
    _need(shutil.which("dciodvfy") is not None, "apt-get install dicom3tools")


def need_chromium():
    _need(shutil.which("chromium") is not None, "apt-get install chromium")


def need_axe():
    """Return the script of npm's axe-core."""
    script = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
    _need(script.is_file(), "(cd web && npm ci --ignore-scripts)")
    return script


def need_firefox():
    _need(shutil.which("firefox-esr") or shutil.which("firefox"), "apt-get install firefox-esr")


def need_schemathesis():
    install = ".venv-schemathesis/bin/pip install -r tests/server/schemathesis.txt"
    _need(SCHEMATHESIS.exists(), f"python3.11 -m venv .venv-schemathesis && {install}")


def need_bids_validator():
    install = ".venv-bids/bin/pip install -r tests/scripts/bids.txt"
    _need(BIDS_VALIDATOR.exists(), f"python3.11 -m venv .venv-bids && {install}")


def need_realm():
    """npm's oidc-provider, a real server of OpenID Connect."""
    install = f"npm install --prefix {OIDC_PROVIDER.name} oidc-provider@9.13.3"
    _need((OIDC_PROVIDER / "node_modules" / "oidc-provider").is_dir() and shutil.which("node") is not None, install)


def need_nginx():
    _need(nginx() is not None, "apt-get install nginx-light")


def nginx():
    """Its program, which lies beside those of users; None where it is not installed."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def need_real_data(name):
    """Return the folder of a set of real data beside the project, if there is one."""
    folder = ROOT.parent / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"needs real data in {folder.relative_to(ROOT.parent)} beside the project")
    return folder


def _need(is_there, install_command):
    """Skips where it is missing, except in CI, which installs it."""
    if not is_there:
        reason = f"needs what is not installed here: {install_command}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
