"""A session of one annotator in OHIF, from the first click to masks without clicks.

A real Orthanc, a real server process, the OHIF that MONAI Label ships, a real browser worked by mouse. The tests are
one session and run in this order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from scipy import ndimage
from scipy.spatial import KDTree

from lib.annotations.store import AnnotationStore
from lib.demo.dicom import dicom_series, upload
from lib.demo.local_server import LocalServer
from lib.demo.orthanc import Orthanc
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import load_volume
from lib.training.run import REPORTS
from scripts.export import main as export
from tests.installed import need_chromium, need_orthanc
from tests.physical import extreme_voxels, share_in
from tests.viewer.ohif import OHIF, browser_page
from tests.viewer.phantom import phantom

VIEWS = ("axial", "sagittal", "coronal")
SCREENSHOTS = Path(__file__).parent / "screenshots"
# What a training of a minute on two cores needs to find a bright lesion.
TRAINING = {"iterations": "120", "roi_size": "32x32x16", "levels": "3"}


@dataclass
class Study:
    """A study whose structures are known, and where the headers place them."""

    study_uid: str
    series_uid: str
    masks: dict[str, np.ndarray]
    geometry: ImageGeometry

    def lps_mm(self, label):
        """(N, 3) of the structure's voxels."""
        return self.geometry.voxel_to_lps(np.argwhere(self.masks[label]))

    def clicks_lps_mm(self, label):
        return self.geometry.voxel_to_lps(np.array(extreme_voxels(self.masks[label])))


@dataclass
class Session:
    viewer: OHIF
    server: LocalServer
    studies: dict[str, Study]
    annotations: AnnotationStore

    def datastore(self):
        return requests.get(f"{self.server.url}/datastore/", timeout=30).json()

    def say_absent(self, study, label):
        """As a program does; OHIF has no button for it."""
        requests.post(
            f"{self.server.url}/infer/extreme_points",
            params={"image": study.series_uid},
            data={"params": json.dumps({"absent": [label]})},
            timeout=60,
        ).raise_for_status()

    def stored_lps_mm(self, study, label, kind="foreground"):
        stored = self.annotations.load(study.series_uid, label)
        points_voxel = getattr(stored.points, f"{kind}_voxel")
        return stored.geometry.voxel_to_lps(points_voxel)


@pytest.fixture(scope="module")
def studies():
    names = {
        "first": "axial, downwards",
        "second": "sagittal",
        "third": "coronal",
        "never clicked": "axial",
        "oblique": "oblique, downwards",
    }
    made = {}
    for seed, (name, acquisition) in enumerate(names.items()):
        image, masks, affine = phantom(seed, acquisition)
        order = np.random.default_rng(seed).permutation(image.shape[2]).tolist()
        instances = dicom_series(image, affine, name, instance_order=order)
        geometry = ImageGeometry(image.shape, affine)
        made[name] = (instances, Study(instances[0].StudyInstanceUID, instances[0].SeriesInstanceUID, masks, geometry))
    return made


@pytest.fixture(scope="module")
def session(tmp_path_factory, studies):
    need_orthanc()
    need_chromium()
    root = tmp_path_factory.mktemp("viewer")
    conf = {"labels": "lesion,cyst", "model_dir": str(root / "model"), "preset": "cpu", **TRAINING}
    environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache")}
    with Orthanc(root / "orthanc") as orthanc:
        for instances, _ in studies.values():
            upload(orthanc.dicomweb_url, instances)
        server = LocalServer(orthanc.dicomweb_url, conf, root / "server.log", environment=environment)
        with server, browser_page() as page:
            (cache,) = (root / "cache").iterdir()
            store = AnnotationStore(cache / "labels" / "extreme_points")
            yield Session(OHIF(page, server.url), server, {name: study for name, (_, study) in studies.items()}, store)


def test_study_list_shows_every_study(session):
    page = session.viewer.page
    page.goto(f"{session.server.url}/ohif/")

    for patient in session.studies:
        page.get_by_text(patient, exact=True).first.wait_for()


