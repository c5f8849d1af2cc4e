"""The OHIF that MONAI Label ships, in a headless browser, worked by mouse as a person would."""

from __future__ import annotations

import io
import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from playwright.sync_api import TimeoutError, sync_playwright
from requests_toolbelt import MultipartDecoder

from tests.viewer.recording_proxy import recording_proxy

# WebGL 2 without a GPU, and nothing that looks for a network.
FLAGS = [
    *("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--ignore-gpu-blocklist", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PATIENCE_MS = 60_000

_PLACED = "window.cornerstoneTools.annotation.state.getAnnotationManager().getNumberOfAllAnnotations()"
_VIEWPORT = """id => window.cornerstone.getRenderingEngines().flatMap(e => e.getViewports()).find(v => v.id === id)"""


@contextmanager
def browser_page(may_ask=()):
    """Open a page of a headless browser, and fail at its end if a page asked another host or told the browser to.

    Args:
        may_ask: hosts that are asked by pages which are not the server's.
    """
    with recording_proxy() as (address, asked), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS, proxy={"server": address, "bypass": "127.0.0.1"}
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        # What a policy keeps from being asked counts too.
        page.context.on("request", lambda request: asked.append(request.url) if _is_elsewhere(request.url) else None)
        yield page
        browser.close()
    asked = [target for target in asked if not any(host in target for host in may_ask)]
    assert not asked, f"The browser asked other hosts: {asked}"


def _is_elsewhere(url):
    return urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname != "127.0.0.1"


@dataclass
class Answered:
    """A request of the viewer and what came back."""

    params: dict
    status: int


class OHIF:
    """The viewer on one study; views are "axial", "sagittal" and "coronal"."""

    def __init__(self, page, server_url):
        self.page = page
        self.server_url = server_url

    def open(self, study_uid):
        self.page.goto(f"{self.server_url}/ohif/monai-label?StudyInstanceUIDs={study_uid}")
        self.page.wait_for_selector("#monailabelServerURL")
        self.page.wait_for_function(
            "window.cornerstone && window.cornerstone.getRenderingEngines().flatMap(e => e.getViewports())"
            ".filter(v => v.getImageData && v.getImageData()).length >= 3"
        )
        notice = self.page.get_by_text("Confirm and Hide")
        if notice.count():
            notice.first.click()

    def connect(self):
        """Connect the panel, or reload the server's figures."""
        self.page.fill("#monailabelServerURL", self.server_url)
        with self.page.expect_response(lambda response: response.url.endswith("/info/")):
            self.page.locator(".settingsTable button").click()
        self.page.wait_for_selector(".tab-label")

    def tab(self, name):
        return self.page.locator(".tab", has=self.page.locator("label.tab-label", has_text=name))

    def open_tab(self, name):
        self.page.locator("label.tab-label", has_text=name).click()

    def choose_label(self, label):
        self.tab("Point Prompts").locator("tr.clickable-row", has_text=label).click()

    def click(self, view, lps_mm):
        """Scrolls to the slice of a point and clicks on it."""
        self.scroll_to(view, lps_mm)
        x, y = self.on_page(view, [lps_mm])[0]
        placed = self.page.evaluate(_PLACED)
        self.page.mouse.click(x, y)
        # The viewer waits whether a second click makes it a double click; a person sees the point appear.
        try:
            self.page.wait_for_function(f"placed => {_PLACED} > placed", arg=placed, timeout=5000)
        except TimeoutError:
            # The first click into another view may only choose that view.
            self.page.mouse.click(x, y)
            self.page.wait_for_function(f"placed => {_PLACED} > placed", arg=placed)

    def scroll_to(self, view, lps_mm):
        box = self._canvas_box(view)
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        wheel, before = 100, self._slices_away(view, lps_mm)
        for _ in range(200):
            if abs(before) <= 0.5:
                return
            self.page.mouse.wheel(0, wheel)
            self.page.wait_for_timeout(60)
            after = self._slices_away(view, lps_mm)
            if abs(after) > abs(before):
                wheel = -wheel
            before = after
        raise AssertionError(f"The {view} view did not reach {lps_mm}; it is {before:.1f} slices away.")

    def on_page(self, view, points_lps_mm):
        """(N, 2) where points are drawn, in pixels of the page."""
        box = self._canvas_box(view)
        drawn = self.page.evaluate(
            f"([id, points]) => {{ const v = ({_VIEWPORT})(id); return points.map(p => [...v.worldToCanvas(p)]); }}",
            [f"mpr-{view}", np.asarray(points_lps_mm, dtype=float).tolist()],
        )
        return np.array(drawn) + [box["x"], box["y"]]

    def _slices_away(self, view, lps_mm):
        return self.page.evaluate(
            f"""([id, p]) => {{
                const v = ({_VIEWPORT})(id), c = v.getCamera(), utilities = window.cornerstone.utilities;
                const d = [0, 1, 2].reduce((s, i) => s + (p[i] - c.focalPoint[i]) * c.viewPlaneNormal[i], 0);
                return d / utilities.getTargetVolumeAndSpacingInNormalDir(v, c).spacingInNormalDirection;
            }}""",
            [f"mpr-{view}", [float(number) for number in lps_mm]],
        )

    def _canvas_box(self, view):
        return self.page.evaluate(
            f"id => ({_VIEWPORT})(id).getCanvas().getBoundingClientRect().toJSON()", f"mpr-{view}"
        )

    def run(self, tab):
        """Presses the tab's button for inference and waits for the answer."""
        with self.page.expect_response(lambda response: "/infer/" in response.url) as response_info:
            self.tab(tab).locator("button").first.click()
        response = response_info.value
        request = response.request
        parts = MultipartDecoder(request.post_data_buffer, request.header_value("content-type")).parts
        params = next(json.loads(p.text) for p in parts if b'name="params"' in p.headers[b"Content-Disposition"])
        return Answered(params, response.status)

    def focal_point(self, view):
        """(3,) LPS mm of the middle of the slice that is shown."""
        return self.page.evaluate(f"id => [...({_VIEWPORT})(id).getCamera().focalPoint]", f"mpr-{view}")

    def segment_lps_mm(self, label):
        """(N, 3) where the viewer has the voxels of a segment."""
        volume = self.page.evaluate(
            """label => {
                const service = window.services.segmentationService, volume = service.getLabelmapVolume('1');
                const segments = Object.values(service.getSegmentations()[0].config.segments);
                const wanted = segments.find(s => s.label === label).segmentIndex;
                const voxels = [], data = volume.voxelManager.getCompleteScalarDataArray();
                data.forEach((index, n) => { if (index === wanted) voxels.push(n); });
                const [shape, origin, spacing] = [volume.dimensions, volume.origin, volume.spacing].map(a => [...a]);
                return {voxels, shape, origin, spacing, direction: [...volume.direction]};
            }""",
            label,
        )
        voxels = np.stack(np.unravel_index(np.array(volume["voxels"], int), volume["shape"], order="F"), axis=-1)
        axes = np.array(volume["direction"]).reshape(3, 3) * np.array(volume["spacing"])[:, None]
        return voxels @ axes + volume["origin"]

    def open_segmentation(self, study_uid, description):
        """Open a study in OHIF's own mode, and a segmentation of it from the archive."""
        self.page.goto(f"{self.server_url}/ohif/viewer?StudyInstanceUIDs={study_uid}")
        self.page.get_by_text(description, exact=True).dblclick()
        self.page.get_by_role("button", name="Yes").click()
        self.page.wait_for_function("window.services.segmentationService.getSegmentations().length > 0")

    def opened_segment_lps_mm(self, label):
        """(N, 3) where the viewer has the voxels of a segment that it opened, slice by slice."""
        slices = self.page.evaluate(
            """label => {
                const segmentation = window.services.segmentationService.getSegmentations()[0];
                const wanted = Object.values(segmentation.segments).find(s => s.label === label).segmentIndex;
                return segmentation.representationData.Labelmap.imageIds.map(id => {
                    const image = window.cornerstone.cache.getImage(id), pixels = [];
                    image.voxelManager.getScalarData().forEach((index, n) => { if (index === wanted) pixels.push(n); });
                    const plane = window.cornerstone.metaData.get('imagePlaneModule', image.referencedImageId);
                    return {
                        pixels,
                        columns: image.columns,
                        origin: [...plane.imagePositionPatient],
                        along_row: [...plane.rowCosines].map(cosine => cosine * plane.columnPixelSpacing),
                        along_column: [...plane.columnCosines].map(cosine => cosine * plane.rowPixelSpacing),
                    };
                });
            }""",
            label,
        )
        return np.concatenate([_slice_lps_mm(**slice_) for slice_ in slices])

    def wait_for_message(self, text):
        self.page.get_by_text(text).first.wait_for()

    def pixels(self):
        """(rows, columns, 3) of the page as it is drawn now."""
        self.page.wait_for_timeout(500)
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")).astype(int)

    def figures(self):
        """Return the panel's rows of figures: the shown text, and the text at the mouse."""
        rows = self.tab("Active Learning").locator("table.optionsTable tr")
        shown = {}
        for row in rows.all():
            cells = row.locator("td").all()
            if len(cells) == 2 and cells[1].get_attribute("title"):
                shown[cells[0].text_content()] = (cells[1].text_content(), cells[1].get_attribute("title"))
        return shown

    def wait_until(self, is_true, timeout_s, poll_s=1.0):
        end = time.monotonic() + timeout_s
        while not is_true():
            assert time.monotonic() < end, f"not so after {timeout_s} s"
            self.page.wait_for_timeout(1000 * poll_s)


def _slice_lps_mm(pixels, columns, origin, along_row, along_column):
    rows, places = np.divmod(np.array(pixels, int), columns)
    return np.array(origin) + np.outer(places, along_row) + np.outer(rows, along_column)
