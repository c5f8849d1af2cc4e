"""Masks of clicks to learn from: of each label its own, on the voxels of the scan."""

import numpy as np
import pytest

from lib.demo.walkthrough import dice
from lib.geometry.volume import VolumeError, read_geometry
from lib.training.click_masks import ClickMaskMaker
from tests.training.phantoms import CENTRES, LABELS, ball, scan


def test_each_clicked_structure_is_drawn_with_the_value_of_its_label(tmp_path):
    mask = ClickMaskMaker(LABELS)(scan(tmp_path, "one", clicked=LABELS)).array

    assert set(np.unique(mask)) == {0, 1, 2}
    for index, label in enumerate(LABELS, start=1):
        assert dice(mask == index, ball(CENTRES[label])) > 0.9


@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1]])
def test_value_is_the_place_of_the_label_in_the_app(tmp_path, labels):
    mask = ClickMaskMaker(labels)(scan(tmp_path, "one", clicked=("cyst",))).array

    assert set(np.unique(mask)) == {0, 1 + labels.index("cyst")}


def test_structure_that_was_not_clicked_is_not_drawn(tmp_path):
    mask = ClickMaskMaker(LABELS)(scan(tmp_path, "one", clicked=("lesion",))).array

    assert not (mask.astype(bool) & ball(CENTRES["cyst"])).any()


def test_it_lies_on_the_voxels_of_the_scan(tmp_path):
    annotated = scan(tmp_path, "one")

    mask = ClickMaskMaker(LABELS)(annotated)

    assert mask.geometry.is_close(read_geometry(annotated.image_path))


def test_unreadable_scan_is_told_in_a_sentence(tmp_path):
    annotated = scan(tmp_path, "one")
    annotated.image_path.write_bytes(b"half a vol")

    with pytest.raises(VolumeError, match=r"one\.nii cannot be read"):
        ClickMaskMaker(LABELS)(annotated)
