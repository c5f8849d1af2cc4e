"""Known attacks have no effect on a running server."""

import io
import json
import socket
import subprocess
import sys
import tarfile
import time

import nibabel as nib
import numpy as np
import pytest
import requests

from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import ROOT, free_port
from tests.server.asking import Session
from tests.server.conftest import running_site
from tests.server.waiting import wait_for


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("attacks")
    (root / "home").mkdir()
    model = str(root / "studies" / "model")
    with running_site(root, 2, {"HOME": str(root / "home")}, model_dir=model, iterations="1") as site:
        yield root, Session(site.url)


def volume(shape=(8, 8, 8)):
    return nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)).to_bytes()


CLOSED = [
    *("POST /reload", "GET /docs", "GET /redoc", "GET /static/ohif/index.html", "GET /logs/", "GET /logs/gpu"),
    *("GET /model/inextremis", "GET /model/info/inextremis", "PUT /model/inextremis", "DELETE /model/inextremis"),
    *("GET /scoring/", "POST /scoring/", "POST /scoring/dice", "DELETE /scoring/", "GET /batch/infer/"),
    *("POST /batch/infer/inextremis", "DELETE /batch/infer/", "POST /infer/wsi/inextremis"),
    *("POST /infer/wsi_v2/inextremis", "GET /datastore/dataset", "PUT /datastore/updatelabelinfo", "GET /auth/"),
    *("POST /auth/token", "GET /proxy/dicom/qido/studies", "POST /proxy/dicom/tools/bulk-delete"),
]


@pytest.mark.parametrize("route", CLOSED)
def test_unneeded_routes_of_monai_label_are_not_served(site, route):
    _, server = site

    assert server.request(*route.split(), json={}).status_code in (404, 405)


def archive_of(name):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evil.tar", archive_of("../../escaped.py")),
        ("evil.tar", archive_of("sitecustomize.py")),
        ("torch.py", b"evil"),
        ("monai/__init__.py", b"evil"),
    ],
)
def test_session_stores_neither_code_nor_archives(site, name, content):
    root, server = site
    before = set(root.rglob("*"))

    answer = server.put("/session/", params={"uncompress": "true"}, files={"files": (name, content)})

    assert answer.status_code == 422
    assert {path for path in set(root.rglob("*")) - before if path.is_file() and "log" not in path.name} == set()


def test_training_runs_no_code_from_a_folder_of_the_request(site):
    """`bundle_path` puts a folder on the path of MONAI Label's child processes."""
    root, server = site
    mark = root / "executed"
    (root / "sitecustomize.py").write_text(f"open({str(mark)!r}, 'w')")

    answer = server.post("/train/inextremis", json={"bundle_path": str(root), "PYTHONPATH": str(root)})

    assert answer.status_code == 409  # nothing is annotated
    assert not mark.exists()


NO_IMAGES = ["", ".", "..", "../studies", "/etc", "study_00/..", ".inextremis", "labels", "%2e%2e"]


@pytest.mark.parametrize("image", NO_IMAGES)
@pytest.mark.parametrize("path", ["/datastore/image", "/datastore/image/info"])
def test_get_of_an_unknown_image_is_404_and_removes_nothing(site, path, image):
    root, server = site
    before = sorted(root.rglob("*"))

    answer = server.get(path, params={"image": image})

    assert answer.status_code == 404
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}], ids=str
)
def test_page_of_another_origin_neither_reads_nor_changes_anything(site, headers):
    root, server = site
    clicks = {"params": json.dumps({"lesion": [[1, 2, 3]] * 6})}
    attempts = [
        server.get("/datastore/image", params={"image": "study_00"}, headers=headers),
        server.get("/info/", headers=headers),
        server.post("/infer/extreme_points", params={"image": "study_00"}, data=clicks, headers=headers),
        server.post("/train/", headers=headers),
        server.delete("/datastore/", params={"id": "study_00"}, headers=headers),
        server.options("/datastore/label", headers={**headers, "Access-Control-Request-Method": "PUT"}),
    ]

    assert all(400 <= answer.status_code < 500 for answer in attempts)
    assert {answer.headers.get("Access-Control-Allow-Origin") for answer in attempts} == {None}
    assert (root / "studies" / "study_00.nii.gz").exists()


# `tests/server/http/test_json_input.py` has more.
INVALID = {"half a surrogate pair": '{"client_id": "\\ud800"}', "2 MB": '{"a": "' + "x" * 2_000_000 + '"}'}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
def test_json_that_cannot_be_stored_is_refused(site, text):
    root, server = site
    attempts = [
        server.put("/datastore/image/info", params={"image": "study_00"}, data={"info": text}),
        server.post("/activelearning/first", data=text.encode(), headers={"Content-Type": "application/json"}),
        server.put(
            "/datastore/label",
            params={"image": "study_00"},
            data={"params": text},
            files={"label": ("mask.nii", volume())},
        ),
    ]

    assert [400 <= answer.status_code < 500 for answer in attempts] == [True] * 3
    assert server.get("/datastore/", params={"output": "all"}).ok


def test_any_information_about_an_image_leaves_next_sample_working(site):
    _, server = site
    for info in ({"strategy": 5}, {"strategy": {"first": 5}}, {"strategy": {"first": {"ts": "x"}}}, {"id": 1}):
        answer = server.put("/datastore/image/info", params={"image": "study_00"}, data={"info": json.dumps(info)})
        assert answer.ok
        assert server.post("/activelearning/first", json={}).json()["id"] in ("study_00", "study_01")


