"""The masks of an exported bundle against those of a running server."""

import numpy as np
import pytest
import requests

from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume
from scripts.export_model import main
from tests.modelexport.bundles import run_bundle
from tests.modelexport.models import published, write_scans


@pytest.mark.parametrize("crf", [True, False])
def test_bundle_gives_the_masks_of_the_server(tmp_path, crf):
    scans = write_scans(tmp_path / "studies")
    published(tmp_path / "studies", crf=crf)
    with LocalServer(tmp_path / "studies", {"labels": "lesion,cyst"}, tmp_path / "log") as server:
        masks = {}
        for path in scans:
            query = {"image": path.name.partition(".")[0], "output": "image"}
            form = {"params": '{"result_extension": ".nii.gz"}'}
            answer = requests.post(f"{server.url}/infer/inextremis", params=query, data=form, timeout=120)
            assert answer.ok, answer.text
            masks[path.name] = tmp_path / f"{path.name}.nii.gz"
            masks[path.name].write_bytes(answer.content)

    assert main([str(tmp_path / "studies"), str(tmp_path / "bundle")]) == 0
    run_bundle(tmp_path / "bundle", tmp_path / "studies", tmp_path / "masks")

    for name, of_server in masks.items():
        expected = load_volume(of_server, sentinels=False)
        found = load_volume(tmp_path / "masks" / f"{name.partition('.')[0]}.nii.gz", sentinels=False)
        np.testing.assert_array_equal(found.array, expected.array)
        assert found.geometry.is_close(expected.geometry) and {1, 2} <= set(np.unique(found.array))
