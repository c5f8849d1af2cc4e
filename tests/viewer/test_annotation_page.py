"""An annotator works in a real browser: from the list to accepted masks, with everything that can go wrong meanwhile.

Where voxels lie in the patient is told by SimpleITK, on scans that are oblique, left-handed or anisotropic.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
import SimpleITK as sitk
import torch
from scipy import ndimage

from lib.annotations.image_identity import voxel_checksum
from lib.annotations.mask_file import MaskRecord
from lib.annotations.mask_store import MaskStore
from lib.annotations.proposal import MAKER, PROPOSAL_TAG, Proposal
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.local_server import LocalServer
from lib.geometry.volume import Volume, load_volume
from lib.metrics import dice
from lib.networks.checkpoint import NetworkSpec, TrainedModel, TrainingState
from lib.networks.versions import ModelVersions
from lib.server.pages.annotation_page import WEB
from lib.server.project import Project
from tests.exchange.studies import write_volume
from tests.installed import need_chromium
from tests.physical import OBLIQUE, I, L, P, R, S, affine_ras
from tests.viewer.annotation_page import AnnotationPage
from tests.viewer.ohif import browser_page
from tests.viewer.phantom import SHAPE, SPACING_MM, phantom

LABELS = ("lesion", "cyst")
# Directions of increasing column, row and slice index, and the spacing.
GRIDS = {
    "oblique": ([OBLIQUE @ L, OBLIQUE @ P, -(OBLIQUE @ S)], SPACING_MM),
    "left_handed": ([R, P, S], SPACING_MM),
    "anisotropic": ([P, I, L], (0.7, 0.9, 4.0)),
}
# One for each test that changes what is stored.
STUDIES = {
    **GRIDS,
    **{
        name: ([L, P, S], SPACING_MM)
        for name in (
            "ends",
            "undo",
            "correct",
            "drawn",
            "accept",
            "labels",
            "refused",
            "keys",
            "kept",
            "learnt",
            "proposed",
            "in_advance",
            "away",
        )
    },
}


@dataclass
class Site:
    """A server on a folder of studies, and what is in them."""

    server: LocalServer
    studies: Path
    masks: dict

    def clicks(self, study, label="lesion"):
        return simulated_extreme_points(self.masks[study][label], np.random.default_rng(1)).tolist()

    def middle(self, study, label="lesion"):
        return np.argwhere(self.masks[study][label]).mean(axis=0).round().astype(int).tolist()

    def image(self, study):
        return sitk.ReadImage(str(self.studies / f"{study}.nii.gz"))

    def stored(self, study):
        return requests.get(f"{self.server.url}/studies/{study}", timeout=30).json()

    def final(self, study):
        """(X, Y, Z) of the final mask as the server has it."""
        return sitk.ReadImage(str(self.studies / "labels" / "final" / f"{study}.nii.gz"))

    def start(self, root):
        self.server = LocalServer(self.studies, _conf(root), root / "server.log", port=self.server.port)
        self.server.wait_until_ready()


def _conf(root):
    return {"labels": ",".join(LABELS), "model_dir": str(root / "model"), "tracking": "None"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("annotate")


@pytest.fixture(scope="module")
def site(root):
    need_chromium()
    assert (WEB / "index.html").exists(), "The page is not built; run scripts/build_page.sh."
    masks = {}
    for seed, (study, (axes, spacing_mm)) in enumerate(STUDIES.items()):
        image, masks[study], _ = phantom(seed, "axial")
        write_volume(root / "studies" / f"{study}.nii.gz", image, affine_ras(axes, spacing_mm, (20.0, -15.0, 30.0)))
    server = LocalServer(root / "studies", _conf(root), root / "server.log")
    server.wait_until_ready()
    site = Site(server, root / "studies", masks)
    yield site
    site.server.stop()


@pytest.fixture(scope="module")
def browser():
    """What an annotator's browser keeps lasts through all tests."""
    need_chromium()
    with browser_page() as page:
        context = page.context.browser.new_context()
        context.set_default_timeout(20_000)
        yield context


