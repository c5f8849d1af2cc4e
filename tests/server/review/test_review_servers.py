"""A reviewer decides between two readings of a study."""

from __future__ import annotations

import gzip
import json
import re
import time

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.mask_store import MaskStore
from lib.annotations.store import AnnotationStore
from lib.demo.local_server import LocalServer
from lib.server.project import Project
from scripts.report import main as write_report
from tests.exchange.studies import CLICKS, all_files, write_studies, write_volume
from tests.physical import l_shape
from tests.server.archive.dicomweb import FakeDICOMweb, served
from tests.server.review.reading import (
    AFFINES,
    OTHER_CLICKS,
    Site,
    array_of,
    learnt_from,
    read,
    read_by_two,
    sentence,
    settings,
    shape_mask,
)
from tests.server.waiting import wait_for


def test_decision_makes_exactly_the_chosen_reading_final(site, people, image):
    anna, bert, rita = people["anna"], people["bert"], people["rita"]
    for person, clicks in ((anna, CLICKS), (bert, OTHER_CLICKS)):
        person.click(image, clicks)
        person.accept(image)
    masks = {person.name: person.final(image) for person in (anna, bert)}
    completed = anna.completed()

    answer = rita.decide(image, "bert")

    assert answer.status_code == 200, answer.text
    decision = answer.json()["decision"]
    assert (decision["reader"], decision["by"], decision["readers"]) == ("bert", "rita", ["anna", "bert"])
    assert anna.completed() == completed + 1
    for person in (anna, bert, people["uma"], rita):
        assert np.array_equal(person.final(image), masks["bert"])
    project = Project(site.studies)
    assert all(b"anna" not in path.read_bytes() for path in project.clicks.glob(f"{image}*"))
    answer = AnnotationStore(project.clicks).load(image, "lesion")
    assert (answer.annotator, sorted(answer.points.foreground_voxel.tolist())) == ("bert", sorted(OTHER_CLICKS))
    record = MaskStore(project.masks(), ("lesion",), project.mapped_masks).record(image)
    assert (record.annotator, record.info["accepted"]["lesion"]["annotator"]) == ("bert", "bert")
    assert learnt_from(site)[image] == (["bert"], int(masks["bert"].sum()))
    assert rita.listed(image)["state"] == "decided" and rita.listed(image)["decision"] == decision


def test_third_reading_is_the_reviewers_own(site, people, image):
    rita = people["rita"]
    read_by_two(people, image)
    assert "no reading of your own" in sentence(rita.decide(image, "third"), 409)

    read(rita, image, shape_mask(4))
    answer = rita.decide(image, "third")

    assert answer.status_code == 200, answer.text
    assert answer.json()["decision"]["reader"] == "rita"
    assert np.array_equal(people["anna"].final(image), shape_mask(4))
    assert learnt_from(site)[image] == ([], int(shape_mask(4).sum()))


def test_decision_that_is_taken_back_leaves_the_study_as_it_was(site, people, image):
    anna, bert, rita = people["anna"], people["bert"], people["rita"]
    for person, clicks in ((anna, CLICKS), (bert, OTHER_CLICKS)):
        person.click(image, clicks)
        person.accept(image)
    before, completed = learnt_from(site), anna.completed()
    rita.decide(image, "anna")

    assert "has decided for the reading by 'anna' already" in sentence(rita.decide(image, "bert"), 409)
    assert rita.decide(image, "anna").status_code == 200  # once more, as after an answer that was lost
    assert people["rené"].take_decision_back(image).status_code == 200

    assert learnt_from(site) == before and anna.completed() == completed
    assert list((site.studies / "labels" / "extreme_points").glob(f"{image}*")) == []
    assert len(list((site.studies / "labels" / "final" / "history" / image).iterdir())) == 1
    assert rita.listed(image)["state"] == "to decide"
    assert sentence(rita.take_decision_back(image), 404) == f"There is no decision on '{image}' to take back."
    assert rita.decide(image, "bert").status_code == 200
    assert learnt_from(site)[image][0] == ["bert"]


