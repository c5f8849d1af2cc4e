"""Training and versions of the model, as the annotation page shows them: curves, verdicts, roll back."""

import json
import time
from datetime import datetime

import pytest
import requests

from lib.networks.checkpoint import TrainedModel, load_checkpoint, save_checkpoint
from lib.networks.spec import NetworkSpec
from lib.networks.versions import ModelVersions
from lib.server.jobs.training_progress import training_progress
from lib.trainers.curves import MAX_POINTS, Curves, read_curves, thinned
from lib.training.record import TrainingRecord, TrainingRun
from lib.training.version_list import NoVersionError, kept_versions, roll_back
from scripts.models import main as models_script
from tests.server.waiting import wait_for_training


def task(status="RUNNING", ago_s=100.0):
    start = datetime.fromtimestamp(time.time() - ago_s)
    return {"status": status, "start_ts": start.strftime("%Y-%m-%d %H:%M:%S")}


def stats(ago_s=95.0, **figures):
    return {"start_ts": int(time.time() - ago_s), "epoch": 0, "total_epochs": 20, **figures}


def test_nothing_was_ever_trained():
    assert training_progress(None, {"epoch": 0, "total_epochs": 20}, []) == {
        "running": False,
        "started": None,
        "progress": 0.0,
        "epoch": 0,
        "epochs": 20,
        "sentence": None,
        "remaining_s": None,
        "error": None,
    }


def test_figures_of_an_earlier_training_are_not_those_of_one_that_has_just_begun():
    told = training_progress(task(ago_s=5), stats(ago_s=3000, epoch=20, verdict="Its score is 0.9."), [])

    assert (told["running"], told["progress"], told["sentence"]) == (True, 0.0, None)
    assert abs(datetime.fromisoformat(told["started"]).timestamp() - (time.time() - 5)) < 2


def test_training_before_the_server_started_is_still_told():
    told = training_progress(None, stats(epoch=20, verdict="Its score is 0.9."), [])

    assert (told["running"], told["progress"], told["error"]) == (False, 1.0, None)
    assert told["sentence"] == "Its score is 0.9."


@pytest.mark.parametrize(
    ("epoch", "reported_s", "first", "since_s", "expected"),
    [
        (0, None, None, 60, None),
        (1, 40.0, (1, 40.0), 0, 19 * 40.0),  # before the first part scans are prepared, which is not known yet
        (5, 60.0, (1, 40.0), 0, 15 * 5.0),
        (5, 60.0, (1, 40.0), 35, 15 * 5.0 - 35),
        (5, 60.0, (1, 40.0), 500, 0.0),
        (20, 135.0, (1, 40.0), 0, None),
    ],
)
def test_time_that_is_left_is_that_of_the_parts_that_are(epoch, reported_s, first, since_s, expected):
    ran = (reported_s or 0) + since_s
    figures = {} if first is None else {"reported_s": reported_s, "first_report": list(first)}
    told = training_progress(task(ago_s=ran), stats(ago_s=ran, epoch=epoch, **figures), [])

    assert told["remaining_s"] == (None if expected is None else pytest.approx(expected, abs=2.5))


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        ("DONE", ["all is well"], None),
        ("STOPPED", ["half of it"], None),
        ("ERROR", [], "The training ended early; the server's log says why."),
        ("ERROR", ["begun", "There is nothing to learn from.", ""], "There is nothing to learn from."),
        (
            "ERROR",
            ["[2026-01-01 10:00:00,000] [77] [MainThread] [ERROR] (lib.trainers.train_task:99) - The loss became nan."],
            "The loss became nan.",
        ),
    ],
)
def test_training_that_failed_says_why(status, words, expected):
    told = training_progress(task(status), stats(), words)

    assert (told["running"], told["error"], told["remaining_s"]) == (False, expected, None)


def test_curves_are_read_while_they_grow_and_begin_anew(tmp_path):
    path = tmp_path / "curves.json"
    curves = Curves(path)
    curves.add_loss(10, 1.5), curves.add_loss(20, 1.25), curves.add_score(20, 0.5)

    assert read_curves(path) == {"loss": [[10, 1.5], [20, 1.25]], "validation": [[20, 0.5]]}
    Curves(path)
    assert read_curves(path) == {"loss": [], "validation": []}


@pytest.mark.parametrize(
    "content", ["", "{}", '{"loss": [[1]], "validation": []}', '{"validation": [], "loss": [[1, NaN]]}', "[]"]
)
def test_curves_that_cannot_be_read_are_empty(tmp_path, content):
    (tmp_path / "curves.json").write_text(content)

    assert read_curves(tmp_path / "curves.json") == {"loss": [], "validation": []}
    assert read_curves(tmp_path / "none.json") == {"loss": [], "validation": []}


def test_long_curve_keeps_its_shape_and_its_end():
    curve = []
    for iteration in range(1000):
        curve = thinned([*curve, (iteration, -float(iteration))])
        assert len(curve) <= MAX_POINTS and curve[-1][0] == iteration
    assert curve[0][0] == 0 and all(a < b for (a, _), (b, _) in zip(curve, curve[1:], strict=False))


