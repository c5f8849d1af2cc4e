"""The panels around the viewer in a real browser: studies, next, training, versions, others, a server that ends."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.local_server import LocalServer
from lib.networks.checkpoint import NetworkSpec, TrainedModel, TrainingState
from lib.networks.versions import ModelVersions
from lib.server.pages.annotation_page import WEB
from lib.training.record import TrainingRecord, TrainingRun
from tests.exchange.studies import write_volume
from tests.installed import need_chromium
from tests.server.login.people import PASSWORD
from tests.server.review.reading import settings
from tests.viewer.annotation_page import AnnotationPage
from tests.viewer.ohif import browser_page
from tests.viewer.phantom import phantom

STUDIES = [f"scan_{number:02}" for number in range(7)]
CLICKED = STUDIES[:4]
SHORT_TRAINING = {"iterations": 40, "train_batch_size": 1, "roi_size": "32x32x16", "learning_rate": 1e-9}


@dataclass
class Site:
    """A server on a folder of studies."""

    server: LocalServer
    root: Path
    masks: dict

    @property
    def url(self):
        return self.server.url

    def get(self, path):
        return requests.get(f"{self.url}{path}", timeout=30).json()

    def click(self, study, who):
        """Somebody else clicks the lesion of a study."""
        clicks = simulated_extreme_points(self.masks[study], np.random.default_rng(0)).tolist()
        answer = requests.post(
            f"{self.url}/infer/extreme_points",
            params={"image": study, "output": "json"},
            data={"params": json.dumps({"lesion": clicks, "client_id": who})},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text

    def start(self):
        conf = {"labels": "lesion", "model_dir": str(self.root / "model"), "tracking": "None"}
        port = self.server.port if self.server else None
        self.server = LocalServer(self.root / "studies", conf, self.root / "server.log", port=port)
        self.server.wait_until_ready()


def write_two_versions(folder):
    """Of a network that has learnt nothing; the second is published."""
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=2)
    versions, record = ModelVersions(folder / "inextremis.pt"), TrainingRecord()
    for number, score in ((1, 0.62), (2, 0.71)):
        versions.publish(TrainedModel(spec, spec.build(), number), TrainingState({}, 240 * number), base=number - 1)
        times = (f"2026-11-0{number}T10:00:00+00:00", f"2026-11-0{number}T10:02:00+00:00")
        record = record.with_run(TrainingRun(*times, number, 240 * number, 8, (2, "held-out"), score, None, 0.5))
    record.save(folder / "inextremis" / "record.json")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    need_chromium()
    assert (WEB / "index.html").exists(), "The page is not built; run scripts/build_page.sh."
    root, masks = tmp_path_factory.mktemp("panels"), {}
    for seed, study in enumerate(STUDIES):
        image, of_labels, affine = phantom(seed, "axial")
        masks[study] = of_labels["lesion"]
        write_volume(root / "studies" / f"{study}.nii.gz", image, affine)
    (root / "studies" / "broken.nii.gz").write_bytes(b"half a scan")
    write_two_versions(root / "model")
    site = Site(None, root, masks)
    site.start()
    for study in CLICKED:
        site.click(study, "anna")
    requests.post(f"{site.url}/studies/scan_06/skip", json={"reason": "Motion", "client_id": "bert"}, timeout=30)
    yield site
    site.server.stop()


@pytest.fixture(scope="module")
def browser():
    need_chromium()
    with browser_page() as page:
        yield page.context.browser


@pytest.fixture
def visit(browser):
    """Opens the page as somebody, each in a browser of their own; nothing but this server may be asked."""
    contexts, pages = [], []

    def visit(url, name="anna", **storage):
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        contexts.append(context)
        context.set_default_timeout(20_000)
        tab = context.new_page()
        kept = {f"inextremis.{key}": value for key, value in storage.items()}
        kept |= {} if name is None else {"inextremis.name": name}
        tab.add_init_script(f"for (const [k, v] of Object.entries({json.dumps(kept)})) localStorage[k] ??= v;")
        pages.append((AnnotationPage(tab, url), url))
        tab.goto(f"{url}/annotate")
        tab.locator("#topbar-project .project-final").wait_for()
        return tab

    visit.pages = pages
    yield visit
    for context in contexts:
        context.close()
    for page, url in pages:
        assert page.asked_hosts == {url.removeprefix("http://")}
        assert page.refused == []


def row(page, name):
    return page.locator("#study-list .study-row", has_text=name)


def listed(page):
    """Names of the studies that are in the list, in their order."""
    names = page.locator("#study-list .study-name").all_inner_texts()
    return [name.removesuffix(".nii.gz") for name in names]


def wait_for_list(page, names):
    wait_until(lambda: listed(page) == names, timeout_s=5)


def opened(page):
    return page.locator("#study-list [aria-selected=true]")


def wait_for_study(page, study):
    is_open = "study => window.inextremis?.ready && window.inextremis.study === study"
    wait_until(lambda: page.evaluate(is_open, study))


def wait_until(is_so, timeout_s=20):
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, f"not so after {timeout_s} s"
        time.sleep(0.1)


def test_list_tells_of_each_study_its_state_and_shows_its_picture(site, visit):
    page = visit(site.url)

    wait_for_list(page, ["broken", *STUDIES])
    assert row(page, "scan_00").locator(".study-state").inner_text() == "clicked · anna"
    assert row(page, "scan_05").locator(".study-state").inner_text() == "not started"
    assert row(page, "scan_06").locator(".study-state").inner_text() == "skipped: Motion · bert"
    assert "unreadable: The image broken.nii.gz cannot be read" in row(page, "broken").get_attribute("title")
    picture = row(page, "scan_00").locator("img")
    picture.wait_for()
    wait_until(lambda: picture.evaluate("picture => picture.complete && picture.naturalWidth > 20"))
    assert page.locator(".project-final").inner_text() == "0 of 8 final"
    assert "4 clicked" in page.locator(".progress-bar").get_attribute("aria-label")


def test_filter_and_search_by_keys_alone(site, visit):
    page = visit(site.url)

    page.keyboard.press("/")
    page.keyboard.type("SCAN 3")
    wait_for_list(page, ["scan_03"])
    page.keyboard.press("Escape")
    wait_for_list(page, ["broken", *STUDIES])
    page.keyboard.type("motion")  # the reason of a skip
    wait_for_list(page, ["scan_06"])
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")  # out of the field
    assert page.evaluate("document.activeElement.id") == "stage"

    page.locator("#study-filter").select_option("clicked")
    wait_for_list(page, CLICKED)
    assert page.locator(".studies-head .shown").inner_text() == "4 of 8 studies"
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_for_study(page, "scan_01")
    assert "scan_01" in opened(page).inner_text()

    # Of the list as it is filtered; arrow keys in it leave the slices alone.
    page.keyboard.press("ArrowUp")
    page.locator("#stage").focus()
    page.keyboard.press("PageDown")
    wait_for_study(page, "scan_02")
    page.keyboard.press("PageUp")
    wait_for_study(page, "scan_01")

    page.keyboard.press("/")
    page.keyboard.type("no such scan")
    page.get_by_text("No study matches.").wait_for()
    page.get_by_role("button", name="Show all").click()
    wait_for_list(page, ["broken", *STUDIES])


def test_list_of_2000_studies_keeps_few_rows(site, visit):
    page = visit(site.url)
    answer = site.get("/studies")
    study = next(study for study in answer["studies"] if study["id"] == "scan_05")
    many = [study | {"id": f"many_{n:04}", "name": f"many_{n:04}.nii.gz"} for n in range(2000)]
    page.route("**/studies*", lambda route: route.fulfill(json=answer | {"studies": many}))
    page.route("**/thumbnail", lambda route: route.fulfill(body=b"", content_type="image/png"))
    page.reload()
    page.get_by_text("2000 studies").wait_for()
    wait_until(lambda: 10 < page.locator(".study-row").count() < 40)

    page.locator("#study-list").focus()
    page.keyboard.press("End")
    wait_until(lambda: listed(page)[-1] == "many_1999", timeout_s=5)
    assert page.locator(".study-row").count() < 40
    page.locator("#study-search").fill("1234")
    wait_for_list(page, ["many_1234"])


def test_next_study_comes_by_the_chosen_strategy(site, visit):
    page = visit(site.url, "carl")
    page.locator("#stage").focus()
    page.keyboard.press("n")
    wait_for_study(page, "scan_04")  # the first that nobody clicked

    page.locator("#strategy").select_option("random")
    with page.expect_request("**/activelearning/random") as asked:
        page.locator("#studies").get_by_role("button", name="Next study").click()
    assert asked.value.post_data_json == {"client_id": "carl"}
    wait_for_study(page, "scan_05")  # the only one that is left
    page.reload()
    page.locator("#strategy option").first.wait_for(state="attached")
    assert page.locator("#strategy").input_value() == "random"


def test_name_is_asked_for_once_and_kept(site, visit):
    page = visit(site.url, None)
    dialog = page.get_by_role("dialog", name="Who annotates here?")
    dialog.wait_for()
    page.keyboard.type("dora")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="dora: user menu").wait_for()
    page.reload()
    page.get_by_role("button", name="dora: user menu").click()
    assert dialog.count() == 0

    page.get_by_role("button", name="Change the name").click()
    assert page.get_by_label("Your name").input_value() == "dora"
    page.get_by_label("Your name").fill("dora d.")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="dora d.: user menu").wait_for()
    with page.expect_request("**/activelearning/*") as asked:
        page.keyboard.press("n")
    assert asked.value.post_data_json == {"client_id": "dora d."}


def test_without_a_name_nobody_is_asked_again(site, visit):
    page = visit(site.url, None)
    page.get_by_role("button", name="Without a name").click()
    page.get_by_role("button", name="No name: user menu").wait_for()
    page.reload()
    page.get_by_role("button", name="No name: user menu").wait_for()
    page.wait_for_timeout(300)
    assert page.get_by_role("dialog").count() == 0


def test_sheet_of_keys_and_theme(site, visit):
    page = visit(site.url)
    page.locator("#stage").focus()
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keys")
    for words in ("accept the mask of the label", "search the studies", "point in the structure", "Page Down"):
        assert sheet.get_by_text(words).count() == 1
    page.keyboard.press("Escape")
    assert sheet.count() == 0
    assert page.evaluate("document.activeElement.id") == "stage"

    before = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("t")
    after = page.evaluate("document.documentElement.dataset.theme")
    assert {before, after} == {"light", "dark"}
    page.reload()
    page.locator(".study-row").first.wait_for()
    assert page.evaluate("document.documentElement.dataset.theme") == after


def test_two_people_see_what_the_other_works_on(site, visit):
    anna, bert = visit(site.url, "anna"), visit(site.url, "bert")
    row(anna, "scan_05").click()
    wait_for_study(anna, "scan_05")

    row(bert, "scan_05").get_by_text("anna is working on it").wait_for()
    assert "anna is working" not in row(anna, "scan_05").inner_text()
    site.click("scan_04", "anna")
    bert.locator(".progress-bar[aria-label*='5 clicked']").wait_for()


def test_earlier_version_is_used_again_after_a_confirmation(site, visit):
    page, other = visit(site.url, training="open"), visit(site.url, "bert", training="open")
    told = watch_notices(other)
    row_1 = page.locator(".versions li", has_text="Dice 0.62")
    assert "1 Nov 2026" in row_1.inner_text() and "8 scans" in row_1.inner_text()
    page.locator(".versions .in-use", has_text="Dice 0.71").wait_for()

    use = page.get_by_role("button", name="Use version 1 again")
    use.click()
    page.get_by_role("dialog", name="Use version 1?").wait_for()
    page.keyboard.press("Escape")
    assert site.get("/models")["published"] == 2
    assert use.evaluate("button => button === document.activeElement")

    use.click()
    page.get_by_role("button", name="Use version 1", exact=True).click()
    page.locator("#toasts").get_by_text("Version 1 is in use again.").wait_for()
    page.locator(".versions .in-use", has_text="Dice 0.62").wait_for()
    assert site.get("/models")["published"] == 1
    other.locator(".versions .in-use", has_text="Dice 0.62").wait_for()
    wait_until(lambda: any("Version 1 is in use again and computes proposals" in words for words in told()))


def watch_notices(page):
    """Gives what tells of the notices from now on, which go by themselves."""
    page.evaluate(
        """() => {
            window.notices = [];
            new MutationObserver(changes => {
                for (const { addedNodes } of changes) for (const node of addedNodes) notices.push(node.textContent);
            }).observe(document.getElementById("toasts"), { childList: true });
        }"""
    )
    return lambda: page.evaluate("notices")


def test_training_can_be_stopped_shows_its_progress_and_tells_of_its_end(site, visit):
    page = visit(site.url, training="open")
    page.route("**/train/inextremis", lambda route: route.continue_(post_data=json.dumps(SHORT_TRAINING)))
    notices = watch_notices(page)
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("progressbar", name="Progress of the training").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    wait_until(lambda: any("The training was stopped." in words for words in notices()))

    page.get_by_role("button", name="Start training").click()
    page.get_by_role("progressbar", name="Progress of the training").wait_for()
    page.get_by_role("img", name="Loss: from").wait_for(timeout=90_000)
    wait_until(lambda: any("The training has ended. Its score on" in words for words in notices()), timeout_s=90)
    page.locator(".training-now").get_by_text("Last training: Its score on").wait_for()
    page.get_by_role("button", name="Start training").wait_for()
    page.get_by_role("img", name="Dice on held-out scans").wait_for()
    newest = site.get("/models")["versions"][0]
    if newest["is_published"]:
        wait_until(lambda: any(f"There is a new model: version {newest['version']} " in words for words in notices()))


def test_refused_training_says_why(site, visit):
    page = visit(site.url, training="open")
    page.route("**/train/inextremis", lambda route: route.continue_(post_data='{"iterations": -3}'))
    page.get_by_role("button", name="Start training").click()
    page.locator("#toasts .toast-error").get_by_text("iterations: -3 cannot be used").wait_for()
    visit.pages[0][0].refused.clear()  # the browser's own word of the refusal


def test_server_that_was_away_is_found_again(site, visit):
    page = visit(site.url)
    os.killpg(site.server.process.pid, signal.SIGKILL)
    site.server.process.wait()
    banner = page.locator("#banner")
    banner.get_by_text("Your points are kept in this browser").wait_for()

    site.start()
    site.click("scan_05", "bert")
    page.locator("#toasts").get_by_text("The server is back.").wait_for()
    assert not banner.is_visible()
    row(page, "scan_05").get_by_text("bert").wait_for()
    # And events come again.
    requests.delete(f"{site.url}/studies/scan_06/skip", timeout=30)
    row(page, "scan_06").get_by_text("not started").wait_for()
    visit.pages[0][0].refused.clear()  # of the time when nobody answered


def test_tab_that_nobody_sees_stops_listening(site, visit):
    page = visit(site.url)
    page.add_init_script("""
        window.lines = [];
        const Real = EventSource;
        window.EventSource = class extends Real { constructor(...all) { super(...all); window.lines.push(this); } };
        window.seen = is => {
            Object.defineProperty(document, "hidden", { value: !is, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        };
    """)
    page.clock.install()
    page.reload()
    wait_until(lambda: page.evaluate("lines.map(line => line.readyState)") == [1])

    page.evaluate("seen(false)")
    page.clock.fast_forward(30_000)
    assert page.evaluate("lines.map(line => line.readyState)") == [1]
    page.clock.fast_forward(31_000)
    assert page.evaluate("lines.map(line => line.readyState)") == [2]
    page.evaluate("seen(true)")
    wait_until(lambda: page.evaluate("lines.map(line => line.readyState)") == [2, 1])


@pytest.fixture(scope="module")
def login_site(tmp_path_factory):
    """A server that asks for a login, and whose studies are read by two people each."""
    root = tmp_path_factory.mktemp("panels_login")
    image, _, affine = phantom(0, "axial")
    write_volume(root / "studies" / "scan_00.nii.gz", image, affine)
    with LocalServer(root / "studies", settings(root), root / "server.log") as server:
        yield server.url


@pytest.fixture
def log_in(browser, login_site):
    contexts = []

    def log_in(name):
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.add_init_script("localStorage['inextremis.training'] ??= 'open'")
        page.goto(f"{login_site}/annotate")
        fill_login(page, name)
        page.locator(".study-row").first.wait_for()
        return page

    yield log_in
    for context in contexts:
        context.close()


def fill_login(page, name):
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_roles_decide_what_is_offered(log_in):
    anna, rita, ada = log_in("anna"), log_in("rita"), log_in("ada")

    anna.get_by_text("Only an admin can start trainings").wait_for()
    assert anna.get_by_role("button", name="Start training").count() == 0
    assert anna.get_by_role("link", name="Review readings").count() == 0
    ada.get_by_role("button", name="Start training").wait_for()

    rita.locator("#topbar").get_by_role("link", name="Review readings").click()
    rita.get_by_role("heading", name="Readings").wait_for()

    anna.get_by_role("button", name="anna: user menu").click()
    anna.get_by_text("Role: annotator").wait_for()
    anna.get_by_role("button", name="Log out").click()
    anna.get_by_text("You are logged out").wait_for()


def test_expired_login_is_renewed_in_another_tab(login_site, log_in):
    page = log_in("anna")
    page.context.clear_cookies()
    page.keyboard.press("n")
    link = page.locator("#banner").get_by_role("link", name="Log in again in another tab")

    with page.context.expect_page() as opening:
        link.click()
    tab = opening.value
    fill_login(tab, "anna")
    tab.wait_for_url("**/login/done")
    tab.close()
    page.bring_to_front()
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    link.wait_for(state="hidden")
    page.keyboard.press("n")
    wait_for_study(page, "scan_00")
