"""The server's folder for temporary files is private, and removed with the server."""

import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lib.server.process import private_folder
from lib.server.process.private_folder import make_private_folder
from tests.installed import ROOT


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Replace the system's folder of temporary files for a test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(private_folder.atexit, "register", lambda *arguments: None)
    return tmp_path


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(system, name):
    folder = system / name
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "patient.nii.gz").write_bytes(b"patient")
    return folder


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_folder_is_private_for_any_umask(system, umask):
    before = os.umask(umask)
    try:
        folder = make_private_folder()
    finally:
        os.umask(before)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.parent == system


def test_temporary_files_of_this_process_and_its_children_lie_in_it(system):
    folder = make_private_folder()

    with tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == folder
    child = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
    assert subprocess.run(child, capture_output=True, text=True).stdout.strip() == str(folder)


def test_folder_of_a_dead_server_is_removed(system):
    left = leave(system, f"inextremis-{ended_process()}-abc")

    make_private_folder()

    assert not left.exists()


@pytest.mark.parametrize(
    "name",
    [
        *(f"inextremis-{process}-abc" for process in (os.getpid(), os.getppid(), 1)),
        *("inextremis-", "inextremis-abc", "inextremis-12x-abc", "inextremis--1-a", "inextremis2-1-a", "other"),
        "inextremis-" + "9" * 30 + "-a",
    ],
    ids=lambda name: re.sub(r"\d+", "N", name),
)
def test_folder_of_a_running_server_or_of_another_name_is_kept(system, name):
    folder = leave(system, name)

    make_private_folder()

    assert (folder / "sub" / "patient.nii.gz").exists()


def test_target_of_a_link_is_kept(system):
    target = leave(system, "somebody's")
    link = system / f"inextremis-{ended_process()}-abc"
    link.symlink_to(target)
    removed = leave(system, f"inextremis-{ended_process()}-abc")
    (removed / "link").symlink_to(target)

    make_private_folder()

    assert link.is_symlink() and not removed.exists()
    assert (target / "sub" / "patient.nii.gz").exists()


def test_file_of_a_matching_name_is_kept(system):
    file = system / f"inextremis-{ended_process()}-abc"
    file.write_bytes(b"")

    make_private_folder()

    assert file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_folder_of_another_user_is_kept(system):
    folder = leave(system, f"inextremis-{ended_process()}-abc")
    os.chown(folder, 65534, 65534)

    make_private_folder()

    assert (folder / "sub" / "patient.nii.gz").exists()


def run(code, system):
    environment = {**os.environ, "TMPDIR": str(system), "PYTHONPATH": str(ROOT)}
    begin = (
        "from lib.server.process.private_folder import make_private_folder; import os; folder = make_private_folder()\n"
    )
    return subprocess.run([sys.executable, "-c", begin + code], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(2)", "raise ValueError"])
def test_folder_is_removed_with_the_process(tmp_path, end):
    done = run(f"(folder / 'patient').write_text('x'); print(folder)\n{end}", tmp_path)

    assert done.stdout.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_folder_is_kept_when_a_child_ends(tmp_path):
    done = run("child = os.fork()\nif child: os.wait(); print(folder.exists())", tmp_path)

    assert done.stdout.split() == ["True"], done.stderr


def test_folder_of_a_killed_process_is_removed_at_the_next_start(tmp_path):
    run("(folder / 'patient').write_text('x'); os.kill(os.getpid(), 9)", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1

    run("", tmp_path)

    assert list(tmp_path.iterdir()) == []