def test_versions_are_listed_with_their_training(tmp_path):
    versions = ModelVersions(tmp_path / "inextremis.pt")
    versions.folder.mkdir()
    for number in (2, 3):
        versions.path(number).write_bytes(b"")
    run = TrainingRun("s", "e", 2, 100, 5, (1, "held-out"), 0.8, 0.7, 0.1)

    found = kept_versions(versions, TrainingRecord(runs=(run,)), 4)

    listed = [(of.number, of.is_published, of.run) for of in found]
    assert listed == [(2, False, run), (3, False, None), (4, True, None)]
    assert found[0].sentence == "Its score on 1 held-out scan is 0.80; the best kept version's is 0.70."
    assert found[1].sentence is None
    with pytest.raises(NoVersionError, match="There is no version 7; these are kept: 2, 3"):
        roll_back(versions, 7)


# Of a running server.


def ask(site, method, path, **options):
    return requests.request(method, f"{site.url}{path}", timeout=60, **options)


def train(site):
    assert ask(site, "POST", "/train/inextremis", json={}).status_code == 200
    wait_for_training(site.url)
    return ask(site, "GET", "/training").json()


@pytest.fixture(scope="module")
def trained(own_site):
    """Train two versions on a site."""
    assert ask(own_site, "GET", "/models").json() == {"published": None, "versions": []}
    assert ask(own_site, "POST", "/models/1/publish").json()["detail"] == "There is no version 1; none is kept."
    params = json.dumps({"lesion": own_site.clicks("study_00")})
    ask(own_site, "POST", "/infer/extreme_points?image=study_00", data={"params": params}).raise_for_status()
    return own_site, [train(own_site), train(own_site)]


def test_training_tells_its_curves_and_its_verdict(trained):
    _, (first, second) = trained

    for told, last in ((first, 2), (second, 4)):
        assert (told["progress"], told["epoch"], told["epochs"], told["error"]) == (1.0, 20, 20, None)
        assert told["loss"][-1][0] == last and [iteration for iteration, _ in told["validation"]] == [last]
        assert 0 <= told["validation"][0][1] <= 1 and told["may_train"]
    assert "there is no earlier model to compare with" in first["sentence"]
    assert "published model's is" in second["sentence"]
    assert first["started"] < second["started"]


def test_versions_go_back_and_forth(trained):
    site, (_, second) = trained
    listed = ask(site, "GET", "/models").json()
    assert listed["published"] == 2
    assert [(v["version"], v["is_published"], v["scans"]) for v in listed["versions"]] == [(2, True, 1), (1, False, 1)]
    assert listed["versions"][0]["sentence"] == second["sentence"]
    assert listed["versions"][0]["dice"] == second["validation"][-1][1]
    project = ask(site, "GET", "/studies").json()["project"]
    assert project["model"]["version"] == 2 and project["models"]["automatic"] == "inextremis"

    answer = ask(site, "POST", "/models/1/publish")

    assert answer.status_code == 200
    assert answer.json()["published"] == 1 == ask(site, "GET", "/models").json()["published"]
    model = site.studies.parent / "model" / "inextremis.pt"
    assert load_checkpoint(model).version == 1
    answer = ask(site, "POST", "/infer/inextremis", params={"image": "study_01", "output": "json"})
    assert answer.json()["model_version"] == 1
    record = json.loads((site.studies / "audit" / "audit.jsonl").read_text().splitlines()[-1])
    assert (record["action"], record["version"]) == ("roll back", 1)
    assert ask(site, "POST", "/models/2/publish").json()["published"] == 2

    # What the script does, the page sees, and the other way round.
    arguments = [str(site.studies), "--model-dir", str(model.parent)]
    assert models_script([*arguments, "roll-back", "1"]) == 0
    assert ask(site, "GET", "/models").json()["published"] == 1


@pytest.mark.parametrize(
    ("version", "status", "sentence"),
    [
        ("7", 404, "There is no version 7; these are kept: 1, 2."),
        ("0", 422, ""),
        ("-1", 422, ""),
        ("1.5", 422, ""),
        ("latest", 422, ""),
        ("..%2f..", 404, ""),
        ("9" * 40, 422, ""),
    ],
)
def test_version_that_is_not_kept_is_refused(trained, version, status, sentence):
    answer = ask(trained[0], "POST", f"/models/{version}/publish")

    assert answer.status_code == status and sentence in str(answer.json()["detail"])


def test_version_with_other_labels_is_refused(trained):
    site, _ = trained
    before = ask(site, "GET", "/models").json()
    path = site.studies.parent / "model" / "inextremis-versions" / "0009.pt"
    spec = NetworkSpec.plan(("other",), (1.0, 1.0, 1.0), (16, 16, 16), levels=2, base_channels=2)
    save_checkpoint(path, TrainedModel(spec, spec.build(), 9))

    answer = ask(site, "POST", "/models/9/publish")

    path.unlink()
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("Version 9 was trained for the labels other; the app has ")
    assert ask(site, "GET", "/models").json() == before


def test_damaged_version_is_refused_and_what_is_published_stays(trained):
    site, _ = trained
    before = ask(site, "GET", "/models").json()
    damaged = site.studies.parent / "model" / "inextremis-versions" / "0009.pt"
    damaged.write_bytes(b"no model")

    answer = ask(site, "POST", "/models/9/publish")

    damaged.unlink()
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("The model 0009.pt cannot be used") and "stays" in answer.json()["detail"]
    assert str(site.studies.parent) not in answer.text
    assert ask(site, "GET", "/models").json() == before
