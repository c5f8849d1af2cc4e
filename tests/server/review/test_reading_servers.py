"""Two people read each study without seeing each other's work, and a reviewer decides between them."""

from __future__ import annotations

import gzip
import json
import re
import time
from itertools import count

import nibabel as nib
import numpy as np
import pytest

from lib.annotations.mask_store import MaskStore
from lib.annotations.store import AnnotationStore
from lib.demo.local_server import LocalServer
from lib.server.project import Project
from lib.server.studies.open_studies import open_studies
from lib.server.studies.removal import removals, restore
from lib.trainers.annotated_scans import annotated_scans
from lib.training.loop import TrainingError
from scripts.report import main as write_report
from scripts.routes import all_routes
from tests.exchange.studies import CLICKS, all_files, write_studies, write_volume
from tests.physical import l_shape
from tests.server.archive.dicomweb import FakeDICOMweb, served
from tests.server.review.reading import AFFINES, Site, array_of, settings, shape_mask
from tests.server.waiting import wait_for

NUMBERS = count()
# On a part of the structure.
OTHER_CLICKS = [[8, 6, 4], [4, 6, 4], [5, 12, 5], [5, 5, 6], [5, 10, 6], [7, 6, 3]]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("readings")
    studies = write_studies(root / "studies", ["straight"])
    with LocalServer(studies, settings(root), root / "server.log") as server:
        yield Site(server, studies)


@pytest.fixture(scope="module")
def people(site):
    return {name: site.person(name) for name in ("uma", "anna", "bert", "carl", "rené", "rita", "ada")}


@pytest.fixture
def image(site):
    """A study that nobody has read."""
    name = f"scan {next(NUMBERS)}"
    AFFINES[name] = AFFINES["oblique"]
    array = l_shape()
    array[0, 0, 0] = next(NUMBERS)  # no other image has these voxels
    write_volume(site.studies / f"{name}.nii.gz", array, AFFINES[name])
    return name


def read(person, image, mask):
    answer = person.submit(image, mask)
    assert answer.status_code == 200, answer.text


def read_by_two(people, image, *, grow=2):
    read(people["anna"], image, shape_mask())
    read(people["bert"], image, shape_mask(grow))


def learnt_from(site):
    """What a training of this project would see, by image: labels with clicks, and the voxels of the final mask."""
    studies = open_studies(str(site.studies), ("lesion",), None)
    try:
        scans = annotated_scans(studies, ("lesion",))
    except TrainingError:
        return {}
    return {
        scan.image_id: (
            [a.annotator for a in scan.annotations],
            None if scan.mask_path is None else int(studies.masks().load(scan.image_id).array.sum()),
        )
        for scan in scans
    }


