"""Two people read each study without seeing each other's work."""

from __future__ import annotations

import numpy as np
import pytest

from lib.demo.local_server import LocalServer
from lib.server.project import Project
from lib.server.studies.removal import removals, restore
from scripts.routes import all_routes
from tests.exchange.studies import CLICKS, all_files, write_studies
from tests.server.review.reading import (
    OTHER_CLICKS,
    learnt_from,
    read,
    read_by_two,
    sentence,
    shape_mask,
)


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
    server = LocalServer(studies, {**conf}, tmp_path / "server.log")

    assert server.process.wait(60) == 2
    words = (tmp_path / "server.log").read_text()
    assert "without a login, and nobody could tell them apart; give --conf users FILE" in words
    assert "Traceback" not in words
