"""Start an Orthanc archive on this machine, for the demo and the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import requests

from lib.demo.local_server import free_port
from lib.demo.server_process import ServerProcess

INSTALL_COMMAND = "apt-get install orthanc orthanc-dicomweb"
# Locations of the packages of Debian and Ubuntu; /usr/sbin is on the path of root only.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/lib/orthanc/libOrthancDicomWeb.so"),
)


class OrthancError(RuntimeError):
    """Error of an Orthanc that is not installed or did not start; the text says what to do."""


def is_installed() -> bool:
    """Tell whether Orthanc and its DICOMweb plugin are installed."""
    return _program() is not None and _plugin() is not None


def install_where_allowed() -> None:
    """Install Debian's packages if this user may.

    Raises:
        OrthancError: Orthanc is not installed and could not be installed.
    """
    if is_installed():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "orthanc", "orthanc-dicomweb"]):
            subprocess.run(["apt-get", *arguments], env=environment, check=False)
    if not is_installed():
        raise OrthancError(f"Orthanc is not installed. On Debian and Ubuntu: sudo {INSTALL_COMMAND}")


class Orthanc(ServerProcess):
    """Server process with its database in `folder`; it ends with `stop`.

    Args:
        folder: for configuration, database and log; created if missing, otherwise its studies are served again.
        port: None takes a free one.
        login: required name and password; None for no login.

    Raises:
        OrthancError: Orthanc or its DICOMweb plugin is not installed.
    """

    name, error = "Orthanc", OrthancError

    def __init__(self, folder: Path, port: int | None = None, login: tuple[str, str] | None = None) -> None:
        program, plugin = _program(), _plugin()
        if program is None or plugin is None:
            raise OrthancError(f"Orthanc is not installed. On Debian and Ubuntu: sudo {INSTALL_COMMAND}")
        self.port, self.login = port or free_port(), login
        self.url = f"http://127.0.0.1:{self.port}"
        self.dicomweb_url = f"{self.url}/dicom-web"
        self.archive_name = f"InExtremIS in {folder.absolute()}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "orthanc.json"
        path.write_text(json.dumps(self._configuration(folder, plugin), indent=1))
        self.run([program, str(path)], folder / "orthanc.log")

    def is_ready(self) -> bool:
        """Tell whether this server answers, and not another one that took the port."""
        answer = requests.get(f"{self.url}/system", auth=self.login, timeout=10)
        return answer.json()["Name"] == self.archive_name

    def _configuration(self, folder: Path, plugin: Path) -> dict[str, object]:
        return {
            "Name": self.archive_name,
            "StorageDirectory": str(folder / "database"),
            "IndexDirectory": str(folder / "database"),
            "Plugins": [str(plugin)],
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": self.login is not None,
            "RegisteredUsers": dict([self.login]) if self.login else {},
            "DicomServerEnabled": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
        }


def _program() -> str | None:
    return shutil.which("Orthanc", path=_SEARCH_PATH)


def _plugin() -> Path | None:
    return next((plugin for plugin in _PLUGINS if plugin.exists()), None)
