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
        if starts_processes(item):
            item.add_marker(pytest.mark.slow)


def starts_processes(item):
    if "workers" in item.fixturenames:
        return item.callspec.params["workers"] > 0  # processes that load patches
    in_folders = any(item.path.is_relative_to(folder) for folder in FOLDERS)
    return in_folders and (SERVERS.intersection(item.fixturenames) or names_processes(item.path))


@cache
def names_processes(path):
    return STARTS.search(path.read_text()) is not None