@pytest.fixture
def page(browser, site):
    """A tab of its own; it may ask this server only, and nothing may be refused."""
    tab = browser.new_page()
    tab.set_viewport_size({"width": 1280, "height": 720})
    annotation_page = AnnotationPage(tab, site.server.url)
    yield annotation_page
    tab.close()
    assert annotation_page.asked_hosts == {site.server.url.removeprefix("http://")}
    assert annotation_page.refused == []


def six_clicks(page, site, study, label="lesion", plane="axial"):
    for voxel in site.clicks(study, label):
        page.click(voxel, plane)
    page.wait_for_mask(label)


@pytest.mark.parametrize("study", GRIDS)
def test_each_plane_shows_the_patient_where_it_says_and_clicks_hit_the_voxel(page, site, study):
    page.open(study)
    image, (voxels, middle) = site.image(study), (site.masks[study]["lesion"], site.middle(study))
    for plane, across_mm, down_mm in (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2)):
        x, y = page.go_to(middle, plane)
        here, right, below = (
            page.fact("voxelAt(args[0], args[1])", x + dx, y + dy)["voxel"] for dx, dy in ((0, 0), (30, 0), (0, 30))
        )
        assert here == middle
        here_mm, right_mm, below_mm = (np.array(image.TransformIndexToPhysicalPoint(v)) for v in (here, right, below))
        # LPS: radiological, so that right on the screen is the patient's left; in the sagittal plane it is the back.
        step_mm = right_mm - here_mm
        assert np.argmax(np.abs(step_mm)) == across_mm and step_mm[across_mm] > 0
        step_mm = below_mm - here_mm
        assert np.argmax(np.abs(step_mm)) == down_mm and (step_mm[down_mm] > 0) == (down_mm == 1)
        # What is drawn there is the bright lesion, and what lies outside of it is not.
        pixels = page.pixels()
        outside = next(
            place
            for place in ((x + dx, y + dy) for dx, dy in ((90, 0), (-90, 0), (0, 90), (0, -90)))
            if (found := page.fact("voxelAt(args[0], args[1])", *place))
            and found["voxel"]
            and not any(mask[tuple(found["voxel"])] for mask in site.masks[study].values())
        )
        assert pixels[round(y) + 4, round(x) + 4].mean() > 2 * pixels[round(outside[1]), round(outside[0])].mean()

    for number, voxel in enumerate(site.clicks(study)):
        page.click(voxel, ("axial", "coronal", "sagittal")[number % 3])
    page.wait_for_mask()

    assert page.work()["foreground"] == site.clicks(study)
    assert site.stored(study)["labels"]["lesion"]["clicks"]["foreground_voxel"] == site.clicks(study)
    assert dice(page.mask(SHAPE), voxels) > 0.85


def test_six_clicks_from_the_list_with_the_ends_named_make_the_mask_by_themselves(page, site):
    page.open("undo")
    page.page.locator("#studies").get_by_text("ends.nii.gz").click()
    page.wait_until_ready("ends")
    clicks = site.clicks("ends")
    lowest = min(clicks, key=lambda voxel: voxel[2])  # its slices go upwards
    for voxel in [voxel for voxel in clicks if voxel != lowest]:
        page.click(voxel)

    assert "5 of 6 found" in page.page.locator("#structure").inner_text()
    page.page.locator("#structure .hint").get_by_text("One more: Inferior, the lowest point").wait_for()
    assert page.page.locator("#structure .extremes .found").count() == 5
    page.press("i")  # no points in the way of the pixel
    x, y = page.go_to(site.middle("ends"), "axial")
    red, green, blue = page.pixels()[round(y) + 5, round(x) + 5]
    assert red == green == blue

    page.click(lowest)
    page.wait_for_mask()

    page.says("lesion: mask computed")
    x, y = page.go_to(site.middle("ends"), "axial")
    assert dice(page.mask(SHAPE), site.masks["ends"]["lesion"]) > 0.85
    # It is drawn: the grey lesion has the label's colour.
    red, green, blue = page.pixels()[round(y) + 5, round(x) + 5]
    assert red > blue + 20 and green > blue + 10
    # The volume that the panel tells is that of the mask.
    told_ml = float(page.page.locator("#structure dd", has_text="ml").inner_text().split()[0])
    assert told_ml == pytest.approx(page.mask(SHAPE).sum() * np.prod(SPACING_MM) / 1000, abs=0.01)


