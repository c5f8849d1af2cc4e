"""scripts/command_line.py, the command `inextremis`; and what all scripts say of themselves."""

from __future__ import annotations

import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from lib import __version__
from scripts import command_line

SCRIPTS = Path(command_line.__file__).parent
# What other scripts take from; the last is sourced.
NO_SCRIPTS = ("terminal.py", "environment.sh")
MODULES = [path.stem for path in sorted(SCRIPTS.glob("*.py")) if path.name not in NO_SCRIPTS]
# The others hand their arguments to the Python file of their name.
OWN_ARGUMENTS = [path for path in sorted(SCRIPTS.glob("*.sh")) if path.stem not in MODULES + ["environment"]]


def assert_helps(text: str, name: str) -> None:
    """Check that the help names the arguments, and has an example that begins with the script's name."""
    usage, *rest = text.split("\n\n")
    assert usage.lower().startswith(f"usage: {name}")
    assert any(part.strip().endswith((".", ";")) or ". " in part for part in rest)
    example = text.partition("example:\n")[2].splitlines()
    assert example and example[0].startswith(f"  {name}")


@pytest.mark.parametrize("name", MODULES)
def test_help_of_a_script_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        import_module(f"scripts.{name}").main(["--help"])
    called = f"scripts/{name}.sh" if (SCRIPTS / f"{name}.sh").exists() else f"python -m scripts.{name}"
    called = "inextremis" if name == "command_line" else called
    assert_helps(capsys.readouterr().out, called)


@pytest.mark.parametrize("script", OWN_ARGUMENTS, ids=lambda path: path.name)
def test_help_of_a_shell_script_shows_an_example(script: Path, tmp_path: Path) -> None:
    """Before anything is installed or built."""
    (tmp_path / "scripts").mkdir()
    copy = shutil.copy(script, tmp_path / "scripts")
    assert_helps(subprocess.check_output([copy, "--help"], text=True), f"scripts/{script.name}")


@pytest.mark.parametrize("command", command_line.COMMANDS)
def test_command_runs_the_script_under_its_own_name(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/inextremis", command, "--help"])
    with pytest.raises(SystemExit, match="0"):
        command_line.main([command, "--help"])
    assert_helps(capsys.readouterr().out, f"inextremis {command}")


def test_every_shell_script_is_a_command() -> None:
    called = {path.stem for path in SCRIPTS.glob("*.sh") if path.stem in MODULES}
    assert {module for module, _ in command_line.COMMANDS.values()} == called


@pytest.mark.parametrize("arguments", [[], ["strat", "studies"]])
def test_missing_or_unknown_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command_line.main(arguments)
    assert "COMMAND" in capsys.readouterr().err


def test_version_is_that_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command_line.main(["--version"])
    assert capsys.readouterr().out.strip() == __version__
