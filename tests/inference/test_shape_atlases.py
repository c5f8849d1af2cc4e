"""Atlases follow the accepted masks of a project."""

import os
import shutil
import time

import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.mask_file import MaskRecord
from lib.annotations.mask_store import MaskStore
from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.annotations.store import Annotation, AnnotationStore
from lib.clickmask.atlas_file import save_atlases
from lib.clickmask.click_network import ClickNetwork
from lib.clickmask.network_file import StoredNetwork, save_networks
from lib.clickmask.shape_atlas import MAX_SHAPES, Shape, ShapeAtlas
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume
from lib.inference import shape_atlases
from lib.inference.shape_atlases import ShapeAtlases
from tests.clickmask.bodies import lopsided

LABELS = ("left", "right")
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
BODY = lopsided()


def label_map(*indices):
    """Make a label map (X, Y, Z) uint8 with a body for each index, one behind the other."""
    return np.concatenate([index * BODY for index in indices], axis=1).astype(np.uint8)


class Project:
    def __init__(self, folder, labels=LABELS):
        self.folder = folder
        self.masks = MaskStore(folder / "final", labels, folder / "mapped", LABELS)
        self.clicks = AnnotationStore(folder / "clicks")
        self.made_of_clicks = folder / "atlases.npz"
        self.networks = folder / "networks.pt"
        self.atlases = ShapeAtlases(self.masks, self.clicks, self.made_of_clicks, self.networks)

    def accept(self, image_id, *indices, labels=None):
        labels = labels or {LABELS[index - 1]: index for index in indices}
        volume = Volume(label_map(*indices), ImageGeometry(label_map(*indices).shape, AFFINE))
        return self.masks.save(image_id, volume, MaskRecord(labels))

    def click(self, image_id, label):
        points = ExtremePoints.from_clicks(label, simulated_extreme_points(BODY))
        return self.clicks.save(Annotation.now(image_id, points, ImageGeometry(BODY.shape, AFFINE), "reader"))

    def counts(self, *, refresh=True):
        if refresh:
            self.atlases.refresh()
        return {label: learnt.atlas.count for label, learnt in self.atlases.current().items()}


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_without_masks_there_is_no_atlas(project):
    assert project.counts() == {}


def test_each_label_has_the_atlas_of_its_own_masks(project):
    project.accept("one", 1)
    project.accept("two", 1, 2)

    assert project.counts() == {"left": 2, "right": 1}
    expected = Shape.of_mask(BODY, AFFINE).mask
    np.testing.assert_allclose(project.atlases.current()["left"].atlas.mean, expected, atol=1e-3)


def test_masks_are_read_once(project, monkeypatch):
    project.accept("one", 1)
    project.counts()
    monkeypatch.setattr(shape_atlases, "load_volume", lambda *_, **__: pytest.fail("read again"))

    assert project.counts() == {"left": 1}


@pytest.mark.parametrize(
    ("image", "value", "before", "after"),
    [("two", 1, {"left": 1}, {"left": 2}), ("one", 2, {}, {"right": 1})],
    ids=["new", "replaced"],
)
def test_new_mask_is_used_after_a_refresh_and_a_replaced_one_is_dropped_at_once(project, image, value, before, after):
    project.accept("one", 1)
    project.counts()
    project.accept(image, value)

    assert project.counts(refresh=False) == before
    assert project.counts() == after


def test_deleted_mask_is_dropped_at_the_next_click(project):
    project.accept("one", 1)
    path = project.accept("two", 1)
    assert project.counts() == {"left": 2}
    path.unlink()

    assert project.counts(refresh=False) == {"left": 1}
    assert project.counts() == {"left": 1}


@pytest.mark.parametrize(
    ("labels", "counts"), [(("sinister", "right"), {"right": 1}), (LABELS[::-1], {"left": 1, "right": 1})]
)
def test_masks_have_their_labels_by_name(project, labels, counts):
    project.accept("one", 1)
    project.accept("two", 2)

    assert Project(project.folder, labels=labels).counts() == counts


