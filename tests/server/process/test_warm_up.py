"""A server compiles its code before it answers, so that no request waits for the compiler."""

import pytest

from tests.server.asking import infer
from tests.server.conftest import running_site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Run a server and return it with the folder of its compiled code."""
    root = tmp_path_factory.mktemp("fresh")
    with running_site(root, 1, {"NUMBA_CACHE_DIR": str(root / "cache")}) as site:
        yield site, root / "cache"


def compiled(cache):
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


def test_first_click_compiles_nothing(site):
    server, cache = site
    before = compiled(cache)

    answer = infer(server, "study_00", {"lesion": server.clicks("study_00")})

    assert answer.status_code == 200
    assert before
    assert compiled(cache) == before


def test_server_is_ready_before_it_prints_its_address(site):
    lines = site[0].server.log.read_text().splitlines()

    (ready,) = (n for n, line in enumerate(lines) if "Ready for clicks" in line)
    (address,) = (n for n, line in enumerate(lines) if "running on http://" in line)
    assert ready < address
