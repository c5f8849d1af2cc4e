"""Batches of patches: reproducible, from any number of processes."""

import itertools

import numpy as np
import pytest
import torch

from lib.data import patch_batches as module
from lib.data.patch_batches import PatchStream, patch_batches, spare_workers
from lib.data.patches import PatchBatch
from lib.geometry.volume import VolumeError
from tests.data.clicked_scan import AUGMENTATIONS, SHAPE, annotated, save


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_the_requested_size(scan, source, workers):
    for batch in itertools.islice(patch_batches(source(scan), PatchStream(3), workers=workers, pin_memory=False), 5):
        assert batch.image.shape == (3, 1, 16, 32, 32)
        assert len(batch.patches) == 3
        assert all(torch.equal(image[0], patch.image) for image, patch in zip(batch.image, batch.patches, strict=True))


def stream(source, workers, count=6):
    batches = patch_batches(source, PatchStream(1, seed=7), workers=workers, pin_memory=False)
    return [batch.image for batch in itertools.islice(batches, count)]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("workers", [0, 2])
def test_stream_depends_on_the_seed_and_not_on_the_cache(scan, source, augmentation, workers):
    first, second = (stream(source(scan, augmentation=augmentation), workers) for _ in range(2))

    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_each_worker_draws_patches_of_its_own(tmp_path, source):
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    scan = annotated(save(tmp_path / "scan.nii.gz", image))

    found = stream(source(scan, annotated_fraction=0.0), workers=2, count=8)

    assert not any(torch.equal(one, other) for one, other in itertools.combinations(found, 2))


def test_image_of_a_batch_is_pinned(monkeypatch):
    pinned = torch.zeros(1, 1, 2, 2, 2)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned)
    batch = PatchBatch(torch.zeros(1, 1, 2, 2, 2), ())

    assert torch.utils.data._utils.pin_memory.pin_memory(batch).image is pinned


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 0), (4, 2), (10, 8), (64, 8), (None, 0)])
def test_workers_leave_cores_to_the_network(monkeypatch, cores, workers):
    monkeypatch.setattr(module.os, "cpu_count", lambda: cores)

    assert spare_workers() == workers


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_usable_scan_the_error_is_that_of_the_source(scan, source, workers):
    scan.image_path.write_bytes(b"no image")

    with pytest.raises(VolumeError) as error:
        next(patch_batches(source(scan), PatchStream(2), workers=workers, pin_memory=False))
    assert str(error.value).startswith("There is nothing to learn from: none of the scans can be used")
    assert "Traceback" not in str(error.value)
