"""Which study is offered next: one that nobody has annotated or works on, and that can be opened."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from fastapi import HTTPException

from lib.activelearning.handouts import LEASE_S, Handouts
from lib.activelearning.strategies import require_strategy, strategies

STUDIES = ["c", "a", "b"]
NAMES = ["random", "first"]


def studies_with(unannotated=STUDIES, refused=(), offered=None):
    def get_image_uri(image_id):
        if image_id in refused:
            raise HTTPException(422, "The slices of the series are unevenly spaced.")
        return f"/{image_id}.nii.gz"

    return SimpleNamespace(
        get_unlabeled_images=lambda: list(unannotated),
        refusal=lambda image_id: None,
        get_image_uri=get_image_uri,
        offers=lambda: offered or {},
    )


def offer(name, **studies):
    """An offer of a server that has just started."""
    found = strategies()[name]({"strategy": name}, studies_with(**studies))
    return found and found["id"]


@pytest.mark.parametrize("name", NAMES)
def test_no_study_is_left_to_offer(name):
    assert offer(name, unannotated=[]) is None


@pytest.mark.parametrize("name", NAMES)
def test_study_that_is_refused_is_passed_over(name):
    assert [offer(name, refused=["a", "b"]) for _ in range(10)] == ["c"] * 10
    assert offer(name, refused=STUDIES) is None


def test_first_is_first_by_name():
    assert offer("first") == "a"


def test_random_offers_every_study():
    assert {offer("random") for _ in range(200)} == set(STUDIES)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_offered_a_short_while_ago_is_not_offered_again(name):
    """As the studies have noted it, whichever strategy chose it; a restart does not forget that."""
    recently = {"a": time.time(), "b": time.time() - LEASE_S + 60}

    assert {offer(name, offered=recently) for _ in range(50)} == {"c"}


@pytest.mark.parametrize("name", NAMES)
def test_offers_of_studies_that_are_gone_do_not_matter(name):
    assert offer(name, unannotated=["a"], offered={"gone": time.time()}) == "a"


@pytest.mark.parametrize("name", NAMES)
def test_study_is_offered_again_when_its_time_is_over(name):
    seconds_ago = {"a": LEASE_S + 1, "b": LEASE_S - 60, "c": 1}
    offered = {image_id: time.time() - s for image_id, s in seconds_ago.items()}

    assert offer(name, offered=offered) == "a"


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_else_is_left_the_one_offered_longest_ago_is_next(name):
    ago = {i: time.time() - s for i, s in zip(STUDIES, (300, 600, 100), strict=True)}

    assert offer(name, offered=ago) == "a"


@pytest.mark.parametrize("names", [*([name] * 3 for name in NAMES), ["random", "first", "random"]])
def test_annotators_who_ask_one_after_another_get_different_studies(names):
    """Before the studies have noted anything."""
    known = strategies()

    assert sorted(known[name]({"strategy": name}, studies_with())["id"] for name in names) == ["a", "b", "c"]


@pytest.mark.parametrize("name", NAMES)
def test_annotators_who_ask_at_once_get_different_studies(name):
    known, studies = strategies(), [f"study {n}" for n in range(64)]
    start = threading.Barrier(16)

    def annotator(_):
        start.wait()
        return [known[name]({}, studies_with(studies))["id"] for _ in range(4)]

    with ThreadPoolExecutor(16) as annotators:
        offered = [study for studies in annotators.map(annotator, range(16)) for study in studies]

    assert sorted(offered) == sorted(studies)


def test_lease_ends():
    clock = SimpleNamespace(now=1e9)
    handouts = Handouts(lease_s=60, now=lambda: clock.now)

    def take(after_s):
        clock.now += after_s
        return handouts.take(["a", "b"], {}, lambda ids, ages: sorted(ids))

    assert [take(0), take(30)] == ["a", "b"]
    assert take(31) == "a"
    assert [take(1), take(0.1), take(0.1)] == ["b", "a", "b"]


def test_clock_that_was_set_back_lends_nothing_for_ever():
    clock = SimpleNamespace(now=1e9)
    handouts = Handouts(lease_s=60, now=lambda: clock.now)
    orders = []

    def take():
        return handouts.take(["a"], {"a": 1e9}, lambda ids, ages: orders.append(ids) or ids)

    take()
    clock.now -= 3600
    assert take() == "a"
    assert orders == [["a"]]


@pytest.mark.parametrize("name", ["epistemic", "", None, ["first"]])
def test_unknown_strategy_is_refused_with_a_sentence(name):
    with pytest.raises(HTTPException) as refused:
        require_strategy(name, {"random": 1, "first": 2})

    assert refused.value.status_code == 404
    assert refused.value.detail.endswith("this app has random, first.")
