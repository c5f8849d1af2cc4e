"""Log in with a name and a password, stay logged in, and log out: a real server over HTTP."""

from __future__ import annotations

import json
import time

import pytest
import requests
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from lib.server.events import KEEP_ALIVE_S
from lib.server.login.login_sessions import LoginSessions
from lib.server.login.user import Role, User
from lib.server.pages.annotation_page import ANNOTATION_PAGE
from lib.server.project import Project
from tests.server.login.people import NAMES, PASSWORD, Client, token_of, write_users

PAGE = {"Accept": "text/html"}


def session_cookie(browser):
    (cookie,) = [cookie for cookie in browser.cookies if cookie.name.startswith("inextremis-")]
    return cookie


@pytest.mark.parametrize("path", ["/", "/ohif/", "/ohif/viewer?StudyInstanceUIDs=1.2&x=%26"])
def test_browser_goes_from_a_page_to_the_login_and_back(guarded, path):
    browser = guarded.browser()

    to_login = browser.get(path, headers=PAGE)
    assert to_login.status_code == 303
    form = browser.get(to_login.headers["location"])
    assert form.status_code == 200 and 'name="password" type="password"' in form.text
    back = browser.log_in("anna", target=requests.compat.unquote(to_login.headers["location"].partition("next=")[2]))

    assert (back.status_code, back.headers["location"]) == (303, path)
    # Of a folder there is nothing for OHIF to open, and a page that says so; the start leads to the annotation page.
    start = 302 if ANNOTATION_PAGE.is_built else 200
    assert browser.get(path, headers=PAGE).status_code == (404 if "ohif" in path else start)


def test_user_and_rights_are_reported(guarded):
    browser = guarded.browser()
    browser.log_in("rené")

    assert browser.get("/me").json() == {
        "name": "rené",
        "role": "reviewer",
        "asks_login": True,
        "may": {"store": True, "train": False, "review": False},
    }
    assert browser.get("/auth/token/valid").json() == {"username": "rené", "role": "reviewer"}


def test_cookie_is_out_of_reach_for_scripts_and_other_sites(guarded):
    set_cookie = guarded.browser().log_in("anna").headers["set-cookie"]

    assert "HttpOnly" in set_cookie and "SameSite=lax" in set_cookie and "Path=/" in set_cookie
    assert "Max-Age=36000" in set_cookie
    assert "Secure" not in set_cookie  # without TLS, on this machine


@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", "wrong password"), ("nobody", PASSWORD), ("anna", PASSWORD + " "), ('"><script>x</script>', PASSWORD)],
)
def test_wrong_name_or_password_is_the_same_sentence_and_no_session(guarded, name, password):
    browser = guarded.browser()

    answer = browser.log_in(name, password)

    assert answer.status_code == 401
    assert "The name or the password is wrong; try again" in answer.text
    assert "set-cookie" not in answer.headers and password.strip() not in answer.text
    assert "<script>" not in answer.text
    assert browser.get("/info/").status_code == 401


@pytest.mark.parametrize(
    "target",
    [
        *("https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)"),
        *("/\t/evil.example", "http:evil.example", " //evil.example", ""),
    ],
)
def test_login_leads_to_no_other_server(guarded, target):
    browser = guarded.browser()

    assert browser.log_in("anna", target=target).headers["location"] == "/"
    again = browser.get("/login", params={"next": target})
    assert again.status_code == 400 if "\t" in target else again.headers["location"] == "/"


def test_each_login_has_a_session_of_its_own_and_ends_the_one_before(guarded):
    browser = guarded.browser()
    browser.log_in("anna")
    first = session_cookie(browser)
    browser.log_in("uma")

    assert session_cookie(browser).value != first.value
    assert requests.get(f"{guarded.url}/info/", cookies={first.name: first.value}, timeout=30).status_code == 401


def test_session_that_a_stranger_has_chosen_is_not_taken_over(guarded):
    browser = guarded.browser()
    name = session_cookie(logged_in(guarded, "anna")).name
    browser.cookies.set(name, "chosen by a stranger")

    answer = browser.log_in("anna")

    assert "chosen by a stranger" not in answer.headers["set-cookie"]
    chosen = {name: "chosen by a stranger"}
    assert requests.get(f"{guarded.url}/info/", cookies=chosen, timeout=30).status_code == 401


def logged_in(guarded, name):
    browser = guarded.browser()
    assert browser.log_in(name).status_code == 303
    return browser


def test_logout_ends_the_session_of_a_browser_or_a_token(guarded):
    browser, program = logged_in(guarded, "anna"), guarded.program("anna")
    kept = session_cookie(browser)
    assert program.get("/info/").status_code == 200

    answer = browser.post("/logout")
    program.post("/logout")

    assert answer.status_code == 200 and "You are logged out" in answer.text
    assert not browser.cookies
    assert requests.get(f"{guarded.url}/info/", cookies={kept.name: kept.value}, timeout=30).status_code == 401
    assert program.get("/info/").status_code == 401


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Bearer wrong", "Basic YW5uYTp4", "wrong", "Bearer ünïcode"])
def test_wrong_token_is_refused_although_a_session_is_there(guarded, value):
    browser = logged_in(guarded, "anna")

    assert browser.get("/info/", headers={"Authorization": value.encode()}).status_code == 401