def test_six_thousand_clicks_are_refused_at_once(site):
    _, server = site
    start = time.monotonic()

    answer = server.post(
        "/infer/extreme_points",
        params={"image": "study_00"},
        data={"params": json.dumps({"lesion": [[1, 2, 3]] * 6000})},
    )

    assert answer.status_code == 422
    assert "6000 clicks; expected at most 1000" in answer.json()["detail"]
    assert time.monotonic() - start < 5


HUGE = {
    "huge.nrrd": b"NRRD0004\ntype: float\ndimension: 3\nsizes: 100000 100000 100000\nencoding: raw\n\n",
    "detached.nrrd": b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: /etc/passwd\n\n",
    "note.mha": b"ObjectType = Image\n",
    "note.nii.gz": b"no volume",
}


@pytest.mark.parametrize("name", HUGE)
def test_upload_that_could_end_the_server_is_refused_and_leaves_nothing(site, name):
    root, server = site
    for path, field in (("/datastore/image", "file"), ("/session/", "files")):
        answer = server.put(path, files={field: (name, HUGE[name])})
        assert answer.status_code == 422, answer.text
        assert str(root) not in answer.text and "/tmp" not in answer.text
    answer = server.post("/infer/extreme_points", files={"file": (name, HUGE[name])}, data={"params": '{"lesion": []}'})
    assert answer.status_code == 422
    assert server.get("/info/").ok
    assert {path.name for path in (root / "studies").glob("*.n*")} == {"study_00.nii.gz", "study_01.nii.gz"}


def test_upload_never_replaces_an_image(site):
    root, server = site
    before = (root / "studies" / "study_00.nii.gz").read_bytes()

    for name in ("study_00.nii.gz", "study_00.nii", "folder/study_00.nii.gz"):
        answer = server.put("/datastore/image", files={"file": (name, volume())})
        assert answer.status_code in (409, 422)

    assert (root / "studies" / "study_00.nii.gz").read_bytes() == before


@pytest.mark.parametrize("parameters", [{"gpus": 5}, {"gpus": "x"}, {"gpus": ["0"]}, {"device": 1}, {"pretrained": 3}])
def test_training_that_cannot_start_is_refused(site, parameters):
    _, server = site
    answer = server.post("/train/inextremis", json=parameters)

    assert answer.status_code == 422
    assert "The training cannot start" in answer.json()["detail"]


def test_request_cannot_forge_a_line_of_the_log(site):
    root, server = site
    forged = "nobody\n[2026-01-01 00:00:00,000] [1] [MainThread] [ERROR] (x:1) - The disk is gone"

    server.post("/activelearning/first", json={"client_id": forged})
    server.get("/datastore/image", params={"image": forged})
    server.post(f"/infer/{requests.utils.quote(forged, safe='')}")

    for log in (root / "server.log", root / "studies" / "logs" / "app.log"):
        assert not [line for line in log.read_text(errors="replace").splitlines() if line.startswith("[2026-01-01")]


def test_everything_that_holds_patients_data_is_for_its_owner_only(site):
    root, server = site
    truth = (root / "truth" / "study_01.nii.gz").read_bytes()
    answer = server.put("/datastore/label", params={"image": "study_01"}, files={"label": ("mask.nii.gz", truth)})
    assert answer.ok, answer.text
    made = [
        path for folder in ("labels", ".inextremis", "logs", "model") for path in (root / "studies" / folder).rglob("*")
    ]

    assert made
    assert {oct(path.stat().st_mode & 0o077) for path in made} == {"0o0"}


@pytest.mark.parametrize("path", ["/info/", "/datastore/?output=all", "/datastore/?output=train", "/train/?all=true"])
def test_answers_hold_no_folder_of_the_server(site, path):
    root, server = site
    answer = server.get(path)

    assert str(root) not in answer.text
    assert str(ROOT) not in answer.text


START = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(ROOT / "apps" / "inextremis")]


@pytest.mark.parametrize("host", ["0.0.0.0", socket.gethostname()])
def test_server_without_a_login_does_not_listen_beyond_this_machine(site, host):
    """Not even if MONAI Label's own command starts it."""
    root, _ = site
    words = ["--studies", str(root / "studies"), "--host", host, "--port", str(free_port())]

    ended = subprocess.run([*START, *words], capture_output=True, text=True, timeout=120)

    assert ended.returncode == 2
    assert "without a login" in ended.stderr and "allow_network_without_login true" in ended.stderr
    assert "Traceback" not in ended.stderr and "running on" not in ended.stderr


def test_server_without_a_login_listens_beyond_this_machine_if_that_is_allowed(tmp_path):
    write_demo_studies(tmp_path / "studies", tmp_path / "truth", 1)
    port = free_port()
    words = ["--studies", str(tmp_path / "studies"), "--host", "0.0.0.0", "--port", str(port)]
    words += ["--conf", "allow_network_without_login", "true"]
    with subprocess.Popen([*START, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: is_served(port), 90)
        finally:
            process.terminate()


def is_served(port):
    try:
        return requests.get(f"http://127.0.0.1:{port}/info/", timeout=10).ok
    except requests.ConnectionError:
        return False
