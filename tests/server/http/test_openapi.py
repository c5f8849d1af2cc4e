"""Requests that schemathesis makes from the server's own OpenAPI description: none gets a server error."""

import subprocess

import pytest

from tests.installed import SCHEMATHESIS, need_schemathesis
from tests.server.conftest import running_site

REQUESTS_EACH = 20

EXISTING = """
[parameters]
"query.image" = "study_00"
"query.label" = "study_00"
"path.image" = "study_00"
"path.model" = "extreme_points"
"path.strategy" = "first"
"path.version" = 1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    need_schemathesis()
    with running_site(tmp_path_factory.mktemp("openapi"), 2, iterations="1") as site:
        yield site.server


@pytest.mark.parametrize("parameters", ["", EXISTING], ids=["any names", "names of what is there"])
def test_no_request_gets_a_server_error(server, tmp_path, parameters):
    (tmp_path / "schemathesis.toml").write_text(parameters)
    command = [SCHEMATHESIS, "run", f"{server.url}/openapi.json", "--checks", "not_a_server_error"]
    command += ["--exclude-path", "/events"]  # which never end
    command += ["--phases", "coverage,fuzzing", "--max-examples", str(REQUESTS_EACH), "--generation-deterministic"]

    found = subprocess.run(
        [*command, "--continue-on-failure", "--request-timeout", "60", "--no-color"],
        cwd=tmp_path,  # where schemathesis looks for its settings and keeps what it found
        capture_output=True,
        text=True,
    )

    assert found.returncode == 0, found.stdout + found.stderr
    assert server.process.poll() is None
