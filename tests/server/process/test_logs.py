"""The log has one line per record, no passwords, and files of bounded size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lib.server.launch import ROOT
from lib.server.process.logs import masked, one_line

FORGED = "[2026-01-01 00:00:00,000] [1] [MainThread] [INFO] (lib.x:1) - All studies were exported"
START = """
import logging, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from lib.server.process import logs
from lib.server.process.modes import set_umask
folder = Path({folder!r})
"""


def logged(folder: Path, code: str) -> tuple[list[str], list[str]]:
    """Run code in a process and return the lines of its log file and of its console."""
    start = START.format(root=str(ROOT), folder=str(folder))
    result = subprocess.run([sys.executable, "-c", start + code], capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr.decode()
    path = folder / "app.log"
    lines = path.read_bytes().decode().split("\n")[:-1] if path.is_file() else []
    return lines, result.stderr.decode().split("\n")[:-1]


class TestOneLineARecord:
    @pytest.mark.parametrize(
        "break_", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\n\n", "\x1b[2K\r"]
    )
    @pytest.mark.parametrize("name", ["lib.x", "uvicorn.error", "task_train"])
    def test_text_of_a_request_cannot_pass_for_a_record(self, tmp_path: Path, break_: str, name: str) -> None:
        code = f"logs.configure_logging(folder); logging.getLogger({name!r}).error('id %s', {'a' + break_ + FORGED!r})"
        for lines in logged(tmp_path, code):
            (line,) = [line for line in lines if "All studies" in line]
            assert not line.startswith("[2026-01-01")
            assert line.isprintable()
            assert [line for line in lines if line.splitlines() != [line]] == []

    @pytest.mark.parametrize("text", ["\x00", "\x1b[31m", "\x7f", "\x9b", "\u202e", "\ud800", "\u200b", "\ufeff"])
    def test_unprintable_characters_are_escaped_as_in_python(self, text: str) -> None:
        assert one_line(f"a{text}b") == "a" + text.encode("unicode_escape").decode() + "b"

    @pytest.mark.parametrize("text", ["Müller 患者 é", "ünïcödé/ß.nii.gz", "a\\b", ""])
    def test_printable_text_is_kept(self, text: str) -> None:
        assert one_line(text) == text

    def test_traceback_is_readable_and_indented(self, tmp_path: Path) -> None:
        text = f"no such image\n{FORGED}\x1b[2K"
        code = f"""
logs.configure_logging(folder)
try:
    raise ValueError({text!r})
except ValueError:
    logging.getLogger("lib.x").exception("It failed")
"""
        for lines in logged(tmp_path, code):
            (first,) = [number for number, line in enumerate(lines) if line.endswith("It failed")]
            assert lines[first + 1] == "    Traceback (most recent call last):"
            assert "    ValueError: no such image" in lines
            assert all(line.startswith("    ") and line.isprintable() for line in lines[first + 1 :])

    def test_traceback_that_uvicorn_logs_as_a_message_too(self, tmp_path: Path) -> None:
        text = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: a\n' + FORGED
        code = f"logs.configure_logging(folder); logging.getLogger('uvicorn.error').error({text!r})"
        for lines in logged(tmp_path, code):
            assert lines[-4:] == ["    " + line for line in text.split("\n")]

    def test_library_that_brings_its_own_handler_later(self, tmp_path: Path) -> None:
        text = f"a\n{FORGED}"
        code = f"""