def test_points_are_undone_redone_dragged_and_deleted(page, site):
    page.open("undo")
    clicks = site.clicks("undo")
    six_clicks(page, site, "undo")
    first = page.mask(SHAPE)

    page.press("Control+z")
    assert page.work()["foreground"] == clicks[:5] and page.work()["source"] == "none"
    assert not page.mask(SHAPE).any()

    page.press("Control+y")
    page.wait_for_mask()
    assert page.work()["foreground"] == clicks and np.array_equal(page.mask(SHAPE), first)

    moved = [clicks[0][0] + 2, clicks[0][1] + 1, clicks[0][2]]
    page.drag(clicks[0], moved)
    page.wait_for_mask()
    assert page.work()["foreground"][0] == moved
    assert site.stored("undo")["labels"]["lesion"]["clicks"]["foreground_voxel"][0] == moved

    page.press("Control+z")
    page.wait_until_idle()
    assert np.array_equal(page.mask(SHAPE), first)
    # What is undone is undone on the server as well.
    assert site.stored("undo")["labels"]["lesion"]["clicks"]["foreground_voxel"] == clicks

    page.page.mouse.move(*page.go_to(clicks[3], "axial"))
    page.press("Delete")
    assert page.work()["foreground"] == [*clicks[:3], *clicks[4:]]


def test_further_clicks_correct_the_mask(page, site):
    page.open("correct")
    six_clicks(page, site, "correct")
    before = page.mask(SHAPE)
    middle = site.middle("correct")

    page.click(middle, button="right")
    page.wait_until_idle()
    assert page.work()["background"] == [middle]
    assert before[tuple(middle)] and not page.mask(SHAPE)[tuple(middle)]

    page.press("Control+z")
    page.wait_until_idle()
    assert page.mask(SHAPE)[tuple(middle)]

    x, y = page.go_to(middle, "sagittal")
    page.page.keyboard.down("Shift")
    page.page.mouse.click(x, y)
    page.page.keyboard.up("Shift")
    page.wait_until_idle()
    assert not page.mask(SHAPE)[tuple(middle)]

    page.press("Control+z")
    page.wait_until_idle()
    outside = np.argwhere(ndimage.binary_dilation(before) & ~before).tolist()[0]
    assert not page.mask(SHAPE)[tuple(outside)]
    page.click(outside)
    page.wait_until_idle()
    assert page.mask(SHAPE)[tuple(outside)]


def test_drawing_is_undone_filled_between_slices_and_accepted_where_it_was_drawn(page, site):
    page.open("drawn")
    page.press("b")
    low, high = [15, 30, 10], [15, 30, 14]
    page.drag(low, [25, 30, 10])
    in_plane = page.mask(SHAPE)
    assert in_plane[20, 30, 10] and not in_plane[:, :, :10].any() and not in_plane[:, :, 11:].any()

    page.drag(high, [25, 30, 14])
    page.press("g")
    page.says("3 slices filled")
    filled = page.mask(SHAPE)
    assert filled[20, 30, 10:15].all() and not filled[20, 30, 15]

    page.press("e")
    page.drag([20, 30, 12], [20, 31, 12])
    assert not page.mask(SHAPE)[20, 30, 12]
    page.press("Control+z")
    assert np.array_equal(page.mask(SHAPE), filled)

    page.press("b")
    page.press("d")  # a ball
    page.click([40, 20, 20])
    page.drag([40, 20, 20], [40, 20, 20])
    assert page.mask(SHAPE)[40, 20, 19:22].all()
    page.press("Control+z")
    page.press("d")

    page.press("a")
    page.wait_for_mask(source="final")
    states = {label: stored["state"] for label, stored in site.stored("drawn")["labels"].items()}
    assert states == {"lesion": "final", "cyst": "none"}  # nothing was said of the cyst
    stored = site.final("drawn")
    assert np.array_equal(sitk.GetArrayFromImage(stored).T == 1, filled)
    for voxel in ([20, 30, 10], [15, 30, 14]):
        assert stored.TransformIndexToPhysicalPoint(voxel) == pytest.approx(
            site.image("drawn").TransformIndexToPhysicalPoint(voxel), abs=1e-3
        )


