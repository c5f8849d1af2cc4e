"""A reviewer decides in a real browser: the list, the picture of a pair, the buttons, and what keeps them from it."""

from __future__ import annotations

import numpy as np
import pytest

from lib.demo.local_server import LocalServer
from tests.exchange.studies import write_studies
from tests.server.login.people import PASSWORD
from tests.server.review.reading import Site, settings, shape_mask


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("review")
    studies = write_studies(root / "studies", ["straight", "oblique", "flipped"])
    with LocalServer(studies, settings(root), root / "server.log") as server:
        site = Site(server, studies)
        for name, grow in (("anna", 0), ("bert", 3)):
            for image in ("straight", "oblique"):
                assert site.person(name).submit(image, shape_mask(grow if image == "oblique" else 0)).status_code == 200
        assert site.person("anna").submit("flipped", shape_mask()).status_code == 200
        yield site


def test_reviewer_decides_and_takes_it_back(page, site):
    blocked = []
    page.on("console", lambda said: blocked.append(said.text) if "Security Policy" in said.text else None)
    page.goto(f"{site.server.url}/review")
    page.get_by_label("Name").fill("rita")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Readings").wait_for()

    rows = page.locator("tr td:first-child").all_inner_texts()
    assert rows == ["oblique", "straight", "flipped"]  # what disagrees most, what agrees, what is not read by both
    page.get_by_role("link", name="oblique").click()
    picture = page.get_by_alt_text("outlines of the readings")
    picture.wait_for()
    assert picture.evaluate("picture => picture.complete && picture.naturalWidth > 500")
    assert page.get_by_text("anna, bert").count() == 1

    # Somebody changes their reading meanwhile.
    assert site.person("anna").submit("oblique", shape_mask(1)).status_code == 200
    page.get_by_role("button", name="bert is right").click()
    page.get_by_role("alert").get_by_text("The readings have changed since you saw them").wait_for()
    page.reload()
    page.get_by_role("button", name="bert is right").click()
    page.wait_for_url(f"{site.server.url}/review")
    page.get_by_text("decided: bert, by rita").wait_for()
    assert np.array_equal(site.person("uma").final("oblique"), shape_mask(3))

    page.get_by_role("link", name="oblique").click()
    page.get_by_role("button", name="Undo the decision").click()
    page.wait_for_url(f"{site.server.url}/review")
    assert site.person("uma").final("oblique") is None

    page.get_by_role("link", name="flipped").click()
    page.get_by_text("You can see the readings when 2 other people have finished theirs").wait_for()
    assert page.locator("img").count() == 0
    assert blocked == []
