"""How far a network agrees with annotators, on scans where the right answer is known."""

import numpy as np
import pytest

from lib.trainers.validation import agreement
from tests.trainers.phantoms import CENTRES, ball, model, scan

LEFT, RIGHT, BOTH, NOWHERE = (0, 20), (20, 40), (0, 40), (0, 0)


@pytest.mark.parametrize("mask", [False, True])
def test_network_that_finds_what_was_clicked_or_drawn_agrees(tmp_path, mask):
    scans = [scan(tmp_path, "one", clicked=("lesion", "cyst"), mask=mask)]

    assert agreement(model(LEFT, RIGHT, labels=("lesion", "cyst")), scans) > 0.95


def test_network_that_finds_nothing_does_not(tmp_path):
    assert agreement(model(NOWHERE), [scan(tmp_path, "one")]) == 0


def test_what_it_finds_besides_counts_against_it(tmp_path):
    """Two balls of one size where one was clicked: Dice 2 / 3."""
    assert agreement(model(BOTH), [scan(tmp_path, "one")]) == pytest.approx(2 / 3, abs=0.02)


def test_label_that_was_not_clicked_is_unknown(tmp_path):
    blind_for_cysts = model(LEFT, NOWHERE, labels=("lesion", "cyst"))

    assert agreement(blind_for_cysts, [scan(tmp_path, "one", clicked=("lesion",))]) > 0.95
    assert agreement(blind_for_cysts, [scan(tmp_path, "two", clicked=("lesion", "cyst"))]) == pytest.approx(
        0.5, abs=0.03
    )


def test_every_scan_counts_the_same(tmp_path):
    found, missed = scan(tmp_path, "bright"), scan(tmp_path, "empty", level=0.0)

    both = agreement(model(LEFT), [found, missed])

    assert both == pytest.approx(np.mean([agreement(model(LEFT), [one]) for one in (found, missed)]))


def test_scan_that_cannot_be_read_is_named_and_left_out(tmp_path, caplog):
    good, broken = scan(tmp_path, "good"), scan(tmp_path, "broken")
    broken.image_path.write_bytes(b"half a vol")

    assert agreement(model(LEFT), [good, broken]) == agreement(model(LEFT), [good])
    assert "broken" in caplog.text
    assert agreement(model(LEFT), [broken]) is None


def test_the_phantom_is_what_it_says():
    assert ball(CENTRES["lesion"]).sum() == ball(CENTRES["cyst"]).sum()
