"""Each route of a real server is allowed to its role and to higher ones."""

from __future__ import annotations

import re

import pytest

from lib.demo.local_server import LocalServer
from lib.server.login.user import Role
from scripts.routes import all_routes
from tests.server.archive.dicomweb import FakeDICOMweb, served
from tests.server.http.serving import request, send
from tests.server.login.people import NAMES, Client, token_of, write_users

ROUTES = all_routes()
# Values for paths; they name nothing that exists, so that requests change nothing.
PARTS = {"path": "studies", "operation": "qido", "strategy": "none", "model": "none", "image": "none"}
OPEN = {
    *("GET /favicon.ico", "GET /health", "GET /login", "POST /login", "GET /login/callback", "GET /login/done"),
    *("GET /login/viewer.js", "POST /logout", "GET /auth/", "POST /auth/token"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Run a server on an archive, which has all routes."""
    root = tmp_path_factory.mktemp("roles")
    archive = FakeDICOMweb()
    archive.add("somebody")
    users = str(write_users(root / "users"))
    conf = {"users": users, "model_dir": str(root / "model"), "tracking": "None", "readers": "2"}
    cache = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache")}
    with served(archive) as address, LocalServer(address, conf, root / "server.log", environment=cache) as server:
        yield server


@pytest.fixture(scope="module")
def clients(server):
    return {role: Client(server.url, token_of(server.url, name)) for role, name in NAMES.items()}


def ask(client, route):
    path = re.sub(r"\{(\w+)(?::path)?\}", lambda part: PARTS.get(part[1], "none"), route.path)
    query = {"id": "none", "image": "none", "label": "none", "tag": "final", "output": "json", "seconds": 0}
    return client.request(route.method, path, params=query)


def named(route):
    return f"{route.method} {route.path}"


def test_only_the_login_the_health_check_and_the_icon_are_open_to_everybody():
    assert {named(route) for route in ROUTES if route.role is None} == OPEN


@pytest.mark.parametrize("route", [r for r in ROUTES if r.role is not None], ids=named)
def test_route_needs_a_login(server, route):
    answer = ask(Client(server.url), route)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert route.method == "HEAD" or "log in at /login" in answer.json()["detail"]


@pytest.mark.parametrize("route", [r for r in ROUTES if r.role is None], ids=named)
def test_open_routes_ask_for_no_login(server, route):
    answer = ask(Client(server.url), route)

    assert answer.status_code in (200, 404, 422) or named(route) in ("GET /login/callback", "GET /login/done")


@pytest.mark.parametrize("role", Role, ids=str)
@pytest.mark.parametrize("route", [r for r in ROUTES if r.role is not None], ids=named)
def test_route_is_allowed_to_its_role_and_higher_ones(clients, route, role):
    answer = ask(clients[role], route)

    if role >= route.role:
        assert answer.status_code not in (401, 403), answer.text
        is_not_built = route.path == "/annotate" and answer.status_code == 503
        assert answer.status_code < 500 or is_not_built, answer.text
    else:
        assert answer.status_code == 403
        assert f"needs the role {route.role}" in answer.json()["detail"]


@pytest.mark.parametrize("role", Role, ids=str)
@pytest.mark.parametrize(
    ("model", "params", "stores"),
    [
        ("extreme_points", "{}", True),
        ("extreme_points_annotation", '{"absent": ["lesion"]}', True),
        ("extreme_points", '{"use_stored_clicks": true}', False),
        ("inextremis", "{}", False),
    ],
)
def test_storing_clicks_needs_an_annotator_and_segmenting_does_not(clients, role, model, params, stores):
    answer = clients[role].post(f"/infer/{model}", params={"image": "none"}, data={"params": params})

    is_refused = stores and role < Role.ANNOTATOR
    assert answer.status_code == (403 if is_refused else 404), answer.text


def test_route_that_changes_something_is_recorded_or_one_of_these():
    unrecorded = {named(r) for r in ROUTES if r.method not in ("GET", "HEAD") and r.records is None}

    assert unrecorded == {
        "POST /activelearning/{strategy}",  # offers a study for half an hour
        "POST /studies/{image}/working",  # keeps one from being offered for half an hour
        "DELETE /studies/{image}/working",
        "PUT /session/",  # keep an upload for an hour at most
        "DELETE /session/{session_id}",
        "POST /login",  # these record themselves
        "POST /logout",
        "POST /auth/token",
    }


def test_description_of_the_routes_needs_a_login_too(server, clients):
    assert Client(server.url).get("/openapi.json").status_code == 401
    assert clients[Role.USER].get("/openapi.json").status_code == 200


def test_upload_without_a_login_is_refused_before_it_is_read(server):
    """The refusal is sent although most of the announced body is missing."""
    head = request("PUT", "/datastore/?image=x", Content_Type="multipart/form-data; boundary=x", Content_Length=10**8)

    assert send(server.port, head, b"--x", timeout_s=5)[0] == 401