def test_client_of_slicer_logs_in_and_works(guarded, tmp_path):
    client = MONAILabelClient(guarded.url, tmpdir=str(tmp_path))
    assert client.auth_enabled() is True
    assert client.auth_valid_token() is False
    with pytest.raises(MONAILabelClientException, match="401"):
        client.auth_token("anna", "wrong password")

    client.update_auth(client.auth_token("anna", PASSWORD))

    assert client.auth_valid_token() is True
    assert client.info()["labels"] == ["lesion", "cyst"]


def test_changes_of_the_users_file_apply_immediately(guarded):
    before = guarded.users.read_text()
    program = guarded.program("uma")
    try:
        write_users(guarded.users, {**NAMES, Role.ANNOTATOR: "uma", Role.USER: "anna"})
        assert program.get("/auth/token/valid").json()["role"] == "annotator"
        write_users(guarded.users, NAMES, before.splitlines()[0].rpartition(":")[2][:-1] + "u")
        assert program.get("/info/").status_code == 401
        write_users(guarded.users, {Role.ADMIN: "ada"})
        assert program.get("/info/").status_code == 401
        guarded.users.write_text("broken")
        assert program.get("/info/").status_code == 503
        assert "its log says why" in program.get("/info/").json()["detail"]
    finally:
        guarded.users.write_text(before)


def test_neither_passwords_nor_sessions_are_in_the_log_or_in_the_project(guarded):
    browser = logged_in(guarded, "anna")
    token = token_of(guarded.url, "anna")
    logged_in(guarded, "anna").log_in("anna", "wrong password")
    kept = b"".join(path.read_bytes() for path in guarded.studies.rglob("*") if path.is_file())

    for text in (guarded.server.log.read_bytes(), kept):
        for secret in (PASSWORD, "wrong password", token, session_cookie(browser).value):
            assert secret.encode() not in text


def test_many_wrong_passwords_are_refused_for_a_while(guarded):
    answers = [guarded.browser().log_in("somebody", "wrong password") for _ in range(11)]

    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert "Too many logins have failed" in answers[-1].text and int(answers[-1].headers["retry-after"]) > 800
    data = {"username": "somebody", "password": "wrong password"}
    assert Client(guarded.url).post("/auth/token", data=data).status_code == 429
    assert guarded.browser().log_in("anna").status_code == 303


def test_events_end_with_the_session(guarded):
    browser = guarded.browser()
    browser.log_in("anna")
    with browser.get("/events", stream=True, timeout=KEEP_ALIVE_S + 10) as events:
        other = guarded.browser()
        other.cookies.update(browser.cookies)
        begin = time.monotonic()
        assert other.post("/logout").status_code == 200
        assert b"still here" not in events.content

    assert time.monotonic() - begin < KEEP_ALIVE_S + 5


def test_session_expires(tmp_path):
    sessions = LoginSessions(tmp_path / "sessions.json", lifetime_s=0.3)
    session_id = sessions.start(User("anna", Role.ANNOTATOR))
    assert sessions.find(session_id).user == User("anna", Role.ANNOTATOR)

    time.sleep(0.4)

    assert sessions.find(session_id) is None
    sessions.start(User("uma", Role.USER))
    assert len(json.loads((tmp_path / "sessions.json").read_text())) == 1  # it is gone from the file too


def test_session_outlives_the_server_and_its_id_is_not_on_the_disk(tmp_path):
    session_id = LoginSessions(tmp_path / "sessions.json", 60).start(User("anna", Role.ANNOTATOR))

    assert LoginSessions(tmp_path / "sessions.json", 60).find(session_id) is not None
    assert session_id not in (tmp_path / "sessions.json").read_text()


def test_damaged_session_counts_as_expired(tmp_path):
    session_id = LoginSessions(tmp_path / "sessions.json", 60).start(User("anna", Role.ANNOTATOR))
    content = json.loads((tmp_path / "sessions.json").read_text())
    for changed in ({"role": 9}, {"until": "later"}, {"name": None, "until": None}):
        damaged = {key: {**value, **changed} for key, value in content.items()}
        (tmp_path / "sessions.json").write_text(json.dumps(damaged))
        assert LoginSessions(tmp_path / "sessions.json", 60).find(session_id) is None


def test_expired_session_sends_a_page_to_the_login_and_tells_a_program(guarded):
    browser = logged_in(guarded, "anna")
    path = Project(guarded.studies).login_sessions
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: {**value, "until": 1.0} for key, value in content.items()}))

    assert browser.get("/ohif/", headers=PAGE).headers["location"] == "/login?next=%2Fohif%2F"
    answer = browser.post("/infer/extreme_points", params={"image": "straight"}, data={"params": "{}"})
    assert answer.status_code == 401 and "the login has expired" in answer.json()["detail"]