def test_labels_do_not_mix_where_their_boxes_overlap(project):
    both = np.where(lopsided(scale=0.5), 2, 1 * BODY).astype(np.uint8)
    geometry = ImageGeometry(both.shape, AFFINE)
    project.masks.save("one", Volume(both, geometry), MaskRecord({"left": 1, "right": 2}))
    project.counts()

    found = project.atlases.current()
    np.testing.assert_allclose(found["left"].atlas.mean, Shape.of_mask(both == 1, AFFINE).mask, atol=1e-3)
    np.testing.assert_allclose(found["right"].atlas.mean, Shape.of_mask(both == 2, AFFINE).mask, atol=1e-3)


def test_damaged_mask_is_left_out(project, caplog):
    project.accept("one", 1)
    project.accept("two", 1).write_bytes(b"no mask")

    assert project.counts() == {"left": 1}
    assert "two is not used for the shape atlas" in caplog.text


def test_the_newest_masks_are_read_up_to_the_limit(project, monkeypatch):
    path = project.accept("000", 1, 2)
    for n in range(1, MAX_SHAPES + 3):
        shutil.copy(path, path.with_name(f"{n:03d}.nii.gz"))
    for n, mask in enumerate(sorted(path.parent.glob("*.nii.gz"))):
        os.utime(mask, (n, n))
    read = []
    monkeypatch.setattr(shape_atlases, "load_volume", counted(shape_atlases.load_volume, read))

    assert project.counts() == dict.fromkeys(LABELS, MAX_SHAPES)
    assert len(read) == MAX_SHAPES and "000.nii.gz" not in read


def counted(load, read):
    def load_and_count(path, **options):
        read.append(path.name)
        return load(path, **options)

    return load_and_count


def test_changes_are_read_in_the_background(project):
    project.atlases.start()
    project.accept("one", 1)
    project.atlases.refresh_soon()

    for _ in range(200):
        if project.counts(refresh=False):
            break
        time.sleep(0.05)
    assert project.counts(refresh=False) == {"left": 1}


# Atlases that a training made from clicks


def made_of_clicks(project, label="left", images=("one", "two")):
    for image_id in images:
        project.click(image_id, label)
    atlas = ShapeAtlas.mean_of([Shape.of_mask(BODY, AFFINE)] * 7, weight=2.5)
    save_atlases(project.made_of_clicks, {label: atlas}, {label: list(images)})
    return atlas


def test_atlas_of_clicks_is_used_without_accepted_masks(project):
    atlas = made_of_clicks(project)

    assert project.counts() == {"left": 7}
    assert project.atlases.current()["left"].atlas.digest == atlas.digest


def test_accepted_mask_replaces_the_atlas_of_clicks(project):
    made_of_clicks(project)
    project.accept("one", 1)

    assert project.counts() == {"left": 1}


def test_atlas_of_clicks_is_dropped_with_any_of_its_annotations(project):
    made_of_clicks(project)
    project.counts()
    project.clicks.path("two", "left").unlink()

    assert project.counts(refresh=False) == {}


def test_atlas_of_clicks_of_a_removed_label_is_dropped(project):
    made_of_clicks(project, label="liver")
    assert project.counts() == {}


def test_atlas_of_the_next_training_is_loaded(project):
    made_of_clicks(project)
    project.counts()
    made_of_clicks(project, label="right")

    assert project.counts(refresh=False) == {"right": 7}


# Click networks


def network_of(project, *images, label="left"):
    save_networks(project.networks, {label: StoredNetwork(ClickNetwork(), images)})


def has_network(project, label="left"):
    return project.atlases.current()[label].network is not None


def test_network_of_accepted_masks_is_used(project):
    for name in ("one", "two", "three"):
        project.accept(name, 1)
    project.counts()
    assert not has_network(project)

    network_of(project, "one", "two")
    assert has_network(project)


def test_network_is_dropped_with_any_of_its_masks(project):
    paths = {name: project.accept(name, 1) for name in ("one", "two", "three")}
    project.counts()
    network_of(project, "one", "two")
    paths["three"].unlink()
    assert has_network(project)

    paths["two"].unlink()
    assert not has_network(project)


def test_network_is_used_for_its_label_only(project):
    project.accept("one", 1, 2)
    project.counts()
    network_of(project, "one", label="right")

    assert (has_network(project, "left"), has_network(project, "right")) == (False, True)
