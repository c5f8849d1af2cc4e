"""Log in and out in a real browser, by a form of the server and at a real realm of OpenID Connect."""

from __future__ import annotations

import pytest

from lib.demo.local_server import LocalServer, free_port
from tests.exchange.studies import write_studies
from tests.installed import need_realm
from tests.server.login.people import PASSWORD, write_users
from tests.server.login.realm.realm import CLIENT, Realm

MAY_ASK = ["fonts.googleapis.com"]  # by the pages of the realm


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return write_studies(tmp_path_factory.mktemp("pages") / "studies")


def shown_blocked(page):
    """Return the messages about what a page's policy has blocked."""
    said = []
    page.on("console", lambda message: said.append(message.text) if "Security Policy" in message.text else None)
    return said


def test_form_of_the_server(page, studies, tmp_path):
    conf = {"users": str(write_users(tmp_path / "users"))}
    with LocalServer(studies, conf, tmp_path / "server.log") as server:
        blocked = shown_blocked(page)
        page.goto(f"{server.url}/")
        page.get_by_label("Name").fill("rené")
        page.get_by_label("Password").fill("wrong password")
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("alert").get_by_text("The name or the password is wrong").wait_for()
        assert page.get_by_label("Name").input_value() == "rené"

        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="rené: user menu").wait_for()
        assert page.url == f"{server.url}/annotate"
        assert page.evaluate("document.cookie") == ""  # out of reach for scripts

        page.get_by_role("button", name="rené: user menu").click()
        page.get_by_role("button", name="Log out").click()
        page.get_by_text("You are logged out").wait_for()
        page.get_by_role("link", name="Log in again").click()
        page.get_by_label("Password").wait_for()
        assert blocked == []


def test_realm(page, studies, tmp_path):
    need_realm()
    port = free_port()
    users = {"anna": ["monailabel-annotator"]}
    with Realm(f"http://127.0.0.1:{port}/login/callback", users) as realm:
        environment = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": realm.address}
        with LocalServer(studies, {}, tmp_path / "server.log", port, environment) as server:
            blocked = shown_blocked(page)
            page.goto(f"{server.url}/annotate?from=a%20link")
            assert page.url.startswith(realm.address)
            page.fill("[name=login]", "anna")
            page.fill("[name=password]", "any")
            page.locator("button[type=submit]").click()
            page.get_by_role("button", name="Continue").click()

            page.get_by_role("button", name="anna: user menu").wait_for()
            assert page.url == f"{server.url}/annotate?from=a%20link"

            page.get_by_role("button", name="anna: user menu").click()
            page.get_by_role("button", name="Log out").click()
            page.wait_for_url(f"{realm.address}/session/end?client_id={CLIENT}")
            assert page.request.get(f"{server.url}/info/").status == 401
            assert [text for text in blocked if server.url in text] == []
