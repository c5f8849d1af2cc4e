"""scripts/environment.sh: which interpreter it takes, when it installs and what it says where it cannot.

An empty list of requirements stands for the real one, so nothing is fetched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands for the launcher: it tells how it was called.
LAUNCHER = """
import os, sys
print(sys.prefix, os.getcwd(), *sys.argv[1:], sep="\\n")
"""
# Stands for the compiling, which takes half a minute: it tells that it ran, and where.
COMPILE_KERNELS = """
import os, sys
print("compiled by", sys.prefix, "in", os.getcwd())
"""
TELLS_HOW_IT_WAS_CALLED = """
import json, os, sys
told = {"process": os.getpid(), "prefix": sys.prefix, "folder": os.getcwd(), "path": sys.path[0]}
print(json.dumps({**told, "arguments": sys.argv[1:]}))
"""
# The shell scripts that have a Python file of their name.
CALLERS = [path for path in sorted((ROOT / "scripts").glob("*.sh")) if path.with_suffix(".py").exists()]
NOT_A_FITTING_PYTHON = "#!/bin/sh\nexit 1\n"
PYTHON_WITHOUT_VENV = """#!/bin/sh
case "$2" in
  *ensurepip*) exit 1 ;;
  *print*) echo 3.11 ;;
esac
"""


def lay_out(checkout: Path) -> Path:
    (checkout / "scripts").mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts" / "environment.sh", checkout / "scripts")
    (checkout / "lib" / "server").mkdir(parents=True, exist_ok=True)
    (checkout / "lib" / "server" / "launch.py").write_text(LAUNCHER)
    (checkout / "lib" / "compile_kernels.py").write_text(COMPILE_KERNELS)
    (checkout / "requirements.txt").write_text("")
    (checkout / "constraints.txt").write_text("")
    return checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("my checkout")


@pytest.fixture
def made(shared_folder: Path) -> Path:
    """Make a checkout with its environment; it takes seconds, so that several tests share it."""
    checkout = lay_out(shared_folder)
    assert source(checkout)[0] == 0
    return checkout


def source(checkout: Path, python: Path | str = sys.executable, path: str = os.environ["PATH"]) -> tuple[int, str, str]:
    """Exit status, the environment's prefix and what was said."""
    script = "set -euo pipefail; source scripts/environment.sh; python -c 'import sys; print(sys.prefix)'"
    variables = {"PATH": path} | ({"PYTHON": str(python)} if python else {})
    result = subprocess.run(
        [shutil.which("bash") or "bash", "-c", script],
        cwd=checkout,
        env=variables,
        capture_output=True,
        text=True,
    )
    return result.returncode, result.stdout.strip(), result.stderr


@pytest.mark.parametrize("script", CALLERS, ids=lambda path: path.name)
def test_shell_scripts_become_their_python_file_with_the_same_arguments(made: Path, script: Path) -> None:
    """From another folder, with a blank in an argument, and an empty one."""
    shutil.copy(script, made / "scripts")
    (made / "scripts" / f"{script.stem}.py").write_text(TELLS_HOW_IT_WAS_CALLED)
    elsewhere = made / "else where"
    elsewhere.mkdir(exist_ok=True)
    command = [f"../scripts/{script.name}", "my studies", "--option", ""]
    with subprocess.Popen(command, cwd=elsewhere, stdout=subprocess.PIPE, text=True) as process:
        told = json.loads(process.communicate()[0])
    assert told == {
        "process": process.pid,
        "prefix": str(made / ".venv"),
        "folder": str(made if script.stem == "demo" else elsewhere),
        "path": str(made),
        "arguments": ["my studies", "--option", ""],
    }


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_makes_the_environment_once_and_then_reuses_it(made: Path) -> None:
    assert source(made) == (0, str(made / ".venv"), "")


def test_installs_into_the_same_environment_when_the_requirements_change(made: Path) -> None:
    (made / ".venv" / "kept").touch()
    (made / "constraints.txt").write_text("pip>=20\n")
    assert "Installing" in source(made)[2]
    assert (made / ".venv" / "kept").exists()


def test_compiles_the_kernels_at_each_install_and_not_at_each_start(made: Path) -> None:
    compiled = f"compiled by {made / '.venv'} in {made}"
    (made / "constraints.txt").write_text("pip>=21\n")
    status, prefix, said = source(made)
    assert (status, prefix) == (0, str(made / ".venv"))
    assert compiled in said
    assert compiled not in source(made)[2]


def test_kernels_that_cannot_be_compiled_are_left_to_the_server(made: Path) -> None:
    (made / "lib" / "compile_kernels.py").write_text("raise SystemExit('no compiler')")
    (made / "constraints.txt").write_text("pip>=22\n")
    status, prefix, said = source(made)
    assert (status, prefix) == (0, str(made / ".venv"))
    assert "no compiler" in said and "The server compiles them when it starts" in said
    assert source(made)[2] == ""


def test_makes_a_new_environment_where_the_checkout_was_copied(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made, tmp_path / "copy", symlinks=True)
    (copy / ".venv" / "of-the-old-place").touch()
    status, prefix, said = source(copy)
    assert (status, prefix) == (0, str(copy / ".venv"))
    assert "Installing" in said
    assert not (copy / ".venv" / "of-the-old-place").exists()


