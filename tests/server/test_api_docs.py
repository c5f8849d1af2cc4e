"""docs/api.md shows each request of the annotation page, and its commands work."""

import re
import shlex

import pytest
import requests

from lib.server.launch import ROOT
from scripts.routes import all_routes

TEXT = (ROOT / "docs" / "api.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines()
]
ROUTES = [route for route in all_routes() if route.used_by == "annotation page"]


def sent(command, **names):
    """Return the method, address, body and form of a curl command, with existing names instead of the examples."""
    method, url, body, form, words = None, None, None, {}, iter(command[1:])
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-d":
            body = next(words)
        elif word == "-F":
            name, _, value = next(words).partition("=")
            form[name] = value
        elif word == "-o":
            next(words)
        elif not word.startswith("-"):
            url = word
    for name, value in names.items():
        url, body = url.replace(name, value), body and body.replace(name, value)
        form = {key: text.replace(name, value) for key, text in form.items()}
    return method or "GET", url, body, form


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_request_of_the_page_is_shown(route):
    pattern = re.escape("$S") + re.sub(r"\\\{.*?\\\}", "[^/?]+", re.escape(route.path)) + r"(\?.*)?"

    assert any(method == route.method and re.fullmatch(pattern, url) for method, url, _, _ in map(sent, COMMANDS))


def test_commands_work_in_this_order(own_site, tmp_path):
    """But for publishing a version that is not there."""
    clicks = str(own_site.clicks("study_00"))
    names = {
        "$S": own_site.url,
        "IMAGE": "study_00",
        "[[41,60,12],[55,60,12],[48,50,12],[48,71,12],[48,60,8],[48,60,17]]": clicks,
        "tumour": "lesion",
        "=60": "=0",
    }
    mask = own_site.truth / "study_00.nii.gz"
    answers = {}
    for command in COMMANDS:
        method, url, body, form = sent(command, **names)
        files = {key: (mask.name, mask.read_bytes()) for key, value in form.items() if value.startswith("@")}
        data = {key: value for key, value in form.items() if key not in files}
        shown = f"{method} {url.removeprefix(own_site.url)}"
        answers[shown] = requests.request(method, url, data=body or data or None, files=files or None, timeout=120)

    refused = {shown: answer.status_code for shown, answer in answers.items() if not answer.ok}
    assert refused == {
        "POST /models/3/publish": 404,  # there is none
        "POST /infer/inextremis?image=study_00&output=image": 409,  # nor a model yet
    }