def sentence(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["detail"]


def test_what_one_reader_stores_no_route_shows_to_another(site, people, image):
    """Over the list of routes: what bert, uma and two reviewers are answered is the same before and after."""
    others = [people[name] for name in ("bert", "uma", "rené", "ada")]
    routes = [r for r in all_routes() if r.method == "GET" and "proxy" not in r.path and "ohif" not in r.path]
    # The reviewers' own lists say who works on what, and no more.
    routes = [r for r in routes if r.path not in ("/readings/", "/review", "/review/{image}")]

    def answers():
        found = {}
        for person in others:
            for route in routes:
                for tag in ("final", "extreme_points", "original") if "label" in route.path else ("final",):
                    path = route.path.replace("{image}", image).replace("{reader:path}", "anna")
                    path = path.replace("{session_id}", "none")
                    query = {"image": image, "label": image, "tag": tag, "output": "all", "seconds": 0}
                    answer = person.get(path, params=query)
                    found[person.name, path, tag] = answer.content if answer.ok else "refused"
        return found

    answers()  # makes what is made when it is first asked for
    before = answers()
    anna = people["anna"]
    assert anna.click(image).status_code == 200
    read(anna, image, shape_mask())
    assert anna.submit(image, shape_mask(), "original").status_code == 200

    after = answers()
    assert [asked for asked in before if after[asked] != before[asked]] == []
    for person in others:
        assert person.repeat(image).status_code == 404
        if person.name != "uma":
            assert sentence(person.accept(image), 404).startswith("There are no clicks")
            assert person.take_back(image).status_code == 404
    assert np.array_equal(anna.final(image), shape_mask())
    assert anna.repeat(image).status_code == 200


def test_page_shows_each_reader_their_own_work_and_all_what_was_decided(people, image):
    anna, bert, rita = (people[name] for name in ("anna", "bert", "rita"))

    def shown(person):
        (entry,) = (entry for entry in person.get("/studies").json()["studies"] if entry["id"] == image)
        study = person.get(f"/studies/{image}").json()
        assert (study["state"], study["labels"]["lesion"]["state"]) == (entry["state"], entry["labels"]["lesion"])
        return (
            entry["state"],
            study["labels"]["lesion"]["clicks"] is not None,
            study["final"] and study["final"]["annotator"],
        )

    assert anna.click(image).status_code == 200
    assert (shown(anna), shown(bert), shown(rita)) == (("clicked", True, None), *[("untouched", False, None)] * 2)
    read(anna, image, shape_mask())
    assert (shown(anna), shown(bert)) == (("final", True, "anna"), ("untouched", False, None))
    read(bert, image, shape_mask(2))
    assert (shown(anna)[2], shown(bert)[2], shown(rita)[2]) == ("anna", "bert", None)

    version = rita.listed(image)["version"]
    assert rita.decide(image, "bert", version).status_code == 200

    assert shown(anna)[2] == shown(bert)[2] == shown(rita)[2] == "bert"


def test_reader_of_a_study_does_not_see_the_other_reading_in_the_list_of_a_reviewer_who_reads_too(people, image):
    read(people["anna"], image, shape_mask())
    read(people["rené"], image, shape_mask(2))

    assert people["rené"].listed(image)["state"] == "in work"
    assert "agreement" not in people["rené"].listed(image)
    answer = people["rené"].get(f"/readings/{image}/anna")
    assert sentence(answer, 409).startswith(f"You are one of the readers of '{image}'; another reviewer sees its")
    assert "You are one of the readers" in sentence(people["rené"].decide(image, "anna"), 409)
    assert people["rita"].listed(image)["state"] == "to decide"


def test_each_reader_works_on_their_own_clicks_and_masks(people, image):
    anna, bert = people["anna"], people["bert"]
    for person, clicks in ((anna, CLICKS), (bert, OTHER_CLICKS)):
        assert person.click(image, clicks).status_code == 200
        assert person.accept(image).status_code == 200

    assert not np.array_equal(anna.final(image), bert.final(image))
    for person in (anna, bert):
        info = person.get("/datastore/label/info", params={"label": image, "tag": "final"}).json()
        assert info["annotator"] == info["accepted"]["lesion"]["annotator"] == person.name
        assert (
            person.get("/datastore/label/info", params={"label": image, "tag": "extreme_points"}).json()["lesion"][
                "annotator"
            ]
            == person.name
        )
    assert anna.take_back(image).json() == {"image": image, "final_mask": False}
    assert anna.final(image) is None and bert.final(image) is not None


def test_undecided_reading_is_neither_complete_nor_learnt_from(site, people, image):
    before, learnt = people["anna"].completed(), learnt_from(site)

    read_by_two(people, image)
    people["carl"].click(image)

    assert people["anna"].completed() == before
    assert learnt_from(site) == learnt
    assert image not in learnt
    listed = people["ada"].get("/datastore/", params={"output": "all"}).json()["objects"][image]
    assert listed["labels"] == {} and listed["unanswered"] == ["lesion"]
    assert image not in [one["image"] for one in people["ada"].get("/datastore/", params={"output": "train"}).json()]


def test_project_that_holds_readings_alone_has_nothing_to_train_on(tmp_path):
    studies = write_studies(tmp_path / "studies", ["straight"])
    with LocalServer(studies, settings(tmp_path), tmp_path / "server.log") as server:
        site = Site(server, studies)
        for name in ("anna", "bert"):
            assert site.person(name).click("straight").status_code == 200
            assert site.person(name).accept("straight").status_code == 200

        answer = site.person("ada").post("/train/inextremis", json={})

    assert sentence(answer, 409) == "There is nothing to learn from: no study has extreme points or a final mask yet."


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
    answer = AnnotationStore(project.clicks).load(image, "lesion")
    assert (answer.annotator, sorted(answer.points.foreground_voxel.tolist())) == ("bert", sorted(OTHER_CLICKS))
    record = MaskStore(project.masks(), ("lesion",), project.mapped_masks).record(image)
    assert (record.annotator, record.info["accepted"]["lesion"]["annotator"]) == ("bert", "bert")
    assert learnt_from(site)[image] == (["bert"], int(masks["bert"].sum()))
    assert rita.listed(image)["state"] == "decided" and rita.listed(image)["decision"] == decision


def test_rejected_reading_is_never_learnt_from(site, people, image):
    read_by_two(people, image)
    people["anna"].click(image)  # clicks of a reading that is not chosen
    people["rita"].decide(image, "bert")

    assert learnt_from(site)[image] == ([], int(shape_mask(2).sum()))
    decided = site.studies / "labels"
    assert all(b"anna" not in path.read_bytes() for path in (decided / "extreme_points").glob(f"{image}*"))


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


def test_reading_can_be_changed_until_it_is_decided(people, image):
    anna = people["anna"]
    read_by_two(people, image)
    read(anna, image, shape_mask(1))
    people["rita"].decide(image, "bert")

    for answer in (anna.submit(image, shape_mask(5)), anna.click(image), anna.accept(image), anna.take_back(image)):
        assert "are decided and cannot be changed" in sentence(answer, 409)
    assert np.array_equal(anna.final(image), shape_mask(2))

    people["rita"].take_decision_back(image)
    assert np.array_equal(anna.final(image), shape_mask(1))
    read(anna, image, shape_mask(5))


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


def test_study_is_decided_when_all_have_read_it(people, image):
    rita = people["rita"]
    assert rita.listed(image) is None
    assert sentence(rita.decide(image, "anna", "x"), 409).startswith("0 of 2 people have read")

    read(people["anna"], image, shape_mask())
    assert people["bert"].click(image).status_code == 200  # clicks alone are work in progress

    assert rita.listed(image)["state"] == "in work"
    assert {one["reader"]: one["finished"] for one in rita.listed(image)["readings"]} == {"anna": True, "bert": False}
    assert sentence(rita.decide(image, "anna"), 409).startswith("1 of 2 people have read")
    assert people["bert"].accept(image).status_code == 200
    assert rita.listed(image)["state"] == "to decide"


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


@pytest.mark.parametrize("choice", ["carl", "uma", "", "nobody"])
def test_who_has_not_read_cannot_be_chosen(people, image, choice):
    read_by_two(people, image)

    assert "expected one of anna, bert" in sentence(people["rita"].decide(image, choice), 404)


@pytest.mark.parametrize("body", [{}, {"choice": "anna"}, {"choice": 1, "version": "x"}, {"version": "x"}])
def test_decision_without_a_choice_or_a_version_is_refused(people, image, body):
    read_by_two(people, image)

    answer = people["rita"].post(f"/readings/{image}/decision", json=body)

    assert sentence(answer, 422).startswith("The decision needs a 'choice'")


def test_reviewer_gets_the_masks_of_both(people, image):
    read_by_two(people, image)

    for name, grow in (("anna", 0), ("bert", 2)):
        assert np.array_equal(array_of(people["rita"].get(f"/readings/{image}/{name}")), shape_mask(grow))
    assert sentence(people["rita"].get(f"/readings/{image}/carl"), 404).startswith("'carl' has not finished")


def test_agreement_is_that_of_the_masks_in_millimetres(people, image):
    read_by_two(people, image, grow=2)
    one, other = int(shape_mask().sum()), int(shape_mask(2).sum())

    agreement = people["rita"].listed(image)["agreement"]

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

    assert "take the decision back" in sentence(answer, 409)


def test_deleted_study_takes_its_readings_along_and_brings_them_back(site, people, image):
    people["anna"].click(image)
    read_by_two(people, image)
    before = {path: content for path, content in all_files(site.studies / "readings").items() if image in str(path)}
    before = {path: content for path, content in before.items() if ".inextremis" not in str(path)}
    assert len(before) == 3

    assert people["ada"].delete("/datastore/", params={"id": image}).status_code == 200

    assert [path for path in (site.studies / "readings").rglob("*") if image in path.name] == []
    assert people["rita"].listed(image) is None
    restore([removal for removal in removals(Project(site.studies), site.studies) if removal.image_id == image][-1])
    assert {path: path.read_bytes() for path in before} == before
    assert people["rita"].listed(image)["state"] == "to decide"


def test_segmentation_and_readings_need_their_roles(people, image):
    read_by_two(people, image)
    for name in ("uma", "anna"):
        person = people[name]
        for answer in (
            person.get("/readings/"),
            person.get(f"/readings/{image}/bert"),
            person.decide(image, "anna", "x"),
            person.take_decision_back(image),
        ):
            assert "needs the role reviewer" in sentence(answer, 403)
    assert "needs the role annotator" in sentence(people["uma"].post("/activelearning/first", json={}), 403)


@pytest.mark.parametrize("conf", [{"readers": "2"}, {"review": "true"}])
def test_start_without_a_login_is_refused(tmp_path, conf):
    studies = write_studies(tmp_path / "studies", ["straight"])
    server = LocalServer(studies, {"tracking": "None", **conf}, tmp_path / "server.log")

    assert server.process.wait(60) == 2
    words = (tmp_path / "server.log").read_text()
    assert "without a login, and nobody could tell them apart; give --conf users FILE" in words
    assert "Traceback" not in words


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


def test_page_of_another_server_decides_nothing(people, image):
    read_by_two(people, image)
    version = people["rita"].listed(image)["version"]

    answer = people["rita"].post(
        f"/readings/{image}/decision",
        json={"choice": "anna", "version": version},
        headers={"Origin": "https://elsewhere.example"},
    )

    assert answer.status_code == 403
    assert people["rita"].listed(image)["state"] == "to decide"


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
