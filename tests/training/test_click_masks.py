"""Click masks of a training, and their agreement with drawn masks."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.mask_origin import MaskOrigin
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.volume import VolumeError, read_geometry
from lib.metrics import dice
from lib.training.atlases import TrainingAtlases
from lib.training.click_masks import USELESS_AGREEMENT, ClickMaskMaker, agreement, weight_of
from tests.training.phantoms import CENTRES, LABELS, ball, scan


@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1]])
@pytest.mark.parametrize("clicked", [LABELS, ("cyst",)])
def test_each_clicked_structure_has_the_value_of_its_label(tmp_path, labels, clicked):
    annotated = scan(tmp_path, "one", clicked=clicked)

    mask = ClickMaskMaker(labels, TrainingAtlases())(annotated)

    assert set(np.unique(mask.array)) == {0, *(1 + labels.index(label) for label in clicked)}
    for label in clicked:
        assert dice(mask.array == 1 + labels.index(label), ball(CENTRES[label])) > 0.9
    assert mask.geometry.is_close(read_geometry(annotated.image_path))


def test_unreadable_scan_is_refused(tmp_path):
    annotated = scan(tmp_path, "one")
    annotated.image_path.write_bytes(b"half a vol")

    with pytest.raises(VolumeError, match=r"one\.nii cannot be read"):
        ClickMaskMaker(LABELS, TrainingAtlases())(annotated)


# Agreement and weight


def both(folder, name, shift=0, labels=LABELS):
    """Write a clicked scan with a mask that is shifted by some voxels."""
    annotated = scan(folder, name, clicked=LABELS, masked=labels)
    mask = nib.load(annotated.mask_path)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(mask.dataobj), shift, axis=2), mask.affine), annotated.mask_path)
    return annotated


@pytest.fixture
def volumes(tmp_path):
    return ScanVolumes(
        PreparedScans(tmp_path / "prepared"), (1.0, 1.0, 1.0), ClickMaskMaker(LABELS, TrainingAtlases()), "1"
    )


@pytest.mark.parametrize(("shift", "expected"), [(0, 0.95), (4, 0.35), (8, 0.0)])
def test_agreement_is_the_dice_with_accepted_masks(tmp_path, volumes, shift, expected):
    assert agreement([both(tmp_path, "one", shift)], volumes, LABELS) == pytest.approx(expected, abs=0.08)


def test_structures_have_equal_weight(tmp_path, volumes):
    found = agreement([both(tmp_path, "one"), both(tmp_path, "two", shift=8)], volumes, LABELS)

    assert found == pytest.approx(agreement([both(tmp_path, "one")], volumes, LABELS) / 2, abs=0.02)


def test_label_without_a_mask_is_ignored(tmp_path, volumes):
    assert agreement([both(tmp_path, "one", labels=("lesion",))], volumes, LABELS) > 0.9


def test_without_a_scan_with_clicks_and_mask_the_weight_is_1(tmp_path, volumes):
    apart = [scan(tmp_path, "one", clicked=LABELS), scan(tmp_path, "two", clicked=(), masked=LABELS)]

    assert agreement(apart, volumes, LABELS) is None
    assert weight_of(None) == 1


def test_unreadable_mask_is_left_out(tmp_path, volumes):
    broken = both(tmp_path, "broken")
    broken.mask_path.write_bytes(b"half a mask")

    assert agreement([broken, both(tmp_path, "one")], volumes, LABELS) > 0.9


@pytest.mark.parametrize("origin", [MaskOrigin.ACCEPTED, MaskOrigin.CORRECTED])
def test_accepted_click_masks_are_not_compared(tmp_path, volumes, origin):
    accepted = replace(both(tmp_path, "accepted"), mask_origins=dict.fromkeys(LABELS, origin))
    assert agreement([accepted], volumes, LABELS) is None

    aside = replace(both(tmp_path, "aside", shift=5), mask_origins={"cyst": origin})
    drawn_label = replace(aside, annotations=aside.annotations[:1])

    assert agreement([accepted, aside], volumes, LABELS) == agreement([drawn_label], volumes, LABELS) < 0.8


def test_weight_is_linear_above_the_useless_agreement():
    halfway = (1 + USELESS_AGREEMENT) / 2

    assert [weight_of(dice) for dice in (0.0, USELESS_AGREEMENT, halfway, 1.0)] == pytest.approx([0, 0, 0.5, 1])
