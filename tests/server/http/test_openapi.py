"""Requests that schemathesis makes from the server's own OpenAPI description: none gets a server error."""

import subprocess

import pytest

from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from tests.installed import SCHEMATHESIS, need_schemathesis

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
    root = tmp_path_factory.mktemp("openapi")
    write_demo_studies(root / "studies", root / "truth", 2)
    conf = {"model_dir": str(root / "model"), "tracking": "None", "iterations": "1"}
    with LocalServer(root / "studies", conf, root / "server.log") as server:
        yield server


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
