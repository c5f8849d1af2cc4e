"""How good a network is on a scan, where the right answer is known."""

import pytest
from torch import nn

from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.volume import VolumeError
from lib.inference.prediction import BrokenModelError
from lib.training.scan_score import scan_score
from tests.training.phantoms import BOTH, LABELS, LEFT, NOWHERE, RIGHT, answering, ball, scan


@pytest.fixture
def score(tmp_path):
    def of(ranges, labels=("lesion",), margin=2, **kinds):
        name = f"scan {len(list(tmp_path.iterdir()))}"
        annotated = scan(tmp_path, name, labels=labels, **kinds)
        volumes = ScanVolumes(PreparedScans(tmp_path / "prepared"), (1.0, 1.0, 1.0))
        return scan_score(answering(*ranges, labels=labels), annotated, volumes, margin)

    return of


@pytest.mark.parametrize("masked", [(), LABELS])
def test_network_that_finds_what_was_clicked_or_drawn_is_good(score, masked):
    assert score([LEFT, RIGHT], LABELS, clicked=LABELS, masked=masked) > 0.9


@pytest.mark.parametrize("masked", [(), ("lesion",)])
def test_network_that_finds_nothing_or_the_wrong_thing_is_not(score, masked):
    assert score([NOWHERE], masked=masked) == 0
    assert score([RIGHT], masked=masked) == 0


def test_mask_counts_by_its_dice(score):
    """Two balls of one size where one was drawn: 2 / 3."""
    assert score([BOTH], masked=("lesion",)) == pytest.approx(2 / 3, abs=0.02)


def test_mask_outweighs_the_clicks_on_the_same_label(score):
    assert score([BOTH], clicked=("lesion",), masked=("lesion",)) == score([BOTH], clicked=(), masked=("lesion",))


def test_label_of_which_nothing_was_said_does_not_count(score):
    assert score([LEFT, NOWHERE], LABELS, clicked=("lesion",)) > 0.9
    assert score([LEFT, NOWHERE], LABELS, clicked=(), masked=("lesion",)) > 0.9


def test_labels_count_the_same(score):
    assert score([LEFT, NOWHERE], LABELS, clicked=(), masked=LABELS) == pytest.approx(0.5, abs=0.02)
    assert score([LEFT, NOWHERE], LABELS, clicked=("cyst",), masked=("lesion",)) == pytest.approx(0.5, abs=0.02)


def test_absent_label_is_right_where_nothing_is_found(score):
    assert score([NOWHERE, RIGHT], ("lesion", "cyst"), clicked=(), absent=("lesion",)) == 1
    assert score([RIGHT, NOWHERE], ("lesion", "cyst"), clicked=(), absent=("lesion",)) == 0


def test_mask_of_one_of_two_labels_has_the_values_of_the_app(score):
    """Where the mask does not cover a label, its values are not those of the network's other one."""
    assert score([LEFT, RIGHT], LABELS, clicked=(), masked=("cyst",)) > 0.9
    assert score([RIGHT, LEFT], LABELS, clicked=(), masked=("cyst",)) == 0


def test_label_that_the_app_no_longer_has_does_not_count(score):
    assert score([LEFT], ("lesion",), clicked=("lesion", "cyst")) == score([LEFT], ("lesion",), clicked=("lesion",))


def test_scan_that_says_nothing_of_the_labels_has_no_score(score):
    with pytest.raises(VolumeError, match="None of its labels was answered"):
        score([LEFT], ("lesion",), clicked=("cyst",))


def test_unreadable_scan_has_no_score(tmp_path):
    annotated = scan(tmp_path, "broken")
    annotated.image_path.write_bytes(b"half a vol")

    with pytest.raises(VolumeError, match=r"broken\.nii cannot be read"):
        scan_score(answering(LEFT), annotated, ScanVolumes(PreparedScans(tmp_path / "p"), (1.0, 1.0, 1.0)), 2)


def test_network_whose_output_is_no_number_is_broken(tmp_path):
    class Broken(nn.Module):
        def forward(self, image):
            return image.new_full((len(image), 2, *image.shape[2:]), float("nan"))

    model = answering(LEFT)
    object.__setattr__(model, "network", Broken())
    volumes = ScanVolumes(PreparedScans(tmp_path / "prepared"), (1.0, 1.0, 1.0))

    with pytest.raises(BrokenModelError):
        scan_score(model, scan(tmp_path, "one", masked=("lesion",)), volumes, 2)


def test_the_phantom_is_what_it_says():
    assert ball((7, 10, 8)).sum() == ball((17, 10, 8)).sum() > 200
