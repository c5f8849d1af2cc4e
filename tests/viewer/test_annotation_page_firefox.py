"""The annotation page in Firefox: six clicks on an oblique scan hit their voxels and make the mask."""

from __future__ import annotations

import numpy as np
import requests

from lib.demo.local_server import LocalServer
from lib.metrics import dice
from tests.exchange.studies import write_volume
from tests.installed import need_firefox
from tests.physical import extreme_voxels
from tests.viewer.firefox import firefox
from tests.viewer.phantom import SHAPE, phantom


def test_six_clicks_make_the_mask_in_firefox(tmp_path):
    need_firefox()
    image, masks, affine = phantom(3, "oblique, downwards")
    write_volume(tmp_path / "studies" / "oblique.nii.gz", image, affine)
    conf = {"labels": "lesion", "model_dir": str(tmp_path / "model")}
    clicks = extreme_voxels(masks["lesion"])
    (tmp_path / "profile").mkdir()
    with LocalServer(tmp_path / "studies", conf, tmp_path / "log") as server, firefox(tmp_path / "profile") as browser:
        browser.goto(f"{server.url}/annotate")
        browser.evaluate("localStorage.setItem('inextremis.name', 'fiona')")
        browser.goto(f"{server.url}/annotate?#oblique")
        browser.wait_until("window.inextremis?.ready")
        for voxel in clicks:
            there = browser.evaluate(f"window.inextremis.screenOf({voxel}, 'coronal')")
            browser.click(there["x"], there["y"], alt=True)  # the axial plane goes to its slice
            browser.wait_until(f"window.inextremis.screenOf({voxel}, 'axial').slices === 0")
            there = browser.evaluate(f"window.inextremis.screenOf({voxel}, 'axial')")
            browser.click(there["x"], there["y"])
        browser.wait_until("window.inextremis.idle && window.inextremis.work('lesion').source === 'clicks'")

        assert browser.evaluate("window.inextremis.work('lesion').foreground") == clicks
        mask = np.zeros(np.prod(SHAPE), bool)
        mask[browser.evaluate("window.inextremis.maskVoxels('lesion')")] = True
        assert dice(mask.reshape(SHAPE, order="F"), masks["lesion"]) > 0.8
        stored = requests.get(f"{server.url}/studies/oblique", timeout=30).json()["labels"]["lesion"]
        assert stored["clicks"]["foreground_voxel"] == clicks and stored["annotator"] == "fiona"
