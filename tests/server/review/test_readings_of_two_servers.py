"""Leases and readings hold over two servers on one folder, a restart, and a server that is killed at any moment."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests

from lib.demo.local_server import LocalServer
from tests.exchange.studies import write_volume
from tests.physical import l_shape
from tests.server.review.reading import AFFINES, Person, settings, shape_mask

READERS = ("anna", "bert", "carl", "rené", "rita", "ada")
STUDIES = [f"study {n}" for n in range(8)]


@pytest.fixture
def root(tmp_path):
    """With eight studies."""
    for n, name in enumerate(STUDIES):
        AFFINES[name] = AFFINES["straight"]
        array = l_shape()
        array[0, 0, 0] = n
        write_volume(tmp_path / "studies" / f"{name}.nii.gz", array, AFFINES[name])
    return tmp_path


def started(root, name="a"):
    return LocalServer(root / "studies", settings(root), root / f"{name}.log")


def test_two_servers_that_are_asked_at_once_and_one_after_a_restart(root):
    """No study is with more than two people, none twice with one, and all are handed out."""
    with started(root, "a") as a, started(root, "b") as b:
        people = {name: [Person(server.url, name) for server in (a, b)] for name in READERS}
        start = threading.Barrier(len(READERS))

        def work(name):
            start.wait(60)
            return [people[name][n % 2].next(("first", "random")[n % 3 == 0]) for n in range(4)]

        with ThreadPoolExecutor(len(READERS)) as pool:
            got = dict(zip(READERS, pool.map(work, READERS), strict=True))

        handed_out = {name: [study for study in studies if study is not None] for name, studies in got.items()}
        assert all(len(set(studies)) == len(studies) for studies in handed_out.values()), got
        counts = Counter(study for studies in handed_out.values() for study in studies)
        assert max(counts.values()) <= 2 and sum(counts.values()) == 2 * len(STUDIES), counts
    with started(root, "c") as c:
        assert [Person(c.url, name).next() for name in READERS] == [None] * len(READERS)


def test_reading_that_one_server_stores_counts_on_the_other(root):
    with started(root, "a") as a, started(root, "b") as b:
        anna, bert, rita = Person(a.url, "anna"), Person(b.url, "bert"), Person(a.url, "rita")
        for person in (anna, bert):
            assert person.submit("study 3", shape_mask()).status_code == 200
        assert Person(b.url, "carl").next() == "study 0"  # two have read the third
        assert Person(b.url, "rené").decide("study 3", "anna").status_code == 200
        assert rita.listed("study 3")["state"] == "decided"
        assert anna.submit("study 3", shape_mask(1)).status_code == 409
        assert [person.completed() for person in (anna, bert)] == [1, 1]


def test_server_that_is_killed_loses_no_reading_that_it_answered(root):
    """Killed three times, at random moments, while three people submit masks of growing size."""
    random.seed(0)
    answered = {}
    for round_number in range(3):
        server = started(root, f"killed {round_number}")
        server.wait_until_ready()
        people = [Person(server.url, name) for name in ("anna", "bert", "carl")]

        def submit(person, round_number=round_number):
            for n in range(1000):
                study, grow = random.choice(STUDIES), n % 6 + 1
                try:
                    answer = person.submit(study, shape_mask(grow))
                except requests.RequestException:
                    answered.pop((person.name, study), None)  # either the one before, or this one
                    return
                assert answer.status_code == 200, answer.text
                answered[person.name, study] = grow

        threads = [threading.Thread(target=submit, args=(person,)) for person in people]
        for thread in threads:
            thread.start()
        threading.Event().wait(random.uniform(0.5, 2))
        os.killpg(server.process.pid, 9)
        server.process.wait()
        for thread in threads:
            thread.join(60)

    with started(root, "last") as server:
        people = {name: Person(server.url, name) for name in ("anna", "bert", "carl")}
        assert len(answered) > 5
        for (name, study), grow in answered.items():
            assert np.array_equal(people[name].final(study), shape_mask(grow)), (name, study)
        listed = Person(server.url, "rita").get("/readings/")
        assert listed.status_code == 200
        finished = {
            (one["reader"], entry["id"]) for entry in listed.json() for one in entry["readings"] if one["finished"]
        }
        assert set(answered) <= finished
        assert list((root / "studies").rglob("*.corrupt")) == []
