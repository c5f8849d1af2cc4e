"""Marks the tests that start a server, a browser or another process as slow; scripts/test.sh leaves those out."""

import re
from functools import cache
from pathlib import Path

import pytest

# Below these, tests of a module that starts processes share them.
FOLDERS = [Path(__file__).parent / name for name in ("demo", "scripts", "server", "trainers", "viewer")]
WORDS = "Killing LocalServer browser_page Orthanc Popen multiprocessing running_site subprocess uvicorn"
STARTS = re.compile(rf"\b({'|'.join(WORDS.split())})\b")
SERVERS = {"archive", "guarded", "own_site", "page", "site"}


def pytest_collection_modifyitems(items):
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in FOLDERS) and (
            SERVERS.intersection(item.fixturenames) or starts_processes(item.path)
        ):
            item.add_marker(pytest.mark.slow)
        elif "workers" in item.fixturenames and item.callspec.params["workers"]:  # processes that load patches
            item.add_marker(pytest.mark.slow)


@cache
def starts_processes(path):
    return STARTS.search(path.read_text()) is not None
