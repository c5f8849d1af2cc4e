"""Strategies offer studies that are not annotated, not on lease, and can be opened."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from fastapi import HTTPException

from lib.activelearning.leases import LEASE_S, Leases
from lib.activelearning.strategies import require_strategy, strategies
from lib.annotations.json_file import JsonFile

STUDIES = ["c", "a", "b"]
NAMES = ["random", "first"]


@pytest.fixture
def file(tmp_path):
    """File of the leases of a project."""
    return tmp_path / "leases.json"


@pytest.fixture
def ask(file):
    """Return a function that asks a new server for a study, after leases at these times, in seconds since 1970."""

    def ask(name, leased=None, **studies):
        for image_id, at in (leased or {}).items():
            JsonFile(file).change(image_id, lambda kept, at=at: {"somebody": at})
        found = strategies(Leases(JsonFile(file)))[name]({"strategy": name}, studies_with(**studies))
        return found and found["id"]

    return ask


@pytest.fixture
def ask_afresh(ask, file):
    """Return a function that asks a new server for a study, with only these leases."""

    def ask_afresh(name, **of):
        file.unlink(missing_ok=True)
        return ask(name, **of)

    return ask_afresh


def studies_with(unannotated=STUDIES, refused=(), read_by=None):
    def get_image_uri(image_id):
        if image_id in refused:
            raise HTTPException(422, "The slices of the series are unevenly spaced.")
        return f"/{image_id}.nii.gz"

    return SimpleNamespace(
        get_unlabeled_images=lambda: list(unannotated),
        refusal=lambda image_id: None,
        get_image_uri=get_image_uri,
        read_by=lambda: read_by or {},
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_study_is_left_to_offer(name, ask):
    assert ask(name, unannotated=[]) is None


@pytest.mark.parametrize("name", NAMES)
def test_unusable_study_is_skipped(name, ask_afresh):
    assert [ask_afresh(name, refused=["a", "b"]) for _ in range(10)] == ["c"] * 10
    assert ask_afresh(name, refused=STUDIES) is None


def test_first_is_first_by_name(ask):
    assert ask("first") == "a"


def test_random_offers_every_study(ask_afresh):
    assert {ask_afresh("random") for _ in range(200)} == set(STUDIES)


@pytest.mark.parametrize("name", NAMES)
def test_study_on_lease_is_not_offered(name, ask_afresh):
    recently = {"a": time.time(), "b": time.time() - LEASE_S + 60}

    assert {ask_afresh(name, leased=recently) for _ in range(50)} == {"c"}


@pytest.mark.parametrize("name", NAMES)
def test_leases_of_deleted_studies_are_ignored(name, ask):
    assert ask(name, unannotated=["a"], leased={"gone": time.time()}) == "a"


@pytest.mark.parametrize("name", NAMES)
def test_study_is_offered_again_after_its_lease(name, ask):
    seconds_ago = {"a": LEASE_S + 1, "b": LEASE_S - 60, "c": 1}
    leased = {image_id: time.time() - s for image_id, s in seconds_ago.items()}

    assert ask(name, leased=leased) == "a"


@pytest.mark.parametrize("name", NAMES)
def test_if_all_are_on_lease_the_oldest_lease_is_next(name, ask):
    ago = {i: time.time() - s for i, s in zip(STUDIES, (300, 600, 100), strict=True)}

    assert ask(name, leased=ago) == "a"


@pytest.mark.parametrize("names", [*([name] * 3 for name in NAMES), ["random", "first", "random"]])
def test_consecutive_requests_get_different_studies(names, ask):
    assert sorted(ask(name) for name in names) == ["a", "b", "c"]


@pytest.mark.parametrize("name", NAMES)
def test_parallel_requests_get_different_studies(name, file):
    known, studies = strategies(Leases(JsonFile(file))), [f"study {n}" for n in range(64)]
    start = threading.Barrier(16)

    def annotator(_):
        start.wait()
        return [known[name]({}, studies_with(studies))["id"] for _ in range(4)]

    with ThreadPoolExecutor(16) as annotators:
        offered = [study for studies in annotators.map(annotator, range(16)) for study in studies]

    assert sorted(offered) == sorted(studies)


@pytest.mark.parametrize("name", NAMES)
def test_study_with_a_reader_comes_first_for_others_only(name, file):
    known = strategies(Leases(JsonFile(file), people=2))
    studies = studies_with(read_by={"b": {"anna"}, "c": {"anna", "bert"}})

    def offered(who):
        found = known[name]({"client_id": who}, studies)
        return found and found["id"]

    assert [offered(who) for who in ("carl", "anna", "anna", "dora", "dora")] == ["b", "a", None, "a", None]


@pytest.mark.parametrize("name", ["epistemic", "", None, ["first"]])
def test_unknown_strategy_is_refused(name):
    with pytest.raises(HTTPException) as refused:
        require_strategy(name, {"random": 1, "first": 2})

    assert refused.value.status_code == 404
    assert refused.value.detail.endswith("this app has random, first.")