def test_panel_offers_the_click_model_and_its_labels(session):
    viewer = session.viewer
    viewer.open(session.studies["first"].study_uid)
    viewer.connect()
    viewer.open_tab("Point Prompts")

    assert (
        viewer.page.locator(
            ".monaiLabelPanel .subtitle", has_text="click the six extreme points of a structure"
        ).count()
        == 1
    )
    tab = viewer.tab("Point Prompts")
    assert [model.strip() for model in tab.locator("select option").all_text_contents()] == ["extreme_points"]
    assert tab.locator("tr.clickable-row").all_text_contents() == ["background", "cyst", "lesion"]
    assert len({swatch.get_attribute("style") for swatch in tab.locator(".segColor").all()}) == 3


def click_structure(session, study, label, views):
    """Clicks the six extreme points of a structure, in the views in turn."""
    session.viewer.choose_label(label)
    for n, click_mm in enumerate(study.clicks_lps_mm(label)):
        session.viewer.click(views[n % len(views)], click_mm)


def assert_stored_where_clicked(session, study, label):
    """Check that the stored points are the extreme points of the structure, by the arithmetic of the headers."""
    np.testing.assert_allclose(session.stored_lps_mm(study, label), study.clicks_lps_mm(label), atol=0.05)


def dice_mm(a_mm, b_mm):
    """Dice of two sets of voxel centres (N, 3)."""
    return 2 * share_in(a_mm, b_mm) * len(a_mm) / (len(a_mm) + len(b_mm))


def shown_share(viewer, study, label, view, before, after):
    """Shares of the structure's section and of what is far from all structures whose pixels differ."""
    axis = {"axial": 2, "sagittal": 0, "coronal": 1}[view]
    at_mm = viewer.focal_point(view)[axis]
    changed = np.abs(after - before).sum(axis=-1) > 30

    def changed_on_slice(mask):
        points_mm = study.geometry.voxel_to_lps(np.argwhere(mask))
        pixels = viewer.on_page(view, points_mm[np.abs(points_mm[:, axis] - at_mm) < 0.6]).astype(int)
        return changed[pixels[:, 1], pixels[:, 0]].mean()

    far = ~ndimage.binary_dilation(np.any(list(study.masks.values()), axis=0), iterations=5)
    return changed_on_slice(ndimage.binary_erosion(study.masks[label])), changed_on_slice(far)


def drawn_over(viewer, study, label, view, before, after):
    """Share of a structure's inner voxels near the slice that is shown whose pixels differ."""
    axis = {"axial": 2, "sagittal": 0, "coronal": 1}[view]
    points_mm = study.geometry.voxel_to_lps(np.argwhere(ndimage.binary_erosion(study.masks[label])))
    near = points_mm[np.abs(points_mm[:, axis] - viewer.focal_point(view)[axis]) < 0.6]
    pixels = viewer.on_page(view, near).astype(int)
    return (np.abs(after - before).sum(axis=-1) > 30)[pixels[:, 1], pixels[:, 0]].mean()


def show_middle(viewer, study, label):
    for view in VIEWS:
        viewer.scroll_to(view, study.lps_mm(label).mean(axis=0))


def assert_drawn(viewer, study, label, before, name):
    """In all views, and keeps a picture."""
    after = viewer.pixels()
    SCREENSHOTS.mkdir(exist_ok=True)
    Image.fromarray(after.astype(np.uint8)).save(SCREENSHOTS / f"{name}.png")
    for view in VIEWS:
        inside, outside = shown_share(viewer, study, label, view, before, after)
        assert inside > 0.9, f"{view}: {inside:.2f} of the structure is drawn over"
        assert outside < 0.02, f"{view}: {outside:.2f} of what is no structure is drawn over"


def test_six_clicks_in_the_axial_view_become_a_mask_that_is_drawn(session):
    viewer, study = session.viewer, session.studies["first"]
    click_structure(session, study, "lesion", ["axial"])
    show_middle(viewer, study, "lesion")
    before = viewer.pixels()

    answered = viewer.run("Point Prompts")

    viewer.wait_for_message("Running Inference for Point Prompts - Successful")
    assert answered.status == 200
    assert len(answered.params["lesion"]) == 6
    assert_stored_where_clicked(session, study, "lesion")
    assert dice_mm(viewer.segment_lps_mm("lesion"), study.lps_mm("lesion")) > 0.85
    assert_drawn(viewer, study, "lesion", before, "six_clicks")


