"""`pip install .`: the wheel holds all that the command `inextremis` needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from lib import __version__
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import free_port

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("lib", "scripts", "apps", "web")
FILES = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")
TIMEOUT_S = 180

Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the command in an environment that sees the packages of this one but not this checkout."""
    place = tmp_path_factory.mktemp("package")
    checkout = place / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, checkout / folder, ignore=ignored)
    for file in FILES:
        shutil.copy(ROOT / file, checkout)
    quiet = ("--quiet", "--no-deps", "--disable-pip-version-check")
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", *quiet, "--no-build-isolation", "--wheel-dir", place, checkout], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    python = place / "venv" / "bin" / "python"
    (wheel,) = place.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", *quiet, wheel], check=True)
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
    shutil.rmtree(checkout)
    return python.with_name("inextremis")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Make a folder to call the command from."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_says_its_version_and_its_commands(command: Path, elsewhere: Path) -> None:
    def told(*arguments: str) -> str:
        return subprocess.check_output([command, *arguments], cwd=elsewhere, env=variables(), text=True)

    assert told("--version").strip() == __version__
    assert "pre-annotate" in told("--help")
    assert told("start", "--help").startswith("usage: inextremis start ")


def test_installs_no_other_package_beside_its_own(command: Path) -> None:
    (packages,) = (command.parents[1] / "lib").glob("python*/site-packages")
    names = {path.name for path in packages.iterdir()} - {"shared.pth", "__pycache__"}
    assert names == {"inextremis", f"inextremis-{__version__}.dist-info"}


@pytest.fixture
def server(command: Path, tmp_path: Path, elsewhere: Path) -> Iterator[str]:
    """Start a server by the command, and yield its address."""
    write_demo_studies(tmp_path / "studies", tmp_path / "truth", 1)
    port = free_port()
    words = [
        command,
        "start",
        "../studies",
        "--port",
        str(port),
    ]
    log = tmp_path / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(words, cwd=elsewhere, env=variables(), stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + TIMEOUT_S
        while not answers(url):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=10).ok
    except requests.RequestException:
        return False


def test_starts_the_server_with_the_app_and_its_page(server: str) -> None:
    info = requests.get(f"{server}/info/", timeout=60).json()
    assert info["version"] == __version__
    assert "extreme_points" in info["models"] and "inextremis" in info["trainers"]
    page = requests.get(f"{server}/annotate", timeout=60)
    assert page.ok and "annotate.js" in page.text
    assert requests.get(f"{server}/studies", timeout=60).json()
