"""The dense CRF is used unless accepted masks of held-out scans say that it lowers the Dice."""

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
from lib.networks.checkpoint import TrainedModel, load_checkpoint
from lib.training import crf_choice
from lib.training.crf_choice import crf_helps
from lib.training.hyperparameters import Hyperparameters
from lib.training.run import Training
from tests.training import phantoms
from tests.training.phantoms import AFFINE, CENTRES, SHAPE, TINY, BrightIsLabel, ball

BRIGHT, LARGER = ball(CENTRES["lesion"]), ball(CENTRES["lesion"], 5)


class Larger(nn.Module):
    """Draws more than what is bright, unsure where the structure ends."""

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
def test_masks_that_were_accepted_as_they_were_do_not_decide(model, volumes, accepted, origin, helps):
    scans = [replace(scan, mask_origins={"lesion": origin}) for scan in accepted(LARGER)]

    assert crf_helps(model, scans, volumes) is helps


def test_it_is_used_where_nobody_can_tell(model, volumes, tmp_path):
    assert crf_helps(model, [], volumes)
    assert crf_helps(model, phantoms.scans(tmp_path, 2), volumes)


def test_scan_that_cannot_be_read_does_not_decide(model, volumes, accepted):
    lost, kept = accepted(LARGER, BRIGHT)
    lost.mask_path.write_bytes(b"no image")

    assert crf_helps(model, [lost, kept], volumes)


def test_broken_network_decides_nothing(model, volumes, accepted, monkeypatch):
    def broken(*_):
        raise BrokenModelError("Its probabilities are not finite.")

    monkeypatch.setattr(crf_choice, "predict_on_grid", broken)

    assert crf_helps(model, accepted(LARGER), volumes)


@pytest.mark.parametrize("helps", [True, False])
def test_version_that_is_published_knows_what_was_decided(tmp_path, monkeypatch, helps):
    monkeypatch.setattr("lib.training.gate.crf_helps", lambda *_: helps)
    versions = phantoms.versions_in(tmp_path)
    scans = phantoms.scans(tmp_path, 5, masked=("lesion",))
    h = Hyperparameters().changed(TINY)
    prepared = PreparedScans(tmp_path / "prepared")
    Training(scans, ("lesion",), versions, tmp_path, h, prepared, torch.device("cpu"), objective=BrightIsLabel).run()

    assert load_checkpoint(versions.published_path).crf is helps


@pytest.mark.parametrize(("of_model", "asked", "is_refined"), [(1, None, 1), (0, None, 0), (0, True, 1), (1, False, 0)])
def test_mask_is_refined_as_the_model_says_unless_the_user_says_otherwise(model, tmp_path, of_model, asked, is_refined):
    scan = phantoms.scan(tmp_path, "one")
    image = PreparedScans(tmp_path / "prepared").image(scan.image_path, scan.image_checksum, (1.0, 1.0, 1.0))
    volume = load_volume(scan.image_path)

    mask = automatic_mask(replace(model, crf=bool(of_model)), volume, image, crf=asked) > 0

    assert np.array_equal(mask, LARGER) is not bool(is_refined)
