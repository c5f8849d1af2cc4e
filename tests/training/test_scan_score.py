"""Scores of networks on scans with known answers."""

import pytest
from torch import nn

from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.volume import VolumeError
from lib.inference.prediction import BrokenModelError
from lib.training.scan_score import scan_score
from tests.training.phantoms import BOTH, LABELS, LEFT, NOWHERE, RIGHT, answering, scan


@pytest.fixture
def score(tmp_path):
    def of(ranges, labels=("lesion",), margin=2, **kinds):
        name = f"scan {len(list(tmp_path.iterdir()))}"
        annotated = scan(tmp_path, name, labels=labels, **kinds)
        volumes = ScanVolumes(PreparedScans(tmp_path / "prepared"), (1.0, 1.0, 1.0))
        return scan_score(answering(*ranges, labels=labels), annotated, volumes, margin)

    return of


@pytest.mark.parametrize("masked", [(), LABELS])
def test_network_that_finds_annotated_structures_has_a_high_score(score, masked):
    assert score([LEFT, RIGHT], LABELS, clicked=LABELS, masked=masked) > 0.9


@pytest.mark.parametrize("masked", [(), ("lesion",)])
def test_network_that_finds_nothing_or_another_structure_scores_0(score, masked):
    assert score([NOWHERE], masked=masked) == 0
    assert score([RIGHT], masked=masked) == 0


def test_score_of_a_mask_is_its_dice(score):
    # The network finds two balls of the same size, and the mask has one.
    assert score([BOTH], masked=("lesion",)) == pytest.approx(2 / 3, abs=0.02)


def test_mask_is_used_instead_of_clicks_on_the_same_label(score):
    assert score([BOTH], clicked=("lesion",), masked=("lesion",)) == score([BOTH], clicked=(), masked=("lesion",))


def test_unanswered_label_is_ignored(score):
    assert score([LEFT, NOWHERE], LABELS, clicked=("lesion",)) > 0.9
    assert score([LEFT, NOWHERE], LABELS, clicked=(), masked=("lesion",)) > 0.9


def test_labels_have_equal_weight(score):
    assert score([LEFT, NOWHERE], LABELS, clicked=(), masked=LABELS) == pytest.approx(0.5, abs=0.02)
    assert score([LEFT, NOWHERE], LABELS, clicked=("cyst",), masked=("lesion",)) == pytest.approx(0.5, abs=0.02)


def test_absent_label_scores_1_if_nothing_is_found(score):
    assert score([NOWHERE, RIGHT], ("lesion", "cyst"), clicked=(), absent=("lesion",)) == 1
    assert score([RIGHT, NOWHERE], ("lesion", "cyst"), clicked=(), absent=("lesion",)) == 0


def test_mask_of_one_of_two_labels_has_the_values_of_the_app(score):
    assert score([LEFT, RIGHT], LABELS, clicked=(), masked=("cyst",)) > 0.9
    assert score([RIGHT, LEFT], LABELS, clicked=(), masked=("cyst",)) == 0


def test_removed_label_is_ignored(score):
    assert score([LEFT], ("lesion",), clicked=("lesion", "cyst")) == score([LEFT], ("lesion",), clicked=("lesion",))


def test_scan_without_answers_has_no_score(score):
    with pytest.raises(VolumeError, match="None of its labels was answered"):
        score([LEFT], ("lesion",), clicked=("cyst",))


def test_unreadable_scan_has_no_score(tmp_path):
    annotated = scan(tmp_path, "broken")
    annotated.image_path.write_bytes(b"half a vol")

    with pytest.raises(VolumeError, match=r"broken\.nii cannot be read"):
        scan_score(answering(LEFT), annotated, ScanVolumes(PreparedScans(tmp_path / "p"), (1.0, 1.0, 1.0)), 2)


def test_network_with_non_finite_output_is_broken(tmp_path):
    class Broken(nn.Module):
        def forward(self, image):
            return image.new_full((len(image), 2, *image.shape[2:]), float("nan"))

    model = answering(LEFT)
    object.__setattr__(model, "network", Broken())
    volumes = ScanVolumes(PreparedScans(tmp_path / "prepared"), (1.0, 1.0, 1.0))

    with pytest.raises(BrokenModelError):
        scan_score(model, scan(tmp_path, "one", masked=("lesion",)), volumes, 2)
