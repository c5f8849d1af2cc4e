"""The report as a browser lays it out: nothing is wider than the page, in light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.annotations.json_file import JsonFile
from lib.report.annotated_project import read_project
from lib.report.page import render
from lib.server.audit import AuditLog
from lib.server.project import Project, open_project
from tests.exchange.studies import write_studies

LONG = "x" * 120


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of studies with names and clients that never end."""
    studies = write_studies(tmp_path_factory.mktemp("report") / "studies", ["straight", "oblique"])
    (studies / "straight.nii.gz").rename(studies / f"{LONG}.nii.gz")
    place = Project(studies)
    open_project(place, ("lesion", LONG))
    JsonFile(place.skips).change(LONG, lambda kept: {"reason": LONG, "annotator": LONG})
    details = {"image": LONG, "labels": ["lesion", LONG]}
    AuditLog(place.audit).write("acceptance taken back", LONG, {"address": "10.1.2.3", "program": LONG}, details)
    path = studies.parent / "report.html"
    path.write_text(render(read_project(str(studies), place, Path("nowhere")), 4))
    return path.as_uri()


@pytest.mark.parametrize("width", [1400, 800, 420])
def test_nothing_is_wider_than_the_page(page, report, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.locator(".scroll").evaluate_all("all => all.filter(of => of.scrollWidth > of.clientWidth).length")
    assert wide == 0 or width < 800  # on a telephone a table scrolls on its own


@pytest.mark.parametrize(("scheme", "lightness"), [("light", 255), ("dark", 24)])
def test_page_follows_the_scheme_of_the_browser(page, report, scheme, lightness):
    page.emulate_media(color_scheme=scheme)
    page.goto(report)

    colors = page.evaluate(
        "(style => [style.backgroundColor, style.color].map(of => Number(of.match(/\\d+/)[0])))"
        "(getComputedStyle(document.body))"
    )
    assert abs(colors[0] - lightness) < 12
    assert abs(colors[1] - colors[0]) > 150
