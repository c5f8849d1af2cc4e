"""Deque's axe finds no fault of the level serious or worse in the annotation page, in each of its main states."""

from __future__ import annotations

import json

import numpy as np
import pytest
import requests

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.local_server import LocalServer
from lib.server.pages.annotation_page import WEB
from tests.exchange.studies import write_volume
from tests.installed import need_axe, need_chromium
from tests.viewer.ohif import browser_page
from tests.viewer.phantom import phantom

SIZE = {"width": 1280, "height": 720}
FAULTS = """async () => {
    const found = await axe.run(document, { resultTypes: ["violations"] });
    return found.violations
        .filter(({ impact }) => ["serious", "critical"].includes(impact))
        .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(" | ")}`);
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    need_chromium()
    root = tmp_path_factory.mktemp("accessibility")
    for seed in range(3):
        image, masks, affine = phantom(seed, "axial")
        write_volume(root / "studies" / f"scan_{seed}.nii.gz", image, affine)
    (root / "studies" / "broken.nii.gz").write_bytes(b"half a scan")
    conf = {"labels": "lesion,cyst", "model_dir": str(root / "model")}
    assert (WEB / "index.html").exists(), "The page is not built; run scripts/build_page.sh."
    with LocalServer(root / "studies", conf, root / "server.log") as server:
        clicks = simulated_extreme_points(masks["lesion"], np.random.default_rng(0)).tolist()
        params = {"params": json.dumps({"lesion": clicks, "client_id": "anna"})}
        asked = {"image": "scan_2", "output": "json"}
        assert requests.post(f"{server.url}/infer/extreme_points", params=asked, data=params, timeout=60).ok
        requests.post(f"{server.url}/studies/scan_1/skip", json={"reason": "Motion", "client_id": "bert"}, timeout=30)
        requests.post(f"{server.url}/studies/scan_0/working", json={"client_id": "bert"}, timeout=30)
        yield server


@pytest.fixture(scope="module")
def page(site):
    axe = need_axe()
    with browser_page() as page:
        # The policy of the page forbids scripts that are not its own, which axe is; the tests above hold the policy.
        context = page.context.browser.new_context(viewport=SIZE, bypass_csp=True, reduced_motion="reduce")
        context.set_default_timeout(20_000)
        context.add_init_script(path=axe)
        yield context.new_page()


@pytest.fixture(params=["dark", "light"])
def theme(page, site, request):
    """Open the page as a new visitor."""
    page.goto(f"{site.url}/annotate")
    page.evaluate("theme => { localStorage.clear(); localStorage['inextremis.theme'] = theme; }", request.param)
    page.evaluate("localStorage['inextremis.training'] = 'open'")
    return request.param


def visit(page, study=""):
    page.evaluate("localStorage['inextremis.name'] = 'anna'")
    page.evaluate("study => { location.hash = study; }", study)
    page.reload()
    page.locator(".study-row").first.wait_for()
    if study:
        is_ready = "study => window.inextremis?.ready && window.inextremis.study === study"
        for _ in range(200):
            if page.evaluate(is_ready, study):
                return
            page.wait_for_timeout(100)
        raise AssertionError(f"{study} was not opened")


def faults(page):
    return page.evaluate(FAULTS)


def test_list(page, theme):
    visit(page)
    assert faults(page) == []


def test_open_study(page, theme):
    visit(page, "scan_2")
    page.locator("#structure").get_by_text("6 of 6 found").wait_for()
    assert faults(page) == []


def test_dialogs_and_notices(page, theme):
    page.reload()
    page.get_by_role("dialog", name="Who annotates here?").wait_for()
    assert faults(page) == []

    visit(page, "scan_2")
    page.locator("#stage").focus()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    page.get_by_role("dialog", name="Skip this study").wait_for()
    assert faults(page) == []
    page.keyboard.press("Escape")

    page.get_by_role("button", name="anna: user menu").click()
    page.get_by_role("button", name="Change the name").wait_for()
    page.route("**/activelearning/*", lambda route: route.fulfill(status=409, json={"detail": "Nothing is left."}))
    for _ in range(30):  # a key is for the study once its dialog is gone
        page.keyboard.press("n")
        page.wait_for_timeout(300)
        if page.locator(".toast-error").count():
            break
    page.locator(".toast-error").first.wait_for()
    assert faults(page) == []
    page.unroute("**/activelearning/*")


def test_training_and_server_away(page, theme):
    """The figures of a training that runs, without the training."""
    curves = {"loss": [[n, 2 - n / 20] for n in range(20)], "validation": [[10, 0.4], [20, 0.6]]}
    figures = {"running": True, "started": None, "progress": 0.4, "epoch": 8, "epochs": 20, "sentence": None}
    running = figures | curves | {"remaining_s": 200, "error": None, "may_train": True}
    common = {"dice": 0.7, "scans": 8, "sentence": "Its score is 0.70."}
    versions = [
        common | {"version": number, "created": f"2026-11-0{number}T10:00:00+00:00", "is_published": number == 2}
        for number in (2, 1)
    ]
    page.route("**/training", lambda route: route.fulfill(json=running))
    page.route("**/models", lambda route: route.fulfill(json={"published": 2, "versions": versions}))
    visit(page)
    page.get_by_role("progressbar", name="Progress of the training").wait_for()
    page.get_by_role("button", name="Use version 1 again").wait_for()
    assert faults(page) == []
    page.get_by_role("button", name="Use version 1 again").click()
    page.get_by_role("dialog", name="Use version 1?").wait_for()
    assert faults(page) == []
    page.keyboard.press("Escape")

    page.route("**/me", lambda route: route.abort())
    page.route("**/activelearning/*", lambda route: route.abort())
    page.keyboard.press("n")
    page.locator("#banner.away").wait_for()
    assert faults(page) == []
    for address in ("training", "models", "me", "activelearning/*"):
        page.unroute(f"**/{address}")