def test_second_label_in_the_same_study_from_the_other_views(session):
    viewer, study = session.viewer, session.studies["first"]
    click_structure(session, study, "cyst", ["sagittal", "coronal"])
    show_middle(viewer, study, "cyst")
    before = viewer.pixels()

    answered = viewer.run("Point Prompts")

    assert answered.status == 200
    assert sorted(label for label in answered.params if len(answered.params[label] or "") == 6) == ["cyst", "lesion"]
    viewer.wait_until(lambda: len(viewer.segment_lps_mm("cyst")) > 0, 20)
    for label in ("lesion", "cyst"):
        assert_stored_where_clicked(session, study, label)
        assert dice_mm(viewer.segment_lps_mm(label), study.lps_mm(label)) > 0.85
    assert_drawn(viewer, study, "cyst", before, "two_labels")


def test_five_clicks_show_a_failure_and_store_nothing(session):
    viewer, study = session.viewer, session.studies["second"]
    open_point_prompts(session, study)
    viewer.choose_label("lesion")
    for click_mm in study.clicks_lps_mm("lesion")[:5]:
        viewer.click("axial", click_mm)

    answered = viewer.run("Point Prompts")

    viewer.wait_for_message("Failed to Run Inference for Point Prompts")
    assert answered.status == 422
    assert session.datastore()["completed"] == 1
    with pytest.raises(FileNotFoundError):
        session.annotations.load(study.series_uid, "lesion")


def test_sixth_click_and_a_background_click_complete_it(session):
    """A series acquired in sagittal slices; the clicks before are still there."""
    viewer, study = session.viewer, session.studies["second"]
    beside_mm = study.lps_mm("cyst").mean(axis=0)
    viewer.click("coronal", study.clicks_lps_mm("lesion")[5])
    viewer.choose_label("background")
    viewer.click("sagittal", beside_mm)

    answered = viewer.run("Point Prompts")

    assert answered.status == 200
    assert len(answered.params["background"]) == 1
    assert_stored_where_clicked(session, study, "lesion")
    assert np.abs(session.stored_lps_mm(study, "lesion", "background") - beside_mm).max() <= 0.8
    assert session.datastore()["completed"] == 1

    session.say_absent(study, "cyst")
    assert session.datastore()["completed"] == 2


def open_point_prompts(session, study):
    session.viewer.open(study.study_uid)
    session.viewer.connect()
    session.viewer.open_tab("Point Prompts")


def test_panel_counts_annotated_studies_before_a_training(session):
    session.viewer.connect()

    figures = session.viewer.figures()
    assert figures["Annotated:"] == ("40%", "2/5 samples annotated")
    assert figures["Training:"] == ("0%", "Not Running")


def test_update_model_trains_to_the_end_while_the_panel_is_polled(session):
    viewer = session.viewer
    viewer.open_tab("Active Learning")
    viewer.page.get_by_role("button", name="Update Model").click()
    viewer.wait_for_message("Model update task STARTED")

    seen = set()

    def is_done():
        viewer.connect()
        seen.add(viewer.figures()["Training:"][1])
        return requests.get(f"{session.server.url}/train/", timeout=30).json()["status"] != "RUNNING"

    viewer.wait_until(is_done, 150)
    task = requests.get(f"{session.server.url}/train/", timeout=30).json()
    assert task["status"] == "DONE", task["details"]
    assert seen & {f"{n}/{REPORTS} epochs completed" for n in range(1, REPORTS)}
    viewer.connect()
    assert viewer.figures()["Training:"] == ("0%", "Not Running")
    assert viewer.figures()["Train Acc:"][1].endswith("is current best metric")
    # The panel believes that it trains until it is told otherwise.
    viewer.page.get_by_role("button", name="Stop Training").click()
    viewer.wait_for_message("Model update task STOPPED")
    assert viewer.page.get_by_role("button", name="Update Model").is_visible()


