"""Shape atlases for the click masks of a training."""

import numpy as np
import pytest

from lib.clickmask.atlas_file import load_atlases
from lib.clickmask.shape_atlas import Shape, ShapeAtlas
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.training import atlases
from lib.training.atlases import FILE_NAME, TrainingAtlases
from tests.training.phantoms import AFFINE, CENTRES, LABELS, ball, scan, scans

ATLAS = ShapeAtlas.mean_of([Shape.of_mask(ball(CENTRES["lesion"]), AFFINE)], weight=2.0)


@pytest.fixture
def volumes(tmp_path):
    return ScanVolumes(PreparedScans(tmp_path / "prepared"), (1.0, 1.0, 1.0))


@pytest.fixture
def groups(monkeypatch):
    """Numbers of structures of atlases made from clicks; each atlas is `ATLAS`."""
    counts = []
    monkeypatch.setattr(atlases, "have_shape_in_common", lambda extremes: True)
    monkeypatch.setattr(atlases, "group_atlas", lambda structures: counts.append(len(structures)) or ATLAS)
    return counts


def counts(found):
    return {label: learnt.atlas.count for label, learnt in found.items()}


def test_atlas_of_masks_leaves_out_the_mask_of_the_scan(tmp_path, volumes):
    some = [*scans(tmp_path, 2, masked=("lesion",)), scan(tmp_path, "both", masked=LABELS)]
    atlases = TrainingAtlases.of(some, volumes, LABELS)
    found = atlases.for_scan(scan(tmp_path, "other"))

    assert counts(found) == {"lesion": 3, "cyst": 1}
    assert counts(atlases.for_scan(some[2])) == {"lesion": 2}
    assert counts(atlases.for_scan(some[0])) == {"lesion": 2, "cyst": 1}
    expected = Shape.of_mask(ball(CENTRES["lesion"]), AFFINE).mask
    np.testing.assert_allclose(found["lesion"].atlas.mean, expected, atol=1e-3)


def test_labels_without_a_mask_have_an_atlas_of_clicks(tmp_path, volumes, groups):
    some = [*scans(tmp_path, 3, clicked=LABELS), scan(tmp_path, "masked", clicked=LABELS, masked=("lesion",))]
    found = TrainingAtlases.of(some, volumes, LABELS)

    assert groups == [4]
    assert found.clicked == {"cyst": [s.image_id for s in some]}
    assert found.for_scan(some[0])["cyst"] == (ATLAS, None)


def test_image_is_read_once_for_all_labels(tmp_path, volumes, groups, monkeypatch):
    read, load = [], atlases.load_volume
    monkeypatch.setattr(atlases, "load_volume", lambda path: read.append(path.stem) or load(path))
    some = scans(tmp_path, 6, clicked=LABELS)

    TrainingAtlases.of(some, volumes, LABELS)
    assert sorted(read) == [s.image_id for s in some] and groups == [6, 6]


def test_no_image_is_read_without_a_common_shape(tmp_path, volumes, monkeypatch):
    monkeypatch.setattr(atlases, "load_volume", lambda path: pytest.fail("it was read"))

    assert TrainingAtlases.of(scans(tmp_path, 6, clicked=LABELS), volumes, LABELS).of_clicks == {}


def test_unreadable_scan_is_left_out(tmp_path, volumes, groups):
    some = scans(tmp_path, 3)
    some[1].image_path.write_bytes(b"no image")

    assert TrainingAtlases.of(some, volumes, ("lesion",)).clicked == {"lesion": ["scan 0", "scan 2"]}


def test_without_annotations_there_is_none(tmp_path, volumes):
    assert TrainingAtlases.of([], volumes, LABELS).for_scan(scan(tmp_path, "one")) == {}


def test_digest_changes_with_accepted_masks(tmp_path, volumes):
    some = scans(tmp_path, 2, masked=("lesion",))
    digests = {TrainingAtlases.of(some[:n], volumes, LABELS).digest for n in range(3)}

    assert len(digests) == 3
    assert TrainingAtlases.of(some, volumes, LABELS).digest in digests


def test_atlases_of_clicks_are_stored(tmp_path, volumes, groups):
    some = [scan(tmp_path, "one"), scan(tmp_path, "two")]
    TrainingAtlases.of(some, volumes, ("lesion",)).save(tmp_path)

    ((atlas, images),) = load_atlases(tmp_path / FILE_NAME).values()
    assert atlas.digest == ATLAS.digest and images == ["one", "two"]


def test_full_disk_is_logged(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    TrainingAtlases().save(tmp_path / "file")

    assert "are not kept" in caplog.text
