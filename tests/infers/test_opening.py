"""Images are opened before the first click, also on the grid of the published network."""

import time
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.image_identity import ImageIdentities
from lib.data.prepared_scans import PreparedScans
from lib.inference.opened_images import OpenedImages
from lib.infers import opening
from lib.infers.opening import Opening
from lib.infers.published_model import PublishedModel
from lib.networks.checkpoint import save_checkpoint
from tests.training.phantoms import untrained


def publish(path, score):
    save_checkpoint(path, replace(untrained(spacing_mm=(1.0, 1.0, 1.5)), score=score))


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(12, 10, 8)).astype(np.float32), np.eye(4)), path)
    return path


@pytest.fixture
def opener(tmp_path):
    images = OpenedImages(PreparedScans(tmp_path / "prepared"), ImageIdentities(tmp_path / "checksums.json"))
    return Opening(images, PublishedModel(tmp_path / "model.pt", ("lesion",)))


def wait_for(happened, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def kept(opener):
    """Count the volumes in the cache."""
    return len(list(opener.images.prepared.folder.glob("*.pt")))


@pytest.mark.parametrize(("score", "volumes"), [(None, 1), (0.5, 1), (0.9, 2)])
def test_image_is_also_resampled_to_the_grid_of_a_network_with_a_weight(opener, scan, score, volumes):
    publish(opener.model.path, score)

    opener.open(scan, opener.model.current())

    assert opener.images.identities.known(scan) is not None
    assert kept(opener) == volumes


def test_images_are_opened_in_the_background_and_again_after_a_publication(opener, scan, monkeypatch):
    monkeypatch.setattr(opening, "POLL_S", 0.05)
    opener.start()

    opener.open_soon(scan)
    wait_for(lambda: kept(opener) == 1)
    publish(opener.model.path, 0.9)

    wait_for(lambda: kept(opener) == 2)


def test_unreadable_images_are_logged_and_skipped(opener, scan, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(opening, "POLL_S", 0.05)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    opener.start()

    opener.open_soon(None)
    opener.open_soon(tmp_path / "gone.nii.gz")
    opener.open_soon(broken)
    wait_for(lambda: "broken.nii.gz cannot be read" in caplog.text)
    opener.open_soon(scan)

    wait_for(lambda: kept(opener) == 1)
    assert "gone.nii.gz" not in caplog.text