def test_auto_segmentation_draws_a_study_never_clicked(session):
    viewer, study = session.viewer, session.studies["never clicked"]
    viewer.open(study.study_uid)
    viewer.connect()
    show_middle(viewer, study, "lesion")
    before = viewer.pixels()
    viewer.open_tab("Auto-Segmentation")

    answered = viewer.run("Auto-Segmentation")

    assert answered.status == 200
    viewer.wait_until(lambda: len(viewer.segment_lps_mm("lesion")) > 0, 20)
    assert dice_mm(viewer.segment_lps_mm("lesion"), study.lps_mm("lesion")) > 0.5
    after = viewer.pixels()
    Image.fromarray(after.astype(np.uint8)).save(SCREENSHOTS / "auto_segmentation.png")
    inside, _ = shown_share(viewer, study, "lesion", "axial", before, after)
    assert inside > 0.5
    assert session.datastore()["completed"] == 2


@pytest.mark.parametrize("strategy", ["random", "first"])
def test_next_sample_is_a_study_that_is_not_annotated(session, strategy):
    viewer = session.viewer
    viewer.connect()
    tab = viewer.tab("Active Learning")
    if not tab.get_by_role("button", name="Next Sample").is_visible():
        viewer.open_tab("Active Learning")
    assert tab.locator("select option").all_text_contents() == ["random", "first", "worst proposal"]
    tab.locator("select").select_option(strategy)

    tab.get_by_role("button", name="Next Sample").click()

    offered = viewer.page.locator(".nextSampleForm td")
    offered.first.wait_for()
    shown = offered.all_text_contents()
    open_studies = [session.studies[name] for name in ("third", "never clicked", "oblique")]
    assert {study.series_uid for study in open_studies} & set(shown)
    assert {study.study_uid for study in open_studies} & set(shown)
    viewer.page.keyboard.press("Escape")


def test_clicks_in_an_oblique_series_reach_the_voxels_under_the_mouse(session):
    """The views lie along the patient's axes and cut its voxels at an angle: a click is at most a voxel off."""
    viewer, study = session.viewer, session.studies["oblique"]
    open_point_prompts(session, study)
    click_structure(session, study, "lesion", VIEWS)
    show_middle(viewer, study, "lesion")
    before = viewer.pixels()

    answered = viewer.run("Point Prompts")

    assert answered.status == 200
    # In the voxels of the header: the server may count slices from the other end.
    stored_voxel = study.geometry.lps_to_voxel(session.stored_lps_mm(study, "lesion"))
    assert np.abs(stored_voxel - extreme_voxels(study.masks["lesion"])).max() < 1.05
    viewer.wait_until(lambda: len(viewer.segment_lps_mm("lesion")) > 0, 20)
    assert dice_mm(viewer.segment_lps_mm("lesion"), study.lps_mm("lesion")) > 0.85
    after = viewer.pixels()
    Image.fromarray(after.astype(np.uint8)).save(SCREENSHOTS / "oblique.png")
    inside = [drawn_over(viewer, study, "lesion", view, before, after) for view in VIEWS]
    assert min(inside) > 0.9, inside


def test_masks_pushed_to_the_archive_open_where_they_lie(session, tmp_path):
    """As a DICOM SEG, in a viewer that knows nothing of this app."""
    viewer = session.viewer
    session.say_absent(session.studies["oblique"], "cyst")
    assert export([str(tmp_path), "--server", session.server.url, "--push"]) == 0

    for name, labels in (("first", ["cyst", "lesion"]), ("oblique", ["lesion"])):
        study = session.studies[name]
        exported = load_volume(tmp_path / f"{study.series_uid}.nii.gz")
        viewer.open_segmentation(study.study_uid, f"InExtremIS: {', '.join(sorted(labels, reverse=True))}")
        for label in labels:
            opened_mm = viewer.opened_segment_lps_mm(label)
            index = 1 + ["lesion", "cyst"].index(label)
            expected_mm = exported.geometry.voxel_to_lps(np.argwhere(exported.array == index))
            assert len(opened_mm) == len(expected_mm)
            assert KDTree(opened_mm).query(expected_mm)[0].max() < 0.01, f"{name}, {label}"
