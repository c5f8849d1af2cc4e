"""The dense CRF is used unless it lowers the Dice with accepted masks of held-out scans."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from lib.annotations.mask_origin import MaskOrigin
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.geometry.volume import load_volume
from lib.inference.automatic_mask import automatic_mask
from lib.inference.prediction import BrokenModelError
from lib.networks.checkpoint import TrainedModel
from lib.training import crf_choice
from lib.training.crf_choice import crf_helps
from tests.training import phantoms
from tests.training.phantoms import AFFINE, CENTRES, SHAPE, ball

BRIGHT, LARGER = ball(CENTRES["lesion"]), ball(CENTRES["lesion"], 5)


class Larger(nn.Module):
    """Draws a larger ball than the bright one, with a low probability."""

    def forward(self, image):
        logit = torch.where(torch.from_numpy(LARGER), 0.5, -8.0).expand(image.shape)
        return torch.cat([-logit, logit], dim=1)


@pytest.fixture
def model():
    return TrainedModel(phantoms.spec(roi_size=SHAPE), Larger(), 1)


@pytest.fixture
def volumes(tmp_path):
    return ScanVolumes(PreparedScans(tmp_path / "prepared"), (1.0, 1.0, 1.0))


@pytest.fixture
def accepted(tmp_path):
    def write(*masks):
        scans = phantoms.scans(tmp_path, len(masks), masked=("lesion",))
        for scan, mask in zip(scans, masks, strict=True):
            nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), scan.mask_path)
        return scans

    return write


@pytest.mark.parametrize(("truths", "helps"), [([BRIGHT], True), ([LARGER], False), ([BRIGHT, LARGER, LARGER], False)])
def test_accepted_masks_decide(model, volumes, accepted, truths, helps):
    assert crf_helps(model, accepted(*truths), volumes) is helps


@pytest.mark.parametrize(
    ("origin", "helps"), [(MaskOrigin.ACCEPTED, True), (MaskOrigin.CORRECTED, False), (MaskOrigin.DRAWN, False)]
)
def test_masks_that_were_accepted_unchanged_are_ignored(model, volumes, accepted, origin, helps):
    scans = [replace(scan, mask_origins={"lesion": origin}) for scan in accepted(LARGER)]

    assert crf_helps(model, scans, volumes) is helps


def test_crf_is_used_without_masks(model, volumes, tmp_path):
    assert crf_helps(model, [], volumes)
    assert crf_helps(model, phantoms.scans(tmp_path, 2), volumes)


def test_unreadable_scan_is_ignored(model, volumes, accepted):
    lost, kept = accepted(LARGER, BRIGHT)
    lost.mask_path.write_bytes(b"no image")

    assert crf_helps(model, [lost, kept], volumes)


def test_broken_network_is_ignored(model, volumes, accepted, monkeypatch):
    def broken(*_):
        raise BrokenModelError("Its probabilities are not finite.")

    monkeypatch.setattr(crf_choice, "predict_on_grid", broken)

    assert crf_helps(model, accepted(LARGER), volumes)


@pytest.mark.parametrize("helps", [True, False])
def test_decision_is_stored_with_the_published_version(tmp_path, monkeypatch, helps):
    monkeypatch.setattr("lib.training.gate.crf_helps", lambda *_: helps)
    phantoms.training(tmp_path, phantoms.scans(tmp_path, 5, masked=("lesion",))).run()

    assert phantoms.published(tmp_path).crf is helps


@pytest.mark.parametrize("of_model", [True, False])
@pytest.mark.parametrize("option", [None, True, False])
def test_option_of_the_user_overrides_that_of_the_model(model, tmp_path, of_model, option):
    scan = phantoms.scan(tmp_path, "one")
    image = PreparedScans(tmp_path / "prepared").image(scan.image_path, scan.image_checksum, (1.0, 1.0, 1.0))
    volume = load_volume(scan.image_path)

    mask = automatic_mask(replace(model, crf=of_model), volume, image, crf=option) > 0

    is_refined = not np.array_equal(mask, LARGER)
    assert is_refined == (of_model if option is None else option)
