"""Every change is recorded with its time, user and client; with a login, under the name of the login."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from lib.demo.local_server import LocalServer
from lib.networks.checkpoint import NetworkSpec, TrainedModel, TrainingState
from lib.networks.versions import ModelVersions
from lib.server.audit import AuditLog, last_records
from lib.server.project import Project
from scripts.models import main as models
from scripts.restore import main as restore
from tests.exchange.studies import CLICKS, GEOMETRIES, stored, write_studies, write_volume
from tests.installed import ROOT
from tests.physical import l_shape
from tests.server.login.people import Client

CLIENT = {"address": "127.0.0.1", "program": "test"}


@pytest.fixture
def log(tmp_path):
    return AuditLog(tmp_path / "audit", file_bytes=1000)


def lines(guarded):
    text = (Project(guarded.studies).audit / "audit.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def of(guarded, action):
    """Return the last record of an action, after a check of its time."""
    found = [line for line in lines(guarded) if line["action"] == action][-1]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(found.pop("time"))).total_seconds()) < 60
    return found


def click(client, image, **params):
    params = {"lesion": CLICKS, "result_extension": ".nii.gz", **params}
    return client.infer(image, params, params.pop("model", "extreme_points"))


def test_clicks_are_recorded_under_the_name_of_the_login(guarded):
    anna, browser = guarded.program("anna"), guarded.browser()
    browser.log_in("rené")

    assert click(browser, "flipped").status_code == 200
    assert stored(guarded.studies, "flipped")["current"]["annotator"] == of(guarded, "clicks")["who"] == "rené"
    assert click(anna, "straight", client_id="somebody else", absent=["cyst"]).status_code == 200

    assert stored(guarded.studies, "straight")["current"]["annotator"] == "anna"
    record = of(guarded, "clicks")
    assert record.pop("client") == {"address": "127.0.0.1", "program": anna.headers["User-Agent"]}
    assert record == {
        "action": "clicks",
        "who": "anna",
        "image": "straight",
        "model": "extreme_points",
        "labels": ["lesion"],
        "absent": ["cyst"],
    }


def test_request_that_stores_nothing_is_not_recorded(guarded):
    anna = guarded.program("anna")
    click(anna, "sagittal")
    before = [line for line in lines(guarded) if line["action"] == "clicks"]

    repeated = {"use_stored_clicks": True, "result_extension": ".nii.gz"}
    for params in (repeated, {"lesion": CLICKS[:3]}, {"lesion": []}):
        anna.post("/infer/extreme_points", params={"image": "sagittal"}, data={"params": json.dumps(params)})
    click(anna, "no such image")

    assert [line for line in lines(guarded) if line["action"] == "clicks"] == before


def test_acceptance_and_its_end_name_the_user(guarded):
    anna = guarded.program("anna")
    click(anna, "oblique")

    assert anna.post("/annotations/oblique/accept", json={"client_id": "somebody else"}).status_code == 200
    assert anna.delete("/annotations/oblique/accept").status_code == 200

    accepted, back = of(guarded, "acceptance"), of(guarded, "acceptance taken back")
    assert (accepted["who"], accepted["image"], accepted["labels"]) == ("anna", "oblique", ["lesion"])
    assert (back["who"], back["image"]) == ("anna", "oblique")


def test_acceptance_of_one_user_is_not_taken_back_by_another(guarded):
    anna, rene = guarded.program("anna"), guarded.program("rené")
    click(anna, "oblique")
    anna.post("/annotations/oblique/accept", json={})

    answer = rene.delete("/annotations/oblique/accept", params={"client_id": "anna"})

    assert answer.status_code == 409 and "accepted by 'anna'" in answer.json()["detail"]


def test_mask_is_recorded_under_the_name_of_the_login(guarded, tmp_path):
    path = write_volume(tmp_path / "mask.nii.gz", (l_shape() > 500).astype(np.uint8), GEOMETRIES["sagittal"])
    anna = guarded.program("anna")
    with path.open("rb") as file:
        params = {"label_info": [{"name": "lesion", "idx": 1}], "client_id": "somebody else"}
        answer = anna.put(
            "/datastore/label",
            params={"image": "sagittal", "tag": "final"},
            files={"label": ("mask.nii.gz", file)},
            data={"params": json.dumps(params)},
        )
    assert answer.status_code == 200, answer.text

    record = of(guarded, "mask")
    assert (record["who"], record["image"], record["tag"]) == ("anna", "sagittal", "final")
    info = anna.get("/datastore/label/info", params={"label": "sagittal", "tag": "final"}).json()
    assert info["annotator"] == "anna"


def test_training_and_its_end_name_the_admin(guarded):
    ada = guarded.program("ada")
    click(ada, "straight")

    assert ada.post("/train/inextremis", json={"iterations": 100_000}).status_code == 200
    assert ada.delete("/train/").status_code == 200

    assert (of(guarded, "training")["who"], of(guarded, "training")["model"]) == ("ada", "inextremis")
    assert of(guarded, "end of a training")["who"] == "ada"


def test_deletion_names_the_admin_and_bringing_back_the_user_of_the_machine(guarded):
    ada = guarded.program("ada")
    click(ada, "oblique_flipped")

    query = {"id": "oblique_flipped", "tag": "extreme_points"}
    assert ada.delete("/datastore/label", params=query).status_code == 200
    deleted = of(guarded, "deletion of an annotation")
    assert (deleted["who"], deleted["id"], deleted["tag"]) == ("ada", "oblique_flipped", "extreme_points")

    (name,) = [path.name for path in Project(guarded.studies).removed.iterdir() if "oblique_flipped" in path.name]
    assert restore([str(guarded.studies), "bring-back", name]) == 0
    brought = of(guarded, "restored")
    assert brought["client"] == {"address": "this machine", "program": "scripts/restore.sh"}
    assert brought["name"] == name and brought["who"]


def test_login_refusal_and_logout_are_recorded_without_the_typed_name(guarded):
    browser = guarded.browser()
    browser.log_in("typed password", "wrong password")
    assert of(guarded, "login refused")["who"] == "unknown"
    assert "typed password" not in (Project(guarded.studies).audit / "audit.jsonl").read_text()
    browser.log_in("anna")
    assert of(guarded, "login")["who"] == "anna"
    browser.post("/logout")
    assert of(guarded, "logout")["who"] == "anna"


def test_request_cannot_forge_records(guarded):
    anna = guarded.program("anna")
    anna.headers["User-Agent"] = 'x"}, {"who": "ada'

    click(anna, "straight")

    assert of(guarded, "clicks")["client"]["program"] == 'x"}, {"who": "ada'


def test_without_a_login_the_client_names_itself(tmp_path):
    """Slicer sends a name, OHIF none."""
    studies = write_studies(tmp_path / "studies")
    conf = {"model_dir": str(tmp_path / "model"), "tracking": "None"}
    with LocalServer(studies, conf, tmp_path / "server.log") as server:
        client = Client(server.url)
        click(client, "straight", client_id="reader 2")
        click(client, "oblique")

    assert [(record.who, record.action) for record in last_records(Project(studies).audit, 2)] == [
        ("unknown", "clicks"),
        ("reader 2", "clicks"),
    ]


def test_full_file_is_renamed_and_kept(log, tmp_path):
    for number in range(30):
        log.write("clicks", f"reader {number}", CLIENT, {"image": "x"})

    files = sorted((tmp_path / "audit").glob("*.jsonl"))
    assert len(files) > 2 and all(path.stat().st_size < 1200 for path in files)
    readers = [f"reader {n}" for n in range(29, -1, -1)]
    assert [record.who for record in last_records(tmp_path / "audit", 100)] == readers
    assert [record.who for record in last_records(tmp_path / "audit", 2)] == ["reader 29", "reader 28"]


def test_record_after_a_torn_line_is_readable(log, tmp_path):
    log.write("clicks", "anna", CLIENT, {})
    with (tmp_path / "audit" / "audit.jsonl").open("a") as file:
        file.write('{"time": "2026-')

    log.write("mask", "uma", CLIENT, {"image": "x", "labels": ["a", "b"]})

    newest, oldest = last_records(tmp_path / "audit", 10)
    assert (newest.who, newest.of, newest.program) == ("uma", "image: x; labels: a, b", "test")
    assert oldest.who == "anna"


@pytest.mark.parametrize(
    "line", ["[]", "3", '{"who": "x"}', '{"time": 1, "who": 1, "action": 1, "client": []}', "\xff"]
)
def test_foreign_lines_are_left_out(log, tmp_path, line):
    log.write("clicks", "anna", CLIENT, {})
    with (tmp_path / "audit" / "audit.jsonl").open("a") as file:
        file.write(f"{line}\n")

    assert [record.who for record in last_records(tmp_path / "audit", 10)] == ["anna"]


WRITER = """
import sys
from pathlib import Path
from lib.server.audit import AuditLog
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    AuditLog(Path(sys.argv[1]), file_bytes=200).write("clicks", "anna", {}, {})
"""


def test_processes_of_one_project_do_not_lose_each_others_records(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    writers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)

    assert len(last_records(tmp_path, 1000)) == 300


def test_record_that_cannot_be_written_goes_to_the_log_of_the_server(tmp_path, caplog):
    (tmp_path / "audit").write_text("a file instead of the folder")

    AuditLog(tmp_path / "audit").write("clicks", "anna", CLIENT, {"image": "x"})

    assert "The audit log cannot be written" in caplog.text and '"who": "anna"' in caplog.text


def test_roll_back_is_recorded(tmp_path):
    spec = NetworkSpec.plan(("lesion",), (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=2)
    versions = ModelVersions(tmp_path / "model" / "inextremis.pt")
    for number in (1, 2):
        versions.publish(TrainedModel(spec, spec.build(), number), TrainingState({}, 1), base=number - 1)

    assert models([str(tmp_path), "roll-back", "1"]) == 0
    assert models([str(tmp_path), "roll-back", "7"]) == 2

    (record,) = last_records(Project(tmp_path).audit, 10)
    assert (record.action, record.of, record.program) == ("roll back", "version: 1", "scripts/models.sh")


def test_skip_is_recorded_under_the_name_of_the_login(guarded):
    anna = guarded.program("anna")

    skip = anna.post("/studies/straight/skip", json={"reason": "motion", "client_id": "somebody else"}).json()

    assert skip["annotator"] == of(guarded, "skip")["who"] == "anna"
    assert anna.delete("/studies/straight/skip", params={"client_id": "somebody else"}).status_code == 200
    assert of(guarded, "skip taken back")["who"] == "anna"
