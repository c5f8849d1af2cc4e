"""Skipped studies: not offered, not learnt from, and back as soon as somebody works on them."""

import json

import pytest
import requests

from lib.activelearning.strategies import strategies
from lib.annotations.json_file import JsonFile
from lib.server.studies.open_studies import open_studies
from lib.server.studies.skips import Skips, checked_reason
from lib.trainers.annotated_scans import annotated_scans
from lib.training.loop import TrainingError
from tests.server.asking import infer
from tests.server.refusals import refusal
from tests.server.studies.images import LABELS, click, submit, write_image


@pytest.fixture
def studies(tmp_path):
    for patient, name in enumerate(("a.nii.gz", "b.nii.gz")):
        write_image(tmp_path / "studies" / name, patient)
    return open_studies(str(tmp_path / "studies"), LABELS, None)


def test_skip_is_kept_with_who_and_why_over_a_restart(tmp_path):
    skip = Skips(JsonFile(tmp_path / "skips.json")).skip("a", "motion", "anna")

    again = Skips(JsonFile(tmp_path / "skips.json"))
    assert again.of("a") == skip and again.all() == {"a": skip} and again.of("b") is None
    assert (skip["reason"], skip["annotator"]) == ("motion", "anna")
    assert again.end("a") and not again.end("a") and again.all() == {}


@pytest.mark.parametrize("kept", [{}, {"reason": 1}, {"reason": None, "more": []}])
def test_skip_that_somebody_has_edited_is_one_still(tmp_path, kept):
    (tmp_path / "skips.json").write_text(json.dumps({"a": kept}))

    assert set(Skips(JsonFile(tmp_path / "skips.json")).all()["a"]) == {"reason", "annotator", "created"}


@pytest.mark.parametrize(
    ("reason", "expected"), [(None, ""), ("", ""), ("  two\nlines ", "two lines"), ("x" * 200, "x" * 200)]
)
def test_reason_is_a_short_text(reason, expected):
    assert checked_reason(reason) == expected


@pytest.mark.parametrize("reason", ["x" * 201, 1, True, ["a"], {"a": 1}])
def test_other_reasons_are_refused(reason):
    status, sentence = refusal(checked_reason, reason)
    assert status == 422 and "at most 200 characters" in sentence


@pytest.mark.parametrize("name", ["first", "random"])
def test_strategies_bring_no_skipped_study(studies, name):
    studies.skips.skip("a", "", "anna")
    strategy = strategies(studies.leases)[name]

    assert strategy({"client_id": "anna"}, studies) == {"id": "b"}
    studies.skips.skip("b", "", "anna")
    assert strategy({"client_id": "bert"}, studies) is None
    studies.skips.end("a")
    assert strategy({"client_id": "bert"}, studies) == {"id": "a"}


def test_training_learns_nothing_from_a_skipped_study(studies):
    click(studies, "a"), submit(studies, "b")
    assert {scan.image_id for scan in annotated_scans(studies, LABELS)} == {"a", "b"}
    studies.skips.skip("b", "", "anna")
    assert {scan.image_id for scan in annotated_scans(studies, LABELS)} == {"a"}
    studies.skips.skip("a", "", "anna")
    with pytest.raises(TrainingError, match="nothing to learn from"):
        annotated_scans(studies, LABELS)


def test_skip_goes_with_its_image(studies):
    studies.skips.skip("a", "", "anna"), studies.skips.skip("b", "", "anna")

    studies.remove_image("a")

    assert set(studies.skips.all()) == {"b"}


# Of a running server.