@pytest.mark.parametrize("change", ["mask", "clicks", "third person"])
def test_reading_that_changed_since_it_was_seen_is_not_decided_on(people, image, change):
    rita = people["rita"]
    read_by_two(people, image)
    version = rita.listed(image)["version"]
    if change == "mask":
        read(people["bert"], image, shape_mask(2))
    elif change == "clicks":
        assert people["anna"].click(image).status_code == 200
    else:
        read(people["carl"], image, shape_mask(3))

    answer = rita.decide(image, "anna", version)

    assert sentence(answer, 409) == "The readings have changed since you saw them; look at them again, then decide."
    assert people["anna"].final(image) is not None and rita.listed(image)["state"] == "to decide"
    assert rita.decide(image, "anna").status_code == 200


def test_own_reading_of_a_reviewer_does_not_change_what_they_decide_on(people, image):
    read_by_two(people, image)
    version = people["rita"].listed(image)["version"]
    read(people["rita"], image, shape_mask(3))

    assert people["rita"].decide(image, "anna", version).status_code == 200


def test_label_that_is_said_absent_is_read(site, people, image):
    for name in ("anna", "bert"):
        answer = people[name].click(image, [], absent=["lesion"])
        assert answer.status_code == 200, answer.text
    rita = people["rita"]
    assert rita.listed(image)["agreement"]["dice"] == 1
    assert not array_of(rita.get(f"/readings/{image}/anna")).any()

    assert rita.decide(image, "anna").status_code == 200

    assert not people["uma"].final(image).any()
    assert learnt_from(site)[image] == ([], 0)


def test_decision_without_a_version_or_for_somebody_who_has_not_read_is_refused(people, image):
    read_by_two(people, image)
    rita = people["rita"]

    for body in ({}, {"choice": "anna"}, {"choice": 1, "version": "x"}, {"version": "x"}):
        answer = rita.post(f"/readings/{image}/decision", json=body)
        assert sentence(answer, 422).startswith("The decision needs a 'choice'")
    for choice in ("carl", "uma", "", "nobody"):
        assert "expected one of anna, bert" in sentence(rita.decide(image, choice), 404)


def test_reviewer_gets_the_masks_of_both_and_their_agreement_in_millimetres(people, image):
    read_by_two(people, image, grow=2)
    one, other = int(shape_mask().sum()), int(shape_mask(2).sum())

    agreement = people["rita"].listed(image)["agreement"]

    for name, grow in (("anna", 0), ("bert", 2)):
        assert np.array_equal(array_of(people["rita"].get(f"/readings/{image}/{name}")), shape_mask(grow))
    assert sentence(people["rita"].get(f"/readings/{image}/carl"), 404).startswith("'carl' has not finished")
    (pair,) = agreement["pairs"]
    assert pair["readers"] == ["anna", "bert"]
    assert pair["labels"]["lesion"]["dice"] == agreement["dice"] == pytest.approx(2 * one / (one + other))
    # Two voxels of 0.7 mm along the first axis.
    assert pair["labels"]["lesion"]["largest_mm"] == agreement["largest_mm"] == pytest.approx(1.4)
    assert sorted(pair["labels"]["lesion"]["ends_mm"].values()) == pytest.approx([0, 0, 0, 0, 0, 1.4])


def test_pairs_that_disagree_most_come_first(site, people):
    names = []
    for grow in (1, 4, 2):
        names.append(name := f"order {grow}")
        AFFINES[name] = AFFINES["straight"]
        array = l_shape()
        array[0, 0, 0] = 500 + grow
        write_volume(site.studies / f"{name}.nii.gz", array, AFFINES[name])
        read_by_two(people, name, grow=grow)

    listed = [entry["id"] for entry in people["rita"].get("/readings/").json() if entry["id"] in names]

    assert listed == ["order 4", "order 2", "order 1"]


