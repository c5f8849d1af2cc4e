"""`monailabel start_server`: refused arguments, hidden passwords, and written files."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import free_port
from lib.server.launch import APP, PASSWORD, ROOT, USERNAME, StartError, require_studies

SECRET = "geheim-23"
SHORT = {"tracking": "None"}


def command(*arguments: str | Path) -> list[str]:
    """Return the command that the environment's `monailabel` runs."""
    return [sys.executable, "-P", "-m", "lib.server.launch", "start_server", *map(str, arguments)]


def variables(**more: str) -> dict[str, str]:
    """Return the variables of a login shell, without CI, in which some packages send no telemetry."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT), **more}


def refused(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run the command and return its refusal, which has to be one sentence."""
    result = subprocess.run(
        command("--app", APP, *arguments), cwd=cwd, env=variables(), capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    return sentence


@dataclass
class Launched:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, method: str, path: str, **rest: object) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, timeout=120, **rest)  # type: ignore[arg-type]


@contextmanager
def launched(
    studies: Path | str,
    log: Path,
    *arguments: str,
    app: Path | str = APP,
    cwd: Path = ROOT,
    environment: Mapping[str, str] = {},  # noqa: B006
    conf: Mapping[str, str] = SHORT,
) -> Iterator[Launched]:
    """Start a server by the command and wait until it answers."""
    port = free_port()
    settings = [word for name, value in conf.items() for word in ("--conf", name, value)]
    words = command("--app", app, "--studies", studies, "--port", str(port), *settings, *arguments)
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=variables(**environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Launched(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_for(server)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(server: Launched) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.process.poll() is None:
        with suppress(requests.RequestException):
            server.ask("GET", "/openapi.json")
            return
        time.sleep(0.2)
    pytest.fail(server.log.read_text())


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("launch")
    write_demo_studies(root / "my studies", root / "truth", 1)
    return root / "my studies"


class TestStudies:
    @pytest.mark.parametrize("name", ["typo", "two/levels", "with a space", "file.txt/below", "dangling/below", "ftp:"])
    def test_that_are_not_there_are_refused_and_not_made(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file.txt").touch()
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        before = sorted(tmp_path.rglob("*"))
        sentence = refused("--studies", name, cwd=tmp_path)
        assert f"'{name}' is not there" in sentence and "expected a folder" in sentence
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("name", ["scan.nii.gz", "dangling", "fifo", ""])
    def test_that_are_no_folder_are_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "scan.nii.gz").touch()
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        os.mkfifo(tmp_path / "fifo")
        expected = f"'{name}' are no folder" if name else "empty name"
        assert expected in refused("--studies", name, cwd=tmp_path)
        assert not (tmp_path / "nowhere").exists()

    def test_folder_that_cannot_be_written_needs_another_for_annotations(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Root may write everywhere.
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        with pytest.raises(StartError, match="cannot be written.*--conf project_dir"):
            require_studies(str(tmp_path))
        assert require_studies(str(tmp_path), "/elsewhere") == str(tmp_path)

    @pytest.mark.parametrize("holds", [None, "scan.nii.gz", ".hidden", "folder/"])
    def test_folder_made_since_the_process_began_is_taken_away_if_empty(
        self, tmp_path: Path, holds: str | None
    ) -> None:
        code = f"""
            import time, pathlib
            from lib.server.launch import refuse_missing_studies
            time.sleep(0.3)
            folder = pathlib.Path({str(tmp_path / "typo")!r})
            folder.mkdir()
            {holds!r} and (folder / {holds!r}).mkdir()
            refuse_missing_studies(folder)
        """
        result = run_python(code)
        assert (tmp_path / "typo").exists() == (holds is not None)
        assert ("'typo' is not there" in result.stderr) == (holds is None)

    def test_empty_folder_from_before_is_kept(self, tmp_path: Path) -> None:
        time.sleep(0.3)
        code = f"""
            import pathlib
            from lib.server.launch import refuse_missing_studies
            refuse_missing_studies(pathlib.Path({str(tmp_path)!r}))
        """
        assert run_python(code).stderr == ""
        assert tmp_path.exists()


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    lines = [line.removeprefix(" " * 12) for line in code.strip("\n").splitlines()]
    words = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(words, env=variables(), capture_output=True, text=True, timeout=60)


class TestNetwork:
    @pytest.mark.parametrize("value", [None, "false", "", "maybe", "2", "None"])
    def test_is_refused_with_the_reason_unless_it_is_allowed(self, studies: Path, value: str | None) -> None:
        conf = () if value is None else ("--conf", "allow_network_without_login", value)
        sentence = refused("--studies", studies, "--host", "0.0.0.0", *conf)
        assert "without a login" in sentence and "read and change the studies" in sentence
        assert "--conf allow_network_without_login true" in sentence


class TestArguments:
    @pytest.mark.parametrize(
        "words",
        [
            ("--ssl_keyfile_pasword", SECRET),
            (f"--ssl_keyfile_pasword={SECRET}",),
            ("--ssl_keyfile_password", "two", SECRET),
            ("--ssl_keyfile_password", SECRET, "--ssl_keyfile", "missing.key", "--ssl_certfile", "missing.pem"),
            ("--ssl_keyfile_password", SECRET, "--ssl_keyfile", "missing.key"),
            ("--ssl_keyfile_password", SECRET, "--host", "0.0.0.0"),
            ("--ssl_keyfile_password", SECRET, "--dryrun"),
        ],
    )
    def test_refusals_do_not_repeat_a_password(self, studies: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
        assert SECRET not in refused("--studies", studies, *words, cwd=tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "words", [("--dryrun",), ("--workers", "2"), ("--log_config", "x.json"), ("--uvicorn_app", "a")]
    )
    def test_those_of_monai_label_that_make_no_sense_here_say_why(self, studies: Path, words: tuple[str, ...]) -> None:
        assert f"{words[0]} is not for this app: " in refused("--studies", studies, *words)

    @pytest.mark.parametrize("port", ["0", "-1", "65536", "http", "8e3", "", "²"])
    def test_invalid_port_is_refused(self, studies: Path, port: str) -> None:
        result = subprocess.run(
            command("--app", APP, "--studies", studies, "--port", port), env=variables(), capture_output=True, text=True
        )
        assert result.returncode == 2
        assert "1 to 65535" in result.stderr or "expected one argument" in result.stderr
        assert "Traceback" not in result.stderr


class TestLoginInTheAddress:
    @pytest.mark.parametrize(
        ("address", "without", "name", "password"),
        [
            ("http://me:pw@pacs/dicom-web", "http://pacs/dicom-web", "me", "pw"),
            ("https://me:p%40s%2Fs@pacs:8042/x?y=1", "https://pacs:8042/x?y=1", "me", "p@s/s"),
            ("http://me:p@ss@[::1]:8042/", "http://[::1]:8042/", "me", "p@ss"),
            ("HTTP://m%20e:a:b@pacs", "http://pacs", "m e", "a:b"),
            ("http://me@pacs/dicom-web", "http://pacs/dicom-web", "me", ""),
        ],
    )
    def test_goes_into_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, address: str, without: str, name: str, password: str
    ) -> None:
        from monailabel.config import settings

        for variable in (USERNAME, PASSWORD):
            monkeypatch.setenv(variable, "of before")
            monkeypatch.setattr(settings, variable, "of before")
        assert require_studies(address) == without
        assert (os.environ[USERNAME], os.environ[PASSWORD]) == (name, password)
        assert (name, password) == (settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD)

    def test_login_of_the_environment_is_kept_for_an_address_without_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(PASSWORD, "kept")
        assert require_studies("http://pacs:8042/a@b") == "http://pacs:8042/a@b"
        assert os.environ[PASSWORD] == "kept"

    @pytest.mark.parametrize(
        "address", ["http://", f"http://me:{SECRET}@", f"http://me:{SECRET}@[::1", f"http://me:{SECRET}@h:port/"]
    )
    def test_address_that_cannot_be_read_is_not_repeated(self, address: str) -> None:
        sentence = refused("--studies", address)
        assert "cannot be read; expected one such as http://localhost:8042/dicom-web" in sentence
        assert SECRET not in sentence

    def test_reaches_the_archive_and_nothing_else(self, tmp_path: Path) -> None:
        asked = []

        class Recorder(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                asked.append(self.headers.get("Authorization"))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as archive:
            threading.Thread(target=archive.serve_forever, daemon=True).start()
            address = f"http://me:{SECRET}@127.0.0.1:{archive.server_address[1]}/dicom-web"
            environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"), "HOME": str(tmp_path)}
            with launched(address, tmp_path / "log", "-v", "DEBUG", cwd=tmp_path, environment=environment) as server:
                server.ask("GET", "/datastore/")
                arguments = Path(f"/proc/{server.process.pid}/cmdline").read_text()
            archive.shutdown()
        assert set(asked) == {"Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()}
        assert SECRET not in arguments
        for written in tmp_path.rglob("*"):
            assert written.is_dir() or SECRET.encode() not in written.read_bytes()


def files_of_the_app() -> list[Path]:
    return sorted(path for path in APP.rglob("*") if "__pycache__" not in path.parts)


@pytest.fixture(scope="module")
def before() -> list[Path]:
    return files_of_the_app()


@pytest.fixture(scope="module")
def server(before: list[Path], studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("elsewhere")
    with launched(studies, folder / "log", cwd=folder) as server:
        yield server


class TestStarted:
    def test_from_another_folder_on_studies_with_a_space_in_their_name(self, server: Launched) -> None:
        assert server.ask("GET", "/datastore/").json()["total"] == 1

    def test_this_machine_alone_is_listened_on(self, server: Launched) -> None:
        port = server.url.rpartition(":")[2]
        listeners = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        addresses = {words[1] for words in listeners if words[3] == "0A" and int(words[1][-4:], 16) == int(port)}
        assert addresses == {f"0100007F:{int(port):04X}"}

    def test_nothing_is_written_into_the_checkout_and_the_working_folder(
        self, server: Launched, before: list[Path]
    ) -> None:
        assert files_of_the_app() == before
        assert [path.name for path in server.log.parent.iterdir()] == ["log"]

    def test_processes_that_it_starts_write_for_the_owner_only(self, server: Launched) -> None:
        words = Path(f"/proc/{server.process.pid}/status").read_text()
        assert "Umask:\t0077" in words


@pytest.mark.parametrize("app", ["apps/inextremis", "./apps/inextremis/", "apps/../apps/inextremis"])
def test_app_by_a_relative_path(app: str, tmp_path: Path) -> None:
    result = subprocess.run(
        command("--app", app, "--studies", tmp_path / "typo"), cwd=ROOT, env=variables(), capture_output=True, text=True
    )
    assert (result.returncode, "is not there" in result.stderr) == (2, True)


def test_another_app_is_left_to_monai_label(tmp_path: Path) -> None:
    shutil.copytree(APP, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    words = command("--app", tmp_path / "app")
    result = subprocess.run(words, env=variables(), capture_output=True, text=True, timeout=120)
    assert (result.returncode, "STUDIES Path/Directory NOT provided" in result.stdout) == (1, True)