def test_accepting_makes_the_mask_final_and_next_brings_another_study(page, site):
    page.open("accept")
    six_clicks(page, site, "accept")
    shown = page.mask(SHAPE)

    page.press("a")
    page.wait_for_mask(source="final")

    final = site.stored("accept")["final"]
    assert final["annotator"] == "anna" and final["origin"]["lesion"] == "accepted" and final["labels"] == ["lesion"]
    assert np.array_equal(sitk.GetArrayFromImage(site.final("accept")).T == 1, shown)
    assert page.fact("work('cyst').stored") == "none"

    page.press("x")  # goes on with the cyst
    page.says("accept.nii.gz is done")
    assert site.stored("accept")["labels"]["cyst"]["state"] == "absent"
    assert site.stored("accept")["state"] == "final"

    page.press("n")
    page.wait_until("() => window.inextremis.ready && window.inextremis.study !== 'accept'")


def test_masks_of_other_labels_are_shown_and_not_overwritten(page, site):
    page.open("labels")
    six_clicks(page, site, "labels")
    page.press("2")
    six_clicks(page, site, "labels", "cyst")
    lesion, cyst = page.mask(SHAPE), page.mask(SHAPE, "cyst")
    assert dice(cyst, site.masks["labels"]["cyst"]) > 0.8 and lesion.any()

    page.press("b")
    middle = site.middle("labels")
    page.drag(middle, [middle[0] + 4, middle[1], middle[2]])

    assert np.array_equal(page.mask(SHAPE), lesion)


def test_refusal_is_shown_beside_the_points_in_the_servers_words(page, site):
    page.open("refused")
    for number in range(6):
        page.click([20 + 3 * number, 20 + 2 * number, 14])

    page.page.locator("#structure .hint.error").get_by_text("all clicks have the same k index (14)").wait_for()

    page.press("Control+z")
    assert page.page.locator("#structure .hint.error").count() == 0
    page.refused.clear()  # the browser's own word of status 422


def test_points_can_be_placed_by_keys_alone(page, site):
    page.open("keys")
    page.page.locator("#stage").focus()
    target = site.clicks("keys")[0]
    at = page.fact("crosshair")
    # In the axial plane of a scan that lies as it is shown: i to the right, j down.
    for axis, (less, more) in enumerate((("ArrowLeft", "ArrowRight"), ("ArrowUp", "ArrowDown"))):
        for _ in range(abs(target[axis] - at[axis])):
            page.press(f"Shift+{more if target[axis] > at[axis] else less}")
    for _ in range(abs(target[2] - at[2])):
        page.press("ArrowUp" if target[2] > at[2] else "ArrowDown")
    page.press("Enter")

    assert page.work()["foreground"] == [target]
    page.press("Backspace")
    assert page.work()["foreground"] == []


def test_window_is_dragged_and_the_view_turned(page, site):
    page.open("keys")
    before = page.fact("window")
    page.drag([20, 20, 14], [30, 20, 14], button="right")
    low, high = page.fact("window")
    assert high - low > before[1] - before[0]
    assert page.work()["background"] == []  # a drag is no click

    right_of = "voxelAt(args[0] + 20, args[1]).voxel[0]"
    x, y = page.go_to([20, 20, 14], "axial")
    assert page.fact(right_of, x, y) > 20
    page.press("r")
    x, y = page.go_to([20, 20, 14], "axial")
    assert page.fact(right_of, x, y) < 20
    assert "Neurological" in page.page.locator("#overlay").text_content()
    page.press("r")

    page.page.locator("#overlay .plane", has_text="Coronal").click()
    page.wait_until("() => document.querySelectorAll('#overlay [data-plane]').length === 1")
    assert page.work()["foreground"] == []  # a click on the name is no point
    page.press("v")
    page.wait_until("() => document.querySelectorAll('#overlay [data-plane]').length === 3")