def test_strategy_of_reviewers_hands_out_what_disagrees_most_and_to_one_reviewer_at_a_time(people, image):
    read(people["anna"], image, shape_mask())
    read(people["bert"], image, ~shape_mask())
    answer = people["anna"].post("/activelearning/review", json={})
    assert "needs the role reviewer" in sentence(answer, 403)

    got = [people[name].next("review") for name in ("rita", "rené")]

    assert got[0] == image and got[1] != image


def test_decisions_are_in_the_audit_log(site, people, image):
    read_by_two(people, image)
    people["rita"].decide(image, "anna")
    people["rené"].take_decision_back(image)

    lines = [json.loads(line) for line in (Project(site.studies).audit / "audit.jsonl").read_text().splitlines()]
    done = [line for line in lines if line.get("image") == image and "decision" in line["action"]]

    assert [(line["action"], line["who"], line["reader"]) for line in done] == [
        ("decision", "rita", "anna"),
        ("decision taken back", "rené", "anna"),
    ]
    assert done[0]["readers"] == ["anna", "bert"]
    masks = [line["who"] for line in lines if line.get("image") == image and line["action"] == "mask"]
    assert masks == ["anna", "bert"]


def test_decided_mask_is_not_deleted_behind_the_reviewers(people, image):
    read_by_two(people, image)
    people["rita"].decide(image, "anna")

    answer = people["ada"].delete("/datastore/label", params={"id": image, "tag": "final"})

    assert "take it back (DELETE" in sentence(answer, 409)


def test_review_only_server_starts_without_a_model_and_takes_no_clicks(tmp_path):
    studies = write_studies(tmp_path / "studies", ["straight"])
    with LocalServer(studies, settings(tmp_path), tmp_path / "server.log") as server:
        site = Site(server, studies)
        read_by_two({name: site.person(name) for name in ("anna", "bert")}, "straight")
    (tmp_path / "model").mkdir(exist_ok=True)
    model = tmp_path / "model" / "inextremis.pt"
    model.write_bytes(b"no model")
    before = all_files(tmp_path / "model")
    conf = {name: value for name, value in settings(tmp_path, review="true").items() if name != "readers"}

    start = time.monotonic()
    with LocalServer(studies, conf, tmp_path / "review.log") as server:
        started_s = time.monotonic() - start
        site = Site(server, studies)
        rita, anna, ada = (site.person(name) for name in ("rita", "anna", "ada"))
        info = rita.get("/info/").json()
        assert (info["models"], info["trainers"], list(info["strategies"])) == ({}, {}, ["review"])
        for answer in (anna.click("straight"), anna.accept("straight"), ada.post("/train/inextremis", json={})):
            assert sentence(answer, 409).startswith("This server is for reviews only")
        assert sentence(ada.post("/train/", json={}), 409).startswith("This server is for reviews only")
        assert "needs the role reviewer" in sentence(anna.submit("straight", shape_mask()), 403)

        assert rita.get("/me").json()["may"] == {"store": True, "train": False, "review": True}
        assert not any(anna.get("/me").json()["may"].values()) and not ada.get("/me").json()["may"]["train"]
        listed = rita.get("/studies").json()
        assert listed["project"]["review_only"] and listed["project"]["models"] == {"clicks": None, "automatic": None}
        assert (listed["project"]["model"], list(listed["project"]["strategies"])) == (None, ["review"])
        assert [entry["state"] for entry in listed["studies"]] == ["untouched"]
        assert rita.get("/studies/straight").json()["final"] is None
        assert (
            rita.get("/studies/straight/volume").status_code
            == rita.get("/studies/straight/thumbnail").status_code
            == 200
        )
        assert rita.get("/models").json() == {"published": None, "versions": []}
        assert not rita.get("/training").json()["running"] and not ada.get("/training").json()["may_train"]
        assert rita.get("/events", params={"seconds": 0}).status_code == 200
        assert sentence(ada.post("/models/1/publish"), 409).startswith("This server is for reviews only")
        assert anna.post("/studies/straight/skip", json={}).status_code == 200

        assert rita.next("review") == "straight"
        read(rita, "straight", shape_mask(1))
        assert rita.decide("straight", "third").status_code == 200
        assert np.array_equal(anna.final("straight"), shape_mask(1))

    assert all_files(tmp_path / "model") == before
    log = (tmp_path / "review.log").read_text()
    assert "Ready for clicks" not in log and "Traceback" not in log
    print(f"started in {started_s:.1f} s")