def test_environment_that_a_link_leads_to_is_left_alone(made: Path, checkout: Path) -> None:
    (checkout / ".venv").symlink_to(made / ".venv")
    assert source(checkout)[:2] == (0, str(checkout / ".venv"))
    assert not (checkout / ".venv").is_symlink()
    assert source(made) == (0, str(made / ".venv"), "")


@pytest.mark.parametrize(
    "words", [["start_server", "--studies", "my studies", "--labels", ""], ["$HOME `id` *", "a\\b", "'\"", "ü"], []]
)
def test_its_command_hands_on_every_word_as_it_is(made: Path, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('what lies in the working folder was imported')")
    command = made / ".venv" / "bin" / "monailabel"
    # Without an activated environment: there may be no other python.
    path = os.pathsep.join(os.path.dirname(shutil.which(name) or name) for name in ("env", "bash"))
    result = subprocess.run([command, *words], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [str(made / ".venv"), str(tmp_path), *words]


@pytest.mark.parametrize("there", ["#!/bin/bash\nexec python -m monailabel.main $*\n", "", None])
def test_its_command_takes_the_place_of_monai_labels_in_an_environment_of_before(made: Path, there: str | None) -> None:
    command = made / ".venv" / "bin" / "monailabel"
    own = command.read_text()
    command.unlink()
    if there is not None:
        command.write_text(there)
    assert source(made)[0] == 0
    assert command.read_text() == own
    assert os.access(command, os.X_OK)
    assert not list(command.parent.glob("monailabel.*"))


def test_its_command_is_written_once(made: Path) -> None:
    before = (made / ".venv" / "bin" / "monailabel").stat()
    source(made)
    assert (made / ".venv" / "bin" / "monailabel").stat() == before


def test_failed_install_is_not_taken_for_a_finished_one(made: Path) -> None:
    (made / "requirements.txt").write_text("./no-such-package\n")
    for _ in range(2):
        status, _, said = source(made)
        assert status == 1
        assert "could not be installed" in said
    (made / "requirements.txt").write_text("")
    assert "Installing" in source(made)[2]


def test_names_the_debian_package_where_the_venv_module_is_missing(checkout: Path) -> None:
    python = executable(checkout / "python", PYTHON_WITHOUT_VENV)
    status, _, said = source(checkout, python)
    assert status == 1
    assert said.splitlines() == [said.strip()]
    assert "sudo apt-get install python3.11-venv" in said


def test_refuses_an_interpreter_that_does_not_fit(checkout: Path) -> None:
    python = executable(checkout / "python", NOT_A_FITTING_PYTHON)
    status, _, said = source(checkout, python)
    assert status == 1
    assert str(python) in said and "3.11" in said


def test_names_the_debian_packages_where_there_is_no_fitting_python(checkout: Path) -> None:
    commands = checkout / "bin"
    commands.mkdir()
    for name in ("dirname", "grep", "cat", "sha256sum", "flock", "rm"):
        (commands / name).symlink_to(shutil.which(name) or name)
    executable(commands / "python3", NOT_A_FITTING_PYTHON)
    status, _, said = source(checkout, "", str(commands))
    assert status == 1
    assert "sudo apt-get install python3.11 python3.11-venv" in said


@pytest.mark.parametrize("status", [0, 1])
def test_page_is_built_and_the_server_does_without_it(made: Path, status: int) -> None:
    (made / "web").mkdir(exist_ok=True)
    (made / "web" / "package-lock.json").write_text("{}")
    executable(made / "scripts" / "build_page.sh", f"#!/bin/sh\necho building the page >&2; exit {status}\n")
    assert source(made)[0] == 0
    said = source(made)[2]
    assert "building the page" in said
    assert ("The annotation page could not be built" in said) == bool(status)
    shutil.rmtree(made / "web")


def test_page_is_built_once_for_its_sources(tmp_path: Path) -> None:
    """npm stands for itself: what it is asked for is written down, and its build makes one file."""
    shutil.copytree(ROOT / "web", tmp_path / "web", ignore=shutil.ignore_patterns("node_modules", "dist*"))
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "build_page.sh", tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin" / "node", "#!/bin/sh\nexit 0\n")
    asked = tmp_path / "asked"
    npm = f'#!/bin/sh\necho "$1 $3" >>{asked}\nmkdir -p dist && echo built >dist/index.html\n'
    executable(tmp_path / "bin" / "npm", npm)
    variables = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}

    def build() -> int:
        return subprocess.run([script], env=variables, capture_output=True).returncode

    assert build() == 0
    assert (tmp_path / "web" / "dist" / "index.html").read_text() == "built\n"
    times = len(asked.read_text().splitlines())
    assert build() == 0
    assert len(asked.read_text().splitlines()) == times == 3  # install, check, build; and no more
    (tmp_path / "web" / "src" / "text.ts").write_text("export const text = {};")
    assert build() == 0
    assert len(asked.read_text().splitlines()) == 2 * times

    # A build that fails leaves the page of before.
    executable(tmp_path / "bin" / "npm", "#!/bin/sh\nexit 1\n")
    (tmp_path / "web" / "src" / "text.ts").write_text("broken")
    assert build() == 1
    assert (tmp_path / "web" / "dist" / "index.html").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp.")] == []
