"""A session in OHIF on a server that asks for a login: log in, click, lose the login without losing a click, log out.

A real Orthanc, a real server process, a real browser worked by mouse. The tests are one session and run in this order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from lib.annotations.store import AnnotationStore
from lib.demo.dicom import dicom_series, upload
from lib.demo.local_server import LocalServer
from lib.demo.orthanc import Orthanc
from lib.geometry.image_geometry import ImageGeometry
from lib.server.audit import last_records
from lib.server.project import Project
from tests.installed import need_chromium, need_orthanc
from tests.physical import extreme_voxels
from tests.server.login.people import PASSWORD, write_users
from tests.viewer.ohif import OHIF, browser_page
from tests.viewer.phantom import phantom

VIEWS = ("axial", "sagittal", "coronal")
PLACED = "window.cornerstoneTools.annotation.state.getAnnotationManager().getNumberOfAllAnnotations()"


@dataclass
class Session:
    viewer: OHIF
    server: LocalServer
    project: Project
    series_uid: str
    study_uid: str
    clicks_lps_mm: object

    @property
    def page(self):
        return self.viewer.page

    @property
    def address(self):
        return f"{self.server.url}/ohif/monai-label?StudyInstanceUIDs={self.study_uid}"

    def annotation(self):
        return AnnotationStore(self.project.clicks).load(self.series_uid, "lesion")

    def expire(self):
        """Lets all sessions of the server expire."""
        content = json.loads(self.project.login_sessions.read_text())
        expired = {key: {**value, "until": 1.0} for key, value in content.items()}
        self.project.login_sessions.write_text(json.dumps(expired))


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    need_orthanc()
    need_chromium()
    root = tmp_path_factory.mktemp("login")
    image, masks, affine = phantom(0, "axial")
    instances = dicom_series(image, affine, "somebody")
    clicks = ImageGeometry(image.shape, affine).voxel_to_lps(extreme_voxels(masks["lesion"]))
    conf = {"users": str(write_users(root / "users")), "labels": "lesion", "preset": "cpu"}
    environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache")}
    with Orthanc(root / "orthanc") as orthanc:
        upload(orthanc.dicomweb_url, instances)
        server = LocalServer(orthanc.dicomweb_url, conf, root / "server.log", environment=environment)
        with server, browser_page() as page:
            (folder,) = (root / "cache").iterdir()
            uids = (instances[0].SeriesInstanceUID, instances[0].StudyInstanceUID)
            yield Session(OHIF(page, server.url), server, Project(folder), *uids, clicks)


def fill_in(page, name):
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_page_of_a_study_asks_for_the_login_and_comes_back(session):
    session.page.goto(session.address)
    assert session.page.url.startswith(f"{session.server.url}/login?next=")

    fill_in(session.page, "anna")
    session.page.wait_for_url(session.address)

    session.viewer.open(session.study_uid)
    session.page.get_by_text("Logged in as anna").wait_for()


def test_clicks_bear_the_name_of_the_login(session):
    viewer = session.viewer
    assert viewer.page.input_value("#monailabelServerURL") == f"{session.server.url}/"
    viewer.connect()
    viewer.open_tab("Point Prompts")
    viewer.tab("Point Prompts").locator("select").first.select_option("extreme_points")
    viewer.choose_label("lesion")
    for number, point in enumerate(session.clicks_lps_mm):
        viewer.click(VIEWS[number % 3], point)

    assert viewer.run("Point Prompts").status == 200

    assert session.annotation().annotator == "anna"
    (record,) = [record for record in last_records(session.project.audit, 20) if record.action == "clicks"]
    assert record.who == "anna" and "Chrome" in record.program and record.address == "127.0.0.1"


def test_expired_login_is_said_and_no_click_is_lost(session):
    """The user logs in in another tab, comes back to the points as they were, and presses Run again."""
    viewer, page = session.viewer, session.page
    placed, before = page.evaluate(PLACED), session.annotation()
    session.expire()

    assert viewer.run("Point Prompts").status == 401

    page.get_by_text("Your login has expired").wait_for()
    assert page.evaluate(PLACED) == placed
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Log in again").click()
    fill_in(opened.value, "rené")
    opened.value.get_by_text("You are logged in as rené").wait_for()
    opened.value.close()
    page.bring_to_front()
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.get_by_text("Logged in as rené").wait_for()
    assert viewer.run("Point Prompts").status == 200
    assert session.annotation().annotator == "rené"
    assert session.annotation().created > before.created


def test_logout_ends_the_session_and_the_study_is_not_shown(session):
    page = session.page
    page.get_by_role("button", name="Log out").click()
    page.get_by_text("You are logged out").wait_for()

    page.goto(session.address)

    assert page.url.startswith(f"{session.server.url}/login?next=")
    assert page.request.get(f"{session.server.url}/info/").status == 401
    assert page.request.get(f"{session.server.url}/proxy/dicom/qido/studies").status == 401
