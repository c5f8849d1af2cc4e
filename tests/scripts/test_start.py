"""scripts/start.sh: what it refuses before anything is installed, and what it hands to MONAI Label."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.demo import local_server

ROOT = Path(__file__).resolve().parents[2]

NETWORK = ("--conf", "allow_network_without_login", "true")
# Stands for the real environment: nothing is installed, and `python` tells how the script called it.
ENVIRONMENT = """
cat >"$scripts/python" <<'EOF'
#!/bin/sh
printf '%s\\n' "$$" "$PWD" "$MONAI_LABEL_DICOMWEB_SEARCH_FILTER" "$@"
EOF
chmod +x "$scripts/python"
PATH=$scripts:$PATH
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    scripts = tmp_path / "a checkout" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "start.sh", scripts)
    (scripts / "environment.sh").write_text(ENVIRONMENT)
    return scripts.parent


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
    """The address of something that takes connections as a DICOMweb server does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/dicom-web"


def start(checkout: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "start.sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=checkout.parent,
        env={"PATH": os.environ["PATH"], **variables},
    )


def called(result: subprocess.CompletedProcess[str]) -> tuple[str, str, list[str]]:
    """The working folder, the search filter and the arguments that the server got."""
    assert result.returncode == 0, result.stderr
    _, _pid, folder, search_filter, *arguments = result.stdout.splitlines()
    return folder, search_filter, arguments


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


class TestRefuses:
    def test_no_studies(self, checkout: Path) -> None:
        assert_refused(start(checkout), "No studies", "--help")

    def test_empty_name(self, checkout: Path) -> None:
        assert_refused(start(checkout, ""), "empty name")

    def test_two_studies(self, checkout: Path, studies: Path) -> None:
        assert_refused(start(checkout, studies, "another"), "given twice", str(studies), "another")

    def test_missing_folder_which_monai_label_would_create(self, checkout: Path, tmp_path: Path) -> None:
        assert_refused(start(checkout, tmp_path / "typo"), "typo", "does not exist", "http")
        assert not (tmp_path / "typo").exists()

    def test_file_in_place_of_a_folder(self, checkout: Path, studies: Path) -> None:
        assert_refused(start(checkout, studies / "scan.nii.gz"), "are a file", "expected a folder")

    @pytest.mark.parametrize("name", [None, "scan.dcm", "nii.gz.txt", "deeper/scan.nii.gz"])
    def test_folder_without_an_image(self, checkout: Path, tmp_path: Path, name: str | None) -> None:
        folder = tmp_path / "empty"
        folder.mkdir()
        if name:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        assert_refused(start(checkout, folder), "holds no .nii.gz, .nii or .nrrd image", "DICOMweb")

    @pytest.mark.parametrize("port", ["http", "", "-1", "0", "80.5", "65536", "8000 9000", "08000"])
    def test_port_that_is_none(self, checkout: Path, studies: Path, port: str) -> None:
        assert_refused(start(checkout, studies, "--port", port), f"'{port}'", "1 to 65535")

    def test_port_in_use(self, checkout: Path, studies: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            assert_refused(start(checkout, studies, "--port", port), port, "in use", "--port")

    def test_port_in_use_where_every_address_is_listened_on(self, checkout: Path, studies: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            result = start(checkout, studies, "--host", "0.0.0.0", *NETWORK, "--port", port)
            assert result.returncode == 2
            assert f"Port {port} is in use" in result.stderr

    @pytest.mark.parametrize("user", ["", "me:secret@"])
    def test_dicomweb_server_that_does_not_answer(self, checkout: Path, free_port: int, user: str) -> None:
        result = start(checkout, f"http://{user}127.0.0.1:{free_port}/dicom-web")
        assert_refused(result, f"port {free_port} of 127.0.0.1", "start the DICOMweb server")

    def test_dicomweb_server_of_this_machine_is_tried_whatever_the_proxies(
        self, checkout: Path, free_port: int
    ) -> None:
        result = start(checkout, f"http://localhost:{free_port}/dicom-web", http_proxy="http://proxy:3128")
        assert_refused(result, f"port {free_port} of localhost", "start the DICOMweb server")

    @pytest.mark.parametrize("url", ["http://", "http:///dicom-web", "https://pacs:port/dicom-web"])
    def test_address_that_cannot_be_read(self, checkout: Path, url: str) -> None:
        assert_refused(start(checkout, url), url, "cannot be read")

    @pytest.mark.parametrize("address", ["127.0.0.1:{port}/dicom-web", "pacs:port", "", "[::1"])
    @pytest.mark.parametrize("login", ["me:geheim", "me:p@s:geheim", "me:ge/geheim", "geheim"])
    def test_password_in_an_address_is_not_repeated(
        self, checkout: Path, free_port: int, address: str, login: str
    ) -> None:
        result = start(checkout, f"http://{login}@{address.format(port=free_port)}")
        assert_refused(result, "http://")
        assert "geheim" not in result.stderr

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "hospital.example"])
    @pytest.mark.parametrize("value", [None, "false", "perhaps", ""])
    def test_network_without_a_login(self, checkout: Path, studies: Path, host: str, value: str | None) -> None:
        conf = () if value is None else ("--conf", "allow_network_without_login", value)
        result = start(checkout, studies, "--host", host, *conf)
        assert_refused(
            result, f"on {host} without a login", "read and change", "--conf allow_network_without_login true"
        )

    @pytest.mark.parametrize("login", ["users", "realm"])
    def test_network_with_a_login_and_without_encryption(self, checkout: Path, studies: Path, login: str) -> None:
        conf = ("--conf", "users", "/etc/users") if login == "users" else ()
        variables = {"MONAI_LABEL_AUTH_ENABLE": "True"} if login == "realm" else {}
        result = start(checkout, studies, "--host", "0.0.0.0", *conf, **variables)
        assert_refused(result, "without encryption", "--tls-cert", "trusted_proxies")

    @pytest.mark.parametrize("option", ["--tls-cert", "--tls-key"])
    def test_half_of_a_certificate(self, checkout: Path, studies: Path, option: str) -> None:
        assert_refused(start(checkout, studies, option, studies / "scan.nii.gz"), "needs both --tls-cert and --tls-key")

    def test_certificate_that_is_not_there(self, checkout: Path, studies: Path) -> None:
        result = start(checkout, studies, "--tls-cert", "missing.pem", "--tls-key", "missing.key")
        assert_refused(result, "'missing.pem' for HTTPS cannot be read")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_studies_that_cannot_be_written_need_a_folder_for_annotations(
        self, checkout: Path, studies: Path, free_port: int
    ) -> None:
        studies.chmod(0o500)
        assert_refused(start(checkout, studies), "cannot be written", "--conf project_dir")
        result = start(checkout, studies, "--port", str(free_port), "--conf", "project_dir", "/elsewhere")
        assert called(result)[2][6] == str(studies)

    def test_unknown_option(self, checkout: Path, studies: Path) -> None:
        assert_refused(start(checkout, studies, "--prot", "8000"), "'--prot'", "--help")

    @pytest.mark.parametrize("option", [["--labels"], ["--port"], ["--host"], ["--conf"], ["--conf", "epochs"]])
    def test_option_without_its_value(self, checkout: Path, studies: Path, option: list[str]) -> None:
        assert_refused(start(checkout, studies, *option), option[0], "value")


class TestStarts:
    def test_app_studies_and_settings_reach_monai_label(self, checkout: Path, studies: Path, free_port: int) -> None:
        options = ["--labels", "lesion,left kidney", "--conf", "preset", "cpu", "--port", str(free_port)]
        folder, _, arguments = called(start(checkout, *options, "my studies"))
        assert folder == str(checkout)
        assert arguments[:3] == ["-m", "lib.server.launch", "start_server"]
        assert arguments[3:] == [
            *["--app", "apps/inextremis", "--studies", str(studies)],
            *["--host", "127.0.0.1", "--port", str(free_port)],
            *["--conf", "labels", "lesion,left kidney", "--conf", "preset", "cpu"],
        ]

    def test_process_becomes_the_server(self, checkout: Path, studies: Path, free_port: int) -> None:
        command = [str(checkout / "scripts" / "start.sh"), str(studies), "--port", str(free_port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            output, _ = process.communicate(timeout=30)
        assert output.splitlines()[1] == str(process.pid)

    def test_only_this_machine_is_served_without_a_warning(self, checkout: Path, studies: Path, free_port: int) -> None:
        assert start(checkout, studies, "--port", str(free_port)).stderr == ""

    def test_warns_in_one_sentence_when_a_network_is_served(
        self, checkout: Path, studies: Path, free_port: int
    ) -> None:
        result = start(checkout, studies, "--port", str(free_port), "--host", "0.0.0.0", *NETWORK)
        assert called(result)[2][7:9] == ["--host", "0.0.0.0"]
        assert len(result.stderr.splitlines()) == 1
        assert "without a login" in result.stderr

    def test_network_with_a_login_and_a_certificate(self, checkout: Path, studies: Path, free_port: int) -> None:
        for name in ("cert.pem", "key.pem"):
            (checkout.parent / name).touch()
        tls = ("--tls-cert", "cert.pem", "--tls-key", "key.pem")
        options = ("--conf", "users", "/etc/users", "--port", str(free_port))
        result = start(checkout, studies, "--host", "0.0.0.0", *tls, *options)
        arguments = called(result)[2]
        assert arguments[7:9] == ["--host", "0.0.0.0"]
        files = ["--ssl_certfile", f"{checkout.parent}/cert.pem", "--ssl_keyfile", f"{checkout.parent}/key.pem"]
        assert arguments[11:15] == files
        assert f"https://0.0.0.0:{free_port}" in result.stdout
        assert result.stderr == ""

    def test_network_with_a_login_behind_a_proxy_elsewhere(self, checkout: Path, studies: Path, free_port: int) -> None:
        conf = ("--conf", "users", "/etc/users", "--conf", "trusted_proxies", "10.1.2.3")
        result = start(checkout, studies, "--host", "0.0.0.0", "--port", str(free_port), *conf)
        assert called(result)[2][7:9] == ["--host", "0.0.0.0"]

    def test_dicomweb_search_filter_is_left_to_the_app(self, checkout: Path, archive: str, free_port: int) -> None:
        _, search_filter, arguments = called(start(checkout, archive, "--port", str(free_port)))
        assert arguments[6] == archive
        assert search_filter == ""

    def test_search_filter_of_the_user_is_kept(self, checkout: Path, archive: str, free_port: int) -> None:
        own = '{"Modality": "MR"}'
        port = str(free_port)
        result = start(checkout, archive, "--port", port, MONAI_LABEL_DICOMWEB_SEARCH_FILTER=own)
        assert called(result)[1] == own

    @pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"])
    def test_dicomweb_server_behind_a_proxy_is_not_tried(self, checkout: Path, free_port: int, variable: str) -> None:
        url = "http://pacs.invalid:8042/dicom-web"
        result = start(checkout, url, "--port", str(free_port), **{variable: "http://proxy:3128"})
        assert called(result)[2][6] == url

    def test_help_lists_every_option(self, checkout: Path) -> None:
        result = start(checkout, "--help")
        assert result.returncode == 0
        for option in ("--labels", "--port", "--host", "--tls-cert", "--tls-key", "--conf", "STUDIES"):
            assert option in result.stdout
