"""Click masks get better with accepted masks over HTTP, against a real server process."""

import nibabel as nib
import numpy as np
import pytest
import requests

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume
from lib.metrics import dice
from tests.server.asking import infer, submit
from tests.server.waiting import wait_for, wait_for_training

NAMES = ("one", "two", "three", "four", "five", "six")
AFFINES = {name: np.diag([1, 1, 1.5, 1]) for name in NAMES} | {"two": np.diag([-1, -1, 1.5, 1])}
TRAINING = {"iterations": 1, "max_minutes": 0.2, "roi_size": "16x16x16", "levels": 2, "base_channels": 4}


def arch():
    """(X, Y, Z) bool: it fills little of its box."""
    x, y, z = np.ogrid[:40, :30, :20]
    return (np.abs(np.hypot(x - 20, y - 4) - 15) <= 3.5) & (y >= 4) & (np.abs(z - 10) <= 4)


def stored(name):
    """Flip the arch to the axes of a scan."""
    i, j, _ = np.sign(np.diag(AFFINES[name])[:3])
    return arch()[:: int(i), :: int(j)]


class Site:
    def __init__(self, folder, contrast):
        (folder / "studies").mkdir()
        for seed, (name, affine) in enumerate(AFFINES.items()):
            image = 100 + contrast * stored(name) + np.random.default_rng(seed).normal(0, 25, arch().shape)
            nib.save(nib.Nifti1Image(image.astype(np.float32), affine), folder / "studies" / f"{name}.nii.gz")
        self.folder = folder
        conf = {"labels": "arch", "model_dir": str(folder / "model")}
        self.server = LocalServer(folder / "studies", conf, folder / "server.log")
        self.server.wait_until_ready()

    def delete(self, path, **query):
        assert requests.delete(f"{self.server.url}{path}", params=query, timeout=60).ok

    def click(self, name):
        """Dice of the mask, and how many accepted masks it was made with."""
        params = {"arch": simulated_extreme_points(stored(name)).tolist(), "result_extension": ".nii.gz"}
        shapes = infer(self.server, name, params, output="json").json()["shapes"]
        path = self.folder / "mask.nii.gz"
        path.write_bytes(infer(self.server, name, params).content)
        return dice(load_volume(path, sentinels=False).array > 0, stored(name)), shapes.get("arch", 0)

    def train(self):
        assert requests.post(f"{self.server.url}/train/inextremis", json=TRAINING, timeout=60).ok
        wait_for_training(self.server.url)

    def click_until(self, name, count):
        """Until so many accepted masks are known; they are read in the background."""
        return wait_for(lambda: next((d for d, found in [self.click(name)] if found == count), None), 30)

    def submit(self, name):
        assert submit(self.server, name, stored(name).astype(np.uint8), AFFINES[name]).ok


@pytest.fixture
def site(tmp_path, request):
    site = Site(tmp_path, getattr(request, "param", 15))
    yield site
    site.server.stop()


def test_accepted_masks_improve_the_next_click_mask_until_they_are_deleted(site):
    before, count = site.click("one")
    assert count == 0

    site.submit("two")
    site.submit("three")
    assert site.click_until("one", 2) > before + 0.1

    site.delete("/datastore/", id="two")
    assert site.click("one")[1] == 1
    site.delete("/datastore/label", id="three", tag="final")
    assert site.click("one") == (before, 0)


@pytest.mark.parametrize("site", [50], indirect=True)
def test_training_on_clicks_improves_click_masks(site):
    before = min(site.click(name)[0] for name in NAMES)

    site.train()

    assert min(site.click(name)[0] for name in NAMES) > before + 0.05


def test_training_on_accepted_masks_improves_click_masks_further(site):
    site.click("one")
    for name in NAMES[1:]:
        site.click(name)
        site.submit(name)
    before = site.click_until("one", 5)

    site.train()

    assert site.click("one")[0] > before
