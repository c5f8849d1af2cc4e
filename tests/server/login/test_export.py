"""Export from a server with a login."""

import io
import json

import numpy as np

from lib.demo.local_server import LocalServer
from lib.geometry.volume import load_volume
from scripts.export import main as export
from tests.exchange.studies import CLICKS, write_studies
from tests.server.login.people import PASSWORD
from tests.server.review.reading import Site, settings, shape_mask


def test_export_needs_a_login(guarded, tmp_path, monkeypatch, capsys):
    params = {"lesion": CLICKS, "absent": ["cyst"], "result_extension": ".nii.gz"}
    answer = guarded.program("anna").post(
        "/infer/extreme_points", params={"image": "straight"}, data={"params": json.dumps(params)}
    )
    assert answer.status_code == 200
    options = [str(tmp_path / "masks"), "--server", guarded.url]

    assert export(options) == 2
    assert "asks for a login; name a user of it with --login NAME" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong password\n"))
    assert export([*options, "--login", "uma"]) == 2
    assert "The name or the password is wrong" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    assert export([*options, "--login", "uma"]) == 0

    assert (tmp_path / "masks" / "straight.nii.gz").exists()


def test_export_holds_decided_studies_and_no_readings(tmp_path, monkeypatch):
    studies = write_studies(tmp_path / "studies", ["straight", "oblique"])
    with LocalServer(studies, settings(tmp_path), tmp_path / "server.log") as server:
        site = Site(server, studies)
        for image in ("straight", "oblique"):
            for name, grow in (("anna", 0), ("bert", 2)):
                assert site.person(name).submit(image, shape_mask(grow)).status_code == 200
        assert site.person("anna").click("oblique").status_code == 200
        assert site.person("rita").decide("straight", "bert").status_code == 200
        for user in ("anna", "ada"):
            monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
            folder = tmp_path / user
            assert export([str(folder), "--server", server.url, "--login", user]) == 0
            assert [path.name for path in folder.glob("*.nii.gz")] == ["straight.nii.gz"]
            assert np.array_equal(load_volume(folder / "straight.nii.gz").array > 0, shape_mask(2))
