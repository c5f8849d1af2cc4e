"""scripts/start.py: what it refuses, and what it hands to the launcher."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib.demo import local_server
from lib.server import launch
from scripts import start as script

NETWORK = ("--conf", "allow_network_without_login", "true")

Start = Callable[..., "Result"]


@dataclass(frozen=True)
class Result:
    """What a call came to; `arguments` are those that the launcher got, if it was reached."""

    status: int
    arguments: list[str] | None
    stdout: str
    stderr: str


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Call the script in an empty folder; the server is not started."""
    launched: list[list[str]] = []
    monkeypatch.setattr(launch, "main", lambda arguments: launched.append(list(arguments)))
    monkeypatch.chdir(tmp_path)
    for name in (*script.PROXIES, "MONAI_LABEL_AUTH_ENABLE"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str | Path, **variables: str) -> Result:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        status = script.main([str(argument) for argument in arguments])
        return Result(status, launched[-1] if launched else None, *capsys.readouterr())

    return call


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "my studies"
    folder.mkdir()
    (folder / "scan.nii.gz").touch()
    return folder


@pytest.fixture
def free_port() -> int:
    return local_server.free_port()


@pytest.fixture
def archive() -> Iterator[str]:
    """Yield the address of something that accepts connections as a DICOMweb server does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/dicom-web"


def called(result: Result) -> list[str]:
    """Return the arguments that the launcher got, without the name of its command."""
    assert (result.status, result.arguments is not None) == (0, True), result.stderr
    assert result.arguments is not None
    assert result.arguments[:3] == ["start_server", "--app", str(launch.APP)]
    return result.arguments[3:]


def assert_refused(result: Result, *words: str) -> None:
    assert result.status == 2
    assert result.arguments is None
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


class TestRefuses:
    def test_no_studies(self, start: Start) -> None:
        assert_refused(start(), "No studies", "--help")

    def test_empty_name(self, start: Start) -> None:
        assert_refused(start(""), "empty name")

    def test_two_studies(self, start: Start, studies: Path) -> None:
        assert_refused(start(studies, "another"), "given twice", str(studies), "another")

    def test_missing_folder_which_monai_label_would_create(self, start: Start, tmp_path: Path) -> None:
        assert_refused(start(tmp_path / "typo"), "typo", "is not there", "http")
        assert not (tmp_path / "typo").exists()

    def test_file_in_place_of_a_folder(self, start: Start, studies: Path) -> None:
        assert_refused(start(studies / "scan.nii.gz"), "are no folder", "expected a folder")

    @pytest.mark.parametrize("name", [None, "scan.dcm", "nii.gz.txt", "deeper/scan.nii.gz"])
    def test_folder_without_an_image(self, start: Start, tmp_path: Path, name: str | None) -> None:
        folder = tmp_path / "empty"
        folder.mkdir()
        if name:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        assert_refused(start(folder), "holds no .nii.gz, .nii or .nrrd image", "DICOMweb")

    @pytest.mark.parametrize("port", ["http", "", "-1", "0", "80.5", "65536", "8000 9000", "08000"])
    def test_port_that_is_none(self, start: Start, studies: Path, port: str) -> None:
        assert_refused(start(studies, "--port", port), f"'{port}'", "1 to 65535")

    def test_port_in_use(self, start: Start, studies: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            assert_refused(start(studies, "--port", port), port, "in use", "--port")

    def test_port_in_use_where_every_address_is_listened_on(self, start: Start, studies: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            result = start(studies, "--host", "0.0.0.0", *NETWORK, "--port", port)
            assert result.status == 2
            assert f"Port {port} is in use" in result.stderr

    @pytest.mark.parametrize("user", ["", "me:secret@"])
    def test_dicomweb_server_that_does_not_answer(self, start: Start, free_port: int, user: str) -> None:
        result = start(f"http://{user}127.0.0.1:{free_port}/dicom-web")
        assert_refused(result, f"port {free_port} of 127.0.0.1", "start the DICOMweb server")

    def test_dicomweb_server_of_this_machine_is_tried_whatever_the_proxies(self, start: Start, free_port: int) -> None:
        result = start(f"http://localhost:{free_port}/dicom-web", http_proxy="http://proxy:3128")
        assert_refused(result, f"port {free_port} of localhost", "start the DICOMweb server")

    @pytest.mark.parametrize("url", ["http://", "http:///dicom-web", "https://pacs:port/dicom-web"])
    def test_address_that_cannot_be_read(self, start: Start, url: str) -> None:
        assert_refused(start(url), url, "cannot be read")

    @pytest.mark.parametrize("address", ["127.0.0.1:{port}/dicom-web", "pacs:port", "", "[::1"])
    @pytest.mark.parametrize("login", ["me:geheim", "me:p@s:geheim", "me:ge/geheim", "geheim"])
    def test_password_in_an_address_is_not_repeated(
        self, start: Start, free_port: int, address: str, login: str
    ) -> None:
        result = start(f"http://{login}@{address.format(port=free_port)}")
        assert_refused(result, "http://")
        assert "geheim" not in result.stderr

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "hospital.example"])
    @pytest.mark.parametrize("value", [None, "false", "perhaps", ""])
    def test_network_without_a_login(self, start: Start, studies: Path, host: str, value: str | None) -> None:
        conf = () if value is None else ("--conf", "allow_network_without_login", value)
        result = start(studies, "--host", host, *conf)
        assert_refused(
            result, f"on {host} without a login", "read and change", "--conf allow_network_without_login true"
        )

    @pytest.mark.parametrize("login", ["users", "realm"])
    def test_network_with_a_login_and_without_encryption(self, start: Start, studies: Path, login: str) -> None:
        conf = ("--conf", "users", "/etc/users") if login == "users" else ()
        variables = {"MONAI_LABEL_AUTH_ENABLE": "True"} if login == "realm" else {}
        result = start(studies, "--host", "0.0.0.0", *conf, **variables)
        assert_refused(result, "without encryption", "--tls-cert", "trusted_proxies")

    @pytest.mark.parametrize("option", ["--tls-cert", "--tls-key"])
    def test_half_of_a_certificate(self, start: Start, studies: Path, option: str) -> None:
        assert_refused(start(studies, option, studies / "scan.nii.gz"), "needs both --tls-cert and --tls-key")

    def test_certificate_that_is_not_there(self, start: Start, studies: Path) -> None:
        result = start(studies, "--tls-cert", "missing.pem", "--tls-key", "missing.key")
        assert_refused(result, "'missing.pem' for HTTPS cannot be read")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_studies_that_cannot_be_written_need_a_folder_for_annotations(
        self, start: Start, studies: Path, free_port: int
    ) -> None:
        studies.chmod(0o500)
        assert_refused(start(studies), "cannot be written", "--conf project_dir")
        result = start(studies, "--port", str(free_port), "--conf", "project_dir", "/elsewhere")
        assert called(result)[1] == str(studies)

    def test_unknown_option(self, start: Start, studies: Path) -> None:
        assert_refused(start(studies, "--prot", "8000"), "'--prot'", "--help")

    @pytest.mark.parametrize("option", [["--labels"], ["--port"], ["--host"], ["--conf"], ["--conf", "epochs"]])
    def test_option_without_its_value(self, start: Start, studies: Path, option: list[str]) -> None:
        assert_refused(start(studies, *option), option[0], "expected")


class TestStarts:
    def test_app_studies_and_settings_reach_the_launcher(self, start: Start, studies: Path, free_port: int) -> None:
        options = ["--labels", "lesion,left kidney", "--conf", "preset", "cpu", "--port", str(free_port)]
        assert called(start(*options, "my studies")) == [
            *["--studies", "my studies", "--host", "127.0.0.1", "--port", str(free_port)],
            *["--conf", "preset", "cpu", "--conf", "labels", "lesion,left kidney"],
        ]

    def test_only_this_machine_is_served_without_a_warning(self, start: Start, studies: Path, free_port: int) -> None:
        assert start(studies, "--port", str(free_port)).stderr == ""

    def test_warns_in_one_sentence_when_a_network_is_served(self, start: Start, studies: Path, free_port: int) -> None:
        result = start(studies, "--port", str(free_port), "--host", "0.0.0.0", *NETWORK)
        assert called(result)[2:4] == ["--host", "0.0.0.0"]
        assert len(result.stderr.splitlines()) == 1
        assert "without a login" in result.stderr

    def test_network_with_a_login_and_a_certificate(
        self, start: Start, studies: Path, free_port: int, tmp_path: Path
    ) -> None:
        for name in ("cert.pem", "key.pem"):
            (tmp_path / name).touch()
        tls = ("--tls-cert", "cert.pem", "--tls-key", "key.pem")
        options = ("--conf", "users", "/etc/users", "--port", str(free_port))
        result = start(studies, "--host", "0.0.0.0", *tls, *options)
        arguments = called(result)
        assert arguments[2:4] == ["--host", "0.0.0.0"]
        files = ["--ssl_certfile", f"{tmp_path}/cert.pem", "--ssl_keyfile", f"{tmp_path}/key.pem"]
        assert arguments[6:10] == files
        assert f"https://0.0.0.0:{free_port}" in result.stdout
        assert result.stderr == ""

    def test_network_with_a_login_behind_a_proxy_elsewhere(self, start: Start, studies: Path, free_port: int) -> None:
        conf = ("--conf", "users", "/etc/users", "--conf", "trusted_proxies", "10.1.2.3")
        result = start(studies, "--host", "0.0.0.0", "--port", str(free_port), *conf)
        assert called(result)[2:4] == ["--host", "0.0.0.0"]

    @pytest.mark.parametrize("own", [None, '{"Modality": "MR"}'])
    def test_search_filter_is_left_to_the_app_and_to_the_user(
        self, start: Start, archive: str, free_port: int, own: str | None
    ) -> None:
        variables = {} if own is None else {"MONAI_LABEL_DICOMWEB_SEARCH_FILTER": own}
        assert called(start(archive, "--port", str(free_port), **variables))[1] == archive
        assert os.environ.get("MONAI_LABEL_DICOMWEB_SEARCH_FILTER") == own

    @pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"])
    def test_dicomweb_server_behind_a_proxy_is_not_tried(self, start: Start, free_port: int, variable: str) -> None:
        url = "http://pacs.invalid:8042/dicom-web"
        result = start(url, "--port", str(free_port), **{variable: "http://proxy:3128"})
        assert called(result)[1] == url

    def test_address_with_a_login_is_announced_once_the_launcher_has_hidden_it(
        self, start: Start, archive: str, free_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in (launch.USERNAME, launch.PASSWORD):
            monkeypatch.setenv(name, "")  # which the launcher sets, and which goes with this test
        with_login = archive.replace("//", "//me:geheim@")
        result = start(with_login, "--port", str(free_port))
        assert called(result)[1] == with_login and result.stdout == ""
        assert f":{free_port} " in start(archive, "--port", str(free_port)).stdout

    def test_help_lists_every_option(self, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            start("--help")
        text = capsys.readouterr().out
        for option in ("--labels", "--port", "--host", "--tls-cert", "--tls-key", "--conf", "STUDIES"):
            assert option in text