class Annotator:
    def __init__(self, site, study, name="anna"):
        self.site, self.study, self.name = site, study, name

    def ask(self, method, path, **options):
        return requests.request(method, f"{self.site.url}{path}", timeout=60, **options)

    def skip(self, reason="motion"):
        answer = self.ask("POST", f"/studies/{self.study}/skip", json={"reason": reason, "client_id": self.name})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def listed(self):
        (entry,) = (e for e in self.ask("GET", "/studies").json()["studies"] if e["id"] == self.study)
        return entry

    def click(self):
        answer = infer(self.site, self.study, {"lesion": self.site.clicks(self.study), "client_id": self.name})
        assert answer.status_code == 200, answer.text

    def accept(self):
        return self.ask("POST", f"/annotations/{self.study}/accept", json={"client_id": self.name})

    def submit(self):
        with (self.site.truth / f"{self.study}.nii.gz").open("rb") as mask:
            return self.ask("PUT", "/datastore/label", params={"image": self.study}, files={"label": mask})


@pytest.fixture
def anna(own_site):
    return Annotator(own_site, "study_01")


def audited(site):
    log = site.studies / "audit" / "audit.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_skip_is_answered_listed_and_recorded(own_site, anna):
    skip = anna.skip("metal artefact")

    assert (skip["reason"], skip["annotator"]) == ("metal artefact", "anna")
    assert (anna.listed()["state"], anna.listed()["skip"]) == ("skipped", skip)
    assert anna.ask("GET", f"/studies/{anna.study}").json()["skip"] == skip
    assert [(r["who"], r["image"]) for r in audited(own_site) if r["action"] == "skip"][-1] == ("anna", anna.study)

    assert anna.ask("DELETE", f"/studies/{anna.study}/skip", params={"client_id": "bert"}).status_code == 200
    assert anna.listed()["skip"] is None
    assert audited(own_site)[-1]["action"] == "skip taken back" and audited(own_site)[-1]["who"] == "bert"


def test_click_and_accept_and_mask_end_a_skip(anna):
    anna.skip()
    anna.click()
    assert anna.listed()["skip"] is None and anna.listed()["working"] == "anna"
    anna.skip()
    assert anna.listed()["working"] is None  # who skips goes on to another
    assert anna.accept().status_code == 200
    assert anna.listed()["skip"] is None
    anna.skip()
    assert anna.submit().status_code == 200
    assert anna.listed()["skip"] is None


def test_clicks_that_are_refused_leave_the_skip(anna):
    anna.skip()
    params = json.dumps({"lesion": [[0, 0, 0]]})
    refused = anna.ask("POST", "/infer/extreme_points", params={"image": anna.study}, data={"params": params})

    assert refused.status_code == 422 and anna.listed()["state"] == "skipped"
    anna.ask("DELETE", f"/studies/{anna.study}/skip")


@pytest.mark.parametrize(
    ("method", "study", "body", "status", "sentence"),
    [
        ("POST", "none", {}, 404, "There is no image 'none'"),
        ("DELETE", "none", None, 404, "There is no image 'none'"),
        ("DELETE", "study_03", None, 404, "was not skipped"),
        ("POST", "study_03", {"reason": "x" * 201}, 422, "at most 200 characters"),
        ("POST", "study_03", [], 422, "expected a JSON object"),
        ("POST", "..%2F..", {}, 404, ""),
    ],
)
def test_what_cannot_be_skipped_is_refused_with_a_sentence(own_site, method, study, body, status, sentence):
    answer = requests.request(method, f"{own_site.url}/studies/{study}/skip", json=body, timeout=60)

    assert answer.status_code == status and sentence in answer.json()["detail"]


def test_who_works_on_a_study_is_told_to_others(own_site):
    url = f"{own_site.url}/studies/study_02/working"
    assert requests.post(url, json={"client_id": "anna"}, timeout=60).status_code == 200

    def working(who):
        listed = requests.get(f"{own_site.url}/studies", params={"client_id": who}, timeout=60).json()["studies"]
        return next(entry["working"] for entry in listed if entry["id"] == "study_02")

    assert (working("bert"), working("anna")) == ("anna", None)
    assert requests.delete(url, params={"client_id": "bert"}, timeout=60).status_code == 200
    assert working("bert") == "anna"
    assert requests.delete(url, params={"client_id": "anna"}, timeout=60).status_code == 200
    assert working("bert") is None
    assert requests.post(f"{own_site.url}/studies/none/working", json={}, timeout=60).status_code == 404
