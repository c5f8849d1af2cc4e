"""Start an Orthanc archive on this machine, for the demo and the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType

import requests

from lib.demo.local_server import free_port

INSTALL_COMMAND = "apt-get install orthanc orthanc-dicomweb"
# Where the packages of Debian and Ubuntu put them; the folder of the server is on the path of root only.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/lib/orthanc/libOrthancDicomWeb.so"),
)


class OrthancError(RuntimeError):
    """Orthanc is not installed or did not start; the text says what to do."""


def is_installed() -> bool:
    """Are Orthanc and its DICOMweb plugin there?"""
    return _program() is not None and _plugin() is not None


def install_where_allowed() -> None:
    """Installs Debian's packages where this user may; anywhere else the caller has to be told how.

    Raises:
        OrthancError: it is not installed and could not be.
    """
    if is_installed():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "orthanc", "orthanc-dicomweb"]):
            subprocess.run(["apt-get", *arguments], env=environment, check=False)
    if not is_installed():
        raise OrthancError(f"Orthanc is not installed. On Debian and Ubuntu: sudo {INSTALL_COMMAND}")


class Orthanc:
    """A server process with its database in `folder`; it ends with `stop`.

    Args:
        folder: for configuration, database and log; made if missing, what it holds is served again.
        port: None takes a free one.
        login: name and password that it asks for; None asks for nothing.

    Raises:
        OrthancError: Orthanc or its DICOMweb plugin is not installed.
    """

    def __init__(self, folder: Path, port: int | None = None, login: tuple[str, str] | None = None) -> None:
        program, plugin = _program(), _plugin()
        if program is None or plugin is None:
            raise OrthancError(f"Orthanc is not installed. On Debian and Ubuntu: sudo {INSTALL_COMMAND}")
        self.port, self.login = port or free_port(), login
        self.url = f"http://127.0.0.1:{self.port}"
        self.dicomweb_url = f"{self.url}/dicom-web"
        self.name = f"InExtremIS in {folder.absolute()}"
        self.log = folder / "orthanc.log"
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(_configuration(self.name, folder, self.port, plugin, login), indent=1))
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [program, str(configuration)],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for the caller, which then stops the server
            )

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Raises: OrthancError: it ended, or did not answer in time."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self.process.poll() is None:
            try:
                # Another Orthanc may have taken the port.
                if requests.get(f"{self.url}/system", auth=self.login, timeout=10).json()["Name"] == self.name:
                    return
                time.sleep(0.1)
            except requests.RequestException:
                time.sleep(0.1)
        words = "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])
        self.stop()
        raise OrthancError(f"Orthanc at {self.url} did not start. Its log {self.log} ends with:\n{words}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> Orthanc:
        try:
            self.wait_until_ready()
        except BaseException:  # a Ctrl-C too: nobody else knows of the process yet
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _program() -> str | None:
    return shutil.which("Orthanc", path=_SEARCH_PATH)


def _plugin() -> Path | None:
    return next((plugin for plugin in _PLUGINS if plugin.exists()), None)


def _configuration(
    name: str, folder: Path, port: int, plugin: Path, login: tuple[str, str] | None
) -> dict[str, object]:
    return {
        "Name": name,
        "StorageDirectory": str(folder / "database"),
        "IndexDirectory": str(folder / "database"),
        "Plugins": [str(plugin)],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": login is not None,
        "RegisteredUsers": dict([login]) if login else {},
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
    }
