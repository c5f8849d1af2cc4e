"""Log in at a real realm of OpenID Connect, by tokens and in a browser. The order of the tests matters."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from lib.demo.local_server import LocalServer, free_port
from tests.exchange.studies import write_studies
from tests.installed import need_realm
from tests.server.login.people import Client
from tests.server.login.realm.realm import CLIENT, PASSWORD, Key, Realm, log_in_at_realm

USERS = {
    "anna": ["offline_access", "monailabel-annotator"],
    "ada": ["monailabel-user", "monailabel-admin"],
    "guest": ["offline_access"],
}
PAGE = {"Accept": "text/html"}


@dataclass
class Site:
    server: LocalServer
    realm: Realm

    def ask(self, token):
        return Client(self.server.url, token).get("/auth/token/valid")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    need_realm()
    root, port = tmp_path_factory.mktemp("realm"), free_port()
    realm = Realm(f"http://127.0.0.1:{port}/login/callback", USERS)
    environment = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": realm.address}
    conf = {"model_dir": str(root / "model"), "tracking": "None"}
    studies = write_studies(root / "studies")
    with LocalServer(studies, conf, root / "server.log", port, environment) as server:
        yield Site(server, realm)


def test_unreachable_realm_is_503(site):
    """503, to programs and browsers; the health check goes on."""
    browser = Client(site.server.url)
    answers = [site.ask(site.realm.token()), browser.get("/login"), browser.get("/login/callback?code=x&state=y")]
    answers.append(browser.post("/auth/token", data={"username": "anna", "password": PASSWORD}))

    assert [answer.status_code for answer in answers] == [503, 503, 401, 503]
    assert "does not answer now; try again later" in answers[0].json()["detail"]
    assert browser.get("/health").status_code == 200


@pytest.fixture(scope="module")
def realm(site):
    with site.realm as realm:
        time.sleep(3.1)  # for which a realm that was away is not asked again
        yield realm


def test_right_token_is_let_in_with_the_highest_of_its_roles(site, realm):
    assert site.ask(realm.token("anna")).json() == {"username": "anna", "role": "annotator"}
    assert site.ask(realm.token("ada")).json() == {"username": "ada", "role": "admin"}
    assert site.ask(realm.token("ada", aud=CLIENT, azp=None)).status_code == 200
    assert site.ask(realm.token("ada", aud=["account", CLIENT], azp=None)).status_code == 200


FORGED = {
    "none": lambda realm: "",
    "no token": lambda realm: "x.y.z",
    "nested as deep as it goes": lambda realm: f"{base64.b64encode(b'[' * 20_000).decode()}.x.y",
    "no base64": lambda realm: "ä.ö.ü".encode().decode("latin-1"),
    "expired": lambda realm: realm.token(exp=int(time.time()) - 60),
    "without expiry": lambda realm: realm.token(exp=None),
    "not valid yet": lambda realm: realm.token(nbf=int(time.time()) + 600),
    "foreign audience": lambda realm: realm.token(aud="account", azp="another-app"),
    "no audience": lambda realm: realm.token(aud=None, azp=None),
    "foreign issuer": lambda realm: realm.token(iss="http://127.0.0.1/other"),
    "no issuer": lambda realm: realm.token(iss=None),
    "alg none": lambda realm: jwt.encode(realm.claims(), "", "none", {"kid": realm.key.id}),
    "HS256 with the public key": lambda realm: realm.token_signed_with_public_key(),
    "another key of the same id": lambda realm: realm.token(key=Key(realm.key.id)),
    "RS512": lambda realm: jwt.encode(realm.claims(), realm.key.private, "RS512", {"kid": realm.key.id}),
    "changed role": lambda realm: changed(realm.token("guest"), realm.token("ada")),
}


def changed(token, other):
    """Return a token with the claims of another one."""
    head, _, signature = token.split(".")
    return f"{head}.{other.split('.')[1]}.{signature}"


@pytest.mark.parametrize("kind", FORGED)
def test_any_other_token_is_refused(site, realm, kind):
    answer = site.ask(FORGED[kind](realm))

    assert answer.status_code == 401, kind
    assert "send a valid token" in answer.json()["detail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"realm_access": None},
        {"realm_access": {"roles": "monailabel-admin"}},
        {"realm_access": ["monailabel-admin"]},
        {"realm_access": {"roles": [["monailabel-admin"], 4, None]}},
        {"preferred_username": None},
        {"preferred_username": " "},
        {"preferred_username": "line\nbreak"},
        {"preferred_username": ["anna"]},
    ],
    ids=str,
)
def test_right_token_without_a_role_or_a_name_is_refused_by_a_sentence(site, realm, changes):
    answer = site.ask(realm.token("anna", **changes))

    assert answer.status_code == 403
    assert "ask who runs the realm" in answer.json()["detail"]


def test_role_of_a_token_holds(site, realm):
    anna = Client(site.server.url, realm.token("anna"))

    assert anna.post("/train/inextremis", json={}).status_code == 403
    assert anna.get("/info/").status_code == 200


def test_client_of_slicer_logs_in_at_the_realm(site, realm, tmp_path):
    client = MONAILabelClient(site.server.url, tmpdir=str(tmp_path))
    assert client.auth_enabled() is True
    with pytest.raises(MONAILabelClientException, match="401"):
        client.auth_token("anna", "wrong password")

    client.update_auth(client.auth_token("anna", PASSWORD))

    assert client.auth_valid_token() is True
    assert client.info()["labels"] == ["lesion"]


def log_in(site, name, path="/ohif/viewer?x=1"):
    """Log a browser in at the realm; return it and the last answer."""
    browser = Client(site.server.url)
    to_login = browser.get(path, headers=PAGE)
    to_realm = browser.get(to_login.headers["location"])
    assert to_realm.status_code == 303
    return browser, browser.get(log_in_at_realm(to_realm.headers["location"], name))


def test_browser_logs_in_at_the_realm_and_comes_back_to_its_page(site, realm):
    browser, back = log_in(site, "anna")

    assert (back.status_code, back.headers["location"]) == (303, "/ohif/viewer?x=1")
    assert browser.get("/auth/token/valid").json() == {"username": "anna", "role": "annotator"}
    assert [cookie.name for cookie in browser.cookies if cookie.name.endswith("begun")] == []
    assert all(cookie.has_nonstandard_attr("HttpOnly") for cookie in browser.cookies)


def test_request_to_the_realm_has_pkce_state_and_nonce_and_no_secret(site, realm):
    address = Client(site.server.url).get("/login").headers["location"]
    query = parse_qs(urlsplit(address).query)

    assert query["code_challenge_method"] == ["S256"] and len(query["code_challenge"][0]) == 43
    assert query["response_type"] == ["code"] and query["client_id"] == [CLIENT]
    assert len(query["state"][0]) >= 32 and len(query["nonce"][0]) >= 32
    assert "code_verifier" not in query


def test_user_without_a_role_is_refused(site, realm):
    browser, back = log_in(site, "guest")

    assert back.status_code == 403 and "has none of the roles of this server" in back.text
    assert browser.get("/info/").status_code == 401


def test_code_of_one_browser_is_of_no_use_in_another(site, realm):
    """An attacker who lets a victim open the callback with his own code logs nobody in."""
    attacker, victim = Client(site.server.url), Client(site.server.url)
    callback = log_in_at_realm(attacker.get("/login").headers["location"], "ada")
    victim.get("/login")

    for stranger in (victim, Client(site.server.url)):
        answer = stranger.get(callback)
        assert answer.status_code == 401 and "log in again" in answer.text.lower()
        assert stranger.get("/info/").status_code == 401
    assert attacker.get(callback).status_code == 303


def test_code_works_once(site, realm):
    browser = Client(site.server.url)
    to_realm = browser.get("/login")
    begun = dict(browser.cookies)
    callback = log_in_at_realm(to_realm.headers["location"], "anna")
    assert browser.get(callback).status_code == 303

    again = Client(site.server.url)
    again.cookies.update(begun)

    assert again.get(callback).status_code == 401


@pytest.mark.parametrize("query", ["", "?code=x", "?state=x&code=y", "?error=access_denied&state=x", "?state=%C3%A4"])
def test_callback_that_the_realm_did_not_send_is_a_page_with_a_way_back(site, realm, query):
    browser = Client(site.server.url)
    browser.get("/login")

    answer = browser.get(f"/login/callback{query}")

    assert answer.status_code == 401
    assert 'href="../login"' in answer.text


def test_form_of_the_login_is_not_there(site, realm):
    assert Client(site.server.url).log_in("anna", PASSWORD).status_code == 404


def test_logout_ends_the_session_here_and_leads_to_the_logout_of_the_realm(site, realm):
    browser, _ = log_in(site, "anna")

    answer = browser.post("/logout")

    assert f"{realm.address}/session/end?client_id={CLIENT}" in answer.text
    assert browser.get("/info/").status_code == 401


def test_no_token_and_no_code_is_in_the_log(site, realm):
    token = realm.token("anna")
    site.ask(token)
    site.ask(realm.token(exp=1))

    log = site.server.log.read_text()
    assert "A token is refused: Signature has expired" in log
    assert "eyJ" not in log and "code=" not in log


def test_keys_are_renewed_while_the_server_runs(site, realm):
    old, browser = realm.key, log_in(site, "anna")[0]
    realm.stop()
    realm.key = Key("second")
    realm.start()
    end = time.monotonic() + 15
    while site.ask(realm.token()).status_code == 401 and time.monotonic() < end:
        time.sleep(0.5)

    assert site.ask(realm.token()).status_code == 200
    assert site.ask(realm.token(key=old)).status_code == 401
    assert browser.get("/info/").status_code == 200


def test_sessions_go_on_while_the_realm_is_away_and_a_new_key_is_503(site, realm):
    browser = log_in(site, "anna")[0]
    realm.stop()
    time.sleep(10.1)  # between two readings because of an unknown key

    assert site.ask(realm.token(key=Key("third"))).status_code == 503
    assert browser.get("/info/").status_code == 200
    assert browser.post("/logout").status_code == 200
    realm.start()