def test_what_is_not_stored_is_back_after_the_tab_was_closed(page, site, browser):
    page.open("kept")
    clicks = site.clicks("kept")
    for voxel in clicks[:3]:
        page.click(voxel)
    page.press("b")
    page.press("2")
    page.drag([10, 40, 5], [16, 40, 5])
    drawn = page.mask(SHAPE, "cyst")
    page.page.wait_for_timeout(500)
    page.page.close()

    again = AnnotationPage(browser.new_page(), site.server.url)
    again.open("kept")
    assert again.work()["foreground"] == clicks[:3]
    assert drawn.any() and np.array_equal(again.mask(SHAPE, "cyst"), drawn)
    again.says("were restored from this browser")
    again.page.close()


def test_automatic_mask_is_proposed_with_its_version_and_can_be_rejected_or_accepted(page, site, root):
    spec = NetworkSpec.plan(LABELS, (1.0, 1.0, 1.5), (16, 16, 16), levels=2, base_channels=2)
    network = spec.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        [bias for bias in network.parameters() if bias.shape == (1 + len(LABELS),)][-1][1] = 9.0  # lesion everywhere
    ModelVersions(root / "model" / "inextremis.pt").publish(
        TrainedModel(spec, network, 1, crf=False), TrainingState({}, 1), base=0
    )
    params = {"lesion": site.clicks("learnt"), "background": []}
    clicked = requests.post(
        f"{site.server.url}/infer/extreme_points",
        params={"image": "learnt", "output": "json"},
        data={"params": json.dumps(params)},
        timeout=60,
    )
    assert clicked.ok  # of a label that nobody has annotated there is no proposal
    page.open("proposed")
    page.wait_for_mask(source="proposal")

    assert page.work()["version"] == 1 and page.mask(SHAPE).any()
    assert "Automatic proposal, model version 1" in page.page.locator("#structure").inner_text()

    page.press("j")
    assert not page.mask(SHAPE).any() and page.work()["source"] == "none"
    page.press("p")
    page.wait_for_mask(source="proposal")
    shown = page.mask(SHAPE)
    page.press("a")
    page.wait_for_mask(source="final")
    assert np.array_equal(sitk.GetArrayFromImage(site.final("proposed")).T == 1, shown)
    assert site.stored("proposed")["final"]["origin"] == {"lesion": "accepted"}


def test_mask_that_was_made_in_advance_is_proposed_without_the_network(page, site):
    mask = site.masks["in_advance"]["lesion"]
    project, image = Project(site.studies), load_volume(site.studies / "in_advance.nii.gz")
    record = MaskRecord(
        {"lesion": 1, "cyst": 2},
        MAKER,
        image_checksum=voxel_checksum(image.array),
        info=Proposal(7, "ab" * 32, 0.8, 0.9).info(),
    )
    store = MaskStore(project.masks(PROPOSAL_TAG), LABELS, project.mapped_masks / PROPOSAL_TAG)
    store.save("in_advance", Volume(mask.astype(np.uint8), image.geometry), record)
    page.open("in_advance")
    page.wait_for_mask(source="proposal")

    assert page.work()["version"] == 7 and np.array_equal(page.mask(SHAPE), mask)

    page.press("a")
    page.wait_for_mask(source="final")
    assert np.array_equal(sitk.GetArrayFromImage(site.final("in_advance")).T == 1, mask)
    assert site.stored("in_advance")["final"]["origin"] == {"lesion": "accepted"}


def test_server_that_is_killed_loses_nothing(page, site, root):
    page.open("away")
    clicks = site.clicks("away")
    for voxel in clicks[:4]:
        page.click(voxel)
    os.killpg(site.server.process.pid, signal.SIGKILL)
    site.server.process.wait()

    for voxel in clicks[4:]:
        page.click(voxel)
    page.page.get_by_text("The server does not answer").first.wait_for()
    assert page.work()["foreground"] == clicks
    site.start(root)
    page.wait_for_mask()
    assert site.stored("away")["labels"]["lesion"]["clicks"]["foreground_voxel"] == clicks
    page.refused.clear()  # the browser's own words of the connection
