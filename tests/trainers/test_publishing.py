"""A network replaces the published one only where it is not worse on the scans that it was not trained on."""

import pytest

from lib.trainers.publishing import judge
from tests.trainers.phantoms import model, scan

GOOD, WRONG_PLACE, TOO_MUCH = model((0, 20)), model((20, 40)), model((0, 40))


@pytest.fixture
def scans(tmp_path):
    return [scan(tmp_path, name) for name in ("one", "two")]


def test_first_network_is_published_whatever_its_score(scans):
    verdict = judge(WRONG_PLACE, None, scans[:1], scans[1:], tolerance=0.01)

    assert verdict.publish
    assert verdict.reason.endswith("held-out scan is 0.00; there was no model before it.")


@pytest.mark.parametrize(
    ("candidate", "published", "publish"),
    [(GOOD, TOO_MUCH, True), (GOOD, GOOD, True), (TOO_MUCH, GOOD, False), (WRONG_PLACE, GOOD, False)],
)
def test_worse_network_is_not_published(scans, candidate, published, publish):
    verdict = judge(candidate, published, scans[:1], scans[1:], tolerance=0.01)

    assert verdict.publish is publish
    assert verdict.judged_on == (1, "held-out")


def test_a_little_worse_is_within_the_tolerance(scans):
    assert judge(TOO_MUCH, GOOD, scans, [], tolerance=0.4).publish


def test_without_held_out_scans_those_that_were_trained_on_show_a_collapse(scans):
    verdict = judge(WRONG_PLACE, GOOD, [], scans, tolerance=0.01)

    assert not verdict.publish
    assert verdict.judged_on == (2, "training")
    assert "of 2 training scans is 0.00, which is less than the published model's" in verdict.reason


def test_nothing_to_judge_on_publishes(scans):
    for one in scans:
        one.image_path.unlink()

    verdict = judge(GOOD, GOOD, scans, [], tolerance=0.01)

    assert verdict.publish
    assert verdict.reason == "There was no scan to judge it on."