def test_agreement_is_measured_when_the_second_has_finished_and_shown_by_the_report(site, people, image, tmp_path):
    read_by_two(people, image, grow=3)
    file = Project(site.studies).agreements
    wait_for(lambda: file.exists() and image in json.loads(file.read_text()))
    people["rita"].decide(image, "bert")

    report = tmp_path / "report.html"
    assert write_report([str(site.studies), "--labels", "lesion", "--out", str(report), "--max-pictures", "0"]) == 0

    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", report.read_text(), re.S)]
    one, other = int(shape_mask().sum()), int(shape_mask(3).sum())
    dice = f"{2 * one / (one + other):.2f}"
    assert [f"{image}.nii.gz", "anna, bert", "lesion", dice, "2.10", "bert, by rita"] in rows


def test_pages_of_a_review_show_what_a_reviewer_may_see(people, image):
    rita, rené = people["rita"], people["rené"]
    read(rené, image, shape_mask())
    read(people["anna"], image, shape_mask(2))
    for person, is_open in ((rita, True), (rené, False)):
        answer = person.get(f"/review/{image}")
        assert answer.status_code == 200
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert ("anna is right" in answer.text) == is_open
        picture = person.get(f"/review/{image}/picture")
        assert picture.status_code == (200 if is_open else 409), picture.text
        assert image in person.get("/review").text
    assert rita.get(f"/review/{image}/picture").content.startswith(b"\x89PNG")
    assert rita.get("/review/none").status_code == rita.get("/review/none/picture").status_code == 404
    assert rita.get("/me").json()["may"]["review"] and not people["anna"].get("/me").json()["may"]["review"]


def test_names_of_studies_are_text_on_the_pages(site, people):
    name = "<b>&\"' %41+é"
    AFFINES[name] = AFFINES["straight"]
    write_volume(site.studies / f"{name}.nii.gz", l_shape() + 7, AFFINES[name])
    read_by_two(people, name)

    text = people["rita"].get("/review").text
    link = re.search(r'href="(review/[^"]*b%3E[^"]*)"', text)[1]

    assert "<b>" not in text
    page = people["rita"].get(f"/{link}")
    assert page.status_code == 200 and "<b>" not in page.text
    picture = re.search(r'src="([^"]*/picture[^"]*)"', page.text)[1]
    assert people["rita"].get(f"/review/{picture.replace('&amp;', '&')}").status_code == 200


def test_archive_gets_the_segmentation_that_is_decided_for_and_none_of_a_reading(tmp_path):
    archive = FakeDICOMweb()
    series = archive.add("somebody")
    environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache")}
    with (
        served(archive) as address,
        LocalServer(address, settings(tmp_path), tmp_path / "server.log", environment=environment) as server,
    ):
        site = Site(server, None)
        anna, bert, rita = (site.person(name) for name in ("anna", "bert", "rita"))
        content = anna.get("/datastore/image", params={"image": series}).content
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        for person, size in ((anna, 3), (bert, 4)):
            mask = np.zeros(image.shape, bool)
            mask[1:size, 1:size, 1:size] = True
            assert person.submit(series, mask, affine_ras=image.affine).status_code == 200
        stow = f"/proxy/dicom/stow/studies/{series}"
        assert "would see a segmentation" in sentence(anna.post(stow, data=b"x"), 409)
        assert rita.post(stow, data=b"x").status_code not in (401, 403, 409)
        assert archive.stored == []

        answer = rita.decide(series, "bert")

        assert answer.status_code == 200 and "warning" not in answer.json(), answer.text
        assert len(archive.stored) == 1 and b"bert" in archive.stored[0]
        assert "delete it there" in rita.take_decision_back(series).json()["warning"]