logs.configure_logging(folder)
own = logging.getLogger("library"); own.propagate = False; own.addHandler(logging.StreamHandler())
own.error({text!r})
"""
        assert not [line for line in logged(tmp_path, code)[1] if line.startswith("[2026-01-01")]

    def test_message_of_a_million_characters_is_cut(self, tmp_path: Path) -> None:
        code = "logs.configure_logging(folder); logging.getLogger('lib.x').error('%s', 'a:/@\\\"=' * 200_000)"
        for lines in logged(tmp_path, code):
            assert len(lines[-1]) < 11_000
            assert lines[-1].endswith("more characters)")


class TestPasswords:
    @pytest.mark.parametrize(
        "text",
        [
            *("USING:: studies = http://me:geheim@pacs:8042/dicom-web", "https://me:p@ss:geheim@pacs"),
            *("get http://geheim@pacs/x, then http://pacs/y", "http://me:ge/heim-geheim@pacs/x"),
            *("USING:: ssl_keyfile_password = geheim", "USING:: ssl_keyfile_password = two geheim"),
            *("ENV SETTINGS:: MONAI_LABEL_DICOMWEB_PASSWORD = geheim", "export MONAI_LABEL_DICOMWEB_PASSWORD=geheim"),
            *("export MONAI_LABEL_DATASTORE_API_KEY=geheim", "{'MONAI_ZOO_AUTH_TOKEN': 'geheim', 'a': 1}"),
            *('{"password": "a \\" geheim", "a": 1}', "Namespace(ssl_keyfile_password='a geheim')"),
            "['start_server', '--ssl_keyfile_password', 'geheim']",
            "start_server --ssl_keyfile_password geheim --port 8000",
            *("POST /token?username=me&password=geheim&x=1", "Authorization: Basic geheim=="),
            *("{'Authorization': 'Bearer geheim.a-b_c'}", "headers: authorization: bearer geheim"),
            *("the token is Bearer geheim.eyJhbGciOi", "PASSWORD: geheim", "GET /login/callback?code=geheim&iss=x"),
            "GET /login/callback?x=1&state=geheim",
        ],
    )
    def test_are_masked(self, text: str) -> None:
        assert "geheim" not in masked(text)
        assert "***" in masked(text)

    @pytest.mark.parametrize(
        "text",
        [
            "http://127.0.0.1:8042/dicom-web",
            "http://pacs:8042/studies/1.2.3/series, 3 of 4",
            "The archive refuses the login; start the server with the right MONAI_LABEL_DICOMWEB_PASSWORD.",
            "annotator a@b.example stored clicks of case01",
            "tokens 3, secretary 4",
        ],
    )
    def test_nothing_else_is(self, text: str) -> None:
        assert masked(text) == text

    def test_in_messages_and_tracebacks_of_every_logger(self, tmp_path: Path) -> None:
        code = """
logs.configure_logging(folder)
for name in ("lib.x", "uvicorn.error", "task_train", "urllib3.connectionpool"):
    try:
        raise OSError("no answer from http://me:geheim@pacs")
    except OSError:
        logging.getLogger(name).exception("%s", {"password": "geheim"})
"""
        for lines in logged(tmp_path, code):
            assert "geheim" not in "".join(lines)
            assert "***@pacs" in "".join(lines)


class TestFile:
    @pytest.mark.parametrize(("group", "mode"), [(False, 0o600), (True, 0o660)])
    def test_has_the_mode_of_the_umask(self, tmp_path: Path, group: bool, mode: int) -> None:
        folder = tmp_path / "project" / "logs"
        logged(folder, f"set_umask({group}); logs.configure_logging(folder)")
        assert (folder / "app.log").stat().st_mode & 0o777 == mode
        assert folder.stat().st_mode & 0o777 == mode | (mode & 0o440) >> 2

    def test_is_named_on_the_console(self, tmp_path: Path) -> None:
        code = "logging.getLogger().setLevel('INFO'); logs.configure_logging(folder)"
        assert str(tmp_path / "app.log") in logged(tmp_path, code)[1][-1]

    def test_is_bounded(self, tmp_path: Path) -> None:
        code = """
logs.FILE_BYTES, logs.OLD_FILES = 2000, 3
logs.configure_logging(folder)
for number in range(1000):
    logging.getLogger("lib.x").warning("record %d", number)
"""
        assert "record 999" in logged(tmp_path, code)[0][-1]
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * 2000

    def test_replaces_the_handlers_of_monai_label(self, tmp_path: Path) -> None:
        code = f"""
import logging.config
from monailabel.utils.others.generic import init_log_config
import json
other = Path({str(tmp_path / "checkout")!r}); (other / "logs").mkdir(parents=True)
logging.config.dictConfig(json.loads(Path(init_log_config(None, str(other), "app.log", "INFO")).read_text()))
logs.configure_logging(folder)
for name in ("lib.x", "uvicorn", "uvicorn.error", "task_train", "task_scoring"):
    logging.getLogger(name).warning("from %s", name)
"""
        file, console = logged(tmp_path / "project", code)
        for lines in (file, console):
            said = [line.rpartition("from ")[2] for line in lines if "from " in line]
            assert said == ["lib.x", "uvicorn", "uvicorn.error", "task_train", "task_scoring"]
        assert (tmp_path / "checkout" / "logs" / "app.log").read_text() == ""

    @pytest.mark.parametrize("obstacle", ["a file", "a folder"])
    def test_that_cannot_be_written_leaves_the_console(self, tmp_path: Path, obstacle: str) -> None:
        folder = tmp_path / "logs"
        folder.touch() if obstacle == "a file" else (folder / "app.log").mkdir(parents=True)
        console = logged(folder, "logs.configure_logging(folder); logging.getLogger('lib.x').error('goes on')")[1]
        assert "The log file cannot be written" in console[0] and "console only" in console[0]
        assert "goes on" in console[1]
