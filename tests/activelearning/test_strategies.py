"""Which study is offered next: one that nobody has annotated and that can be opened."""

import time
from types import SimpleNamespace

import pytest
from fastapi import HTTPException

from lib.activelearning.strategies import strategies

STUDIES = ["c", "a", "b"]


def datastore(unannotated=STUDIES, refused=(), offered=None):
    def get_image_uri(image_id):
        if image_id in refused:
            raise HTTPException(422, "The slices of the series are unevenly spaced.")
        return f"/{image_id}.nii.gz"

    return SimpleNamespace(
        get_unlabeled_images=lambda: list(unannotated),
        get_image_uri=get_image_uri,
        get_image_info=lambda image_id: {"strategy": (offered or {}).get(image_id, {})},
    )


def offer(name, **studies):
    return strategies()[name]({"strategy": name}, datastore(**studies))


@pytest.mark.parametrize("name", ["random", "first"])
def test_no_study_is_left_to_offer(name):
    assert offer(name, unannotated=[]) is None


@pytest.mark.parametrize("name", ["random", "first"])
def test_study_that_is_refused_is_passed_over(name):
    assert [offer(name, refused=["a", "b"])["id"] for _ in range(10)] == ["c"] * 10
    assert offer(name, refused=STUDIES) is None


def test_first_is_first_by_name():
    assert offer("first") == {"id": "a"}


def test_random_offers_every_study():
    assert {offer("random")["id"] for _ in range(200)} == set(STUDIES)


def test_random_seldom_offers_again_what_was_just_offered():
    now = {"a": {"random": {"ts": time.time()}}, "b": {"first": {"ts": time.time()}}}

    drawn = [offer("random", offered=now)["id"] for _ in range(200)]

    assert drawn.count("a") < 5
    assert drawn.count("b") > 50
