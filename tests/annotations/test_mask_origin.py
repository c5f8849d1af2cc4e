"""How a label of a final mask came about, as its record says."""

import numpy as np
import pytest

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.mask_file import MaskRecord
from lib.annotations.mask_origin import MaskOrigin, acceptances, origins

CLICKS = np.array([[1, 4, 4], [8, 4, 4], [4, 1, 4], [4, 7, 4], [4, 4, 1], [4, 4, 6]])
INSIDE = np.array([[4, 4, 4]])


@pytest.mark.parametrize(
    ("foreground", "background", "origin"),
    [
        (CLICKS, None, "accepted"),
        (np.concatenate([CLICKS, INSIDE]), None, "corrected"),
        (CLICKS, INSIDE, "corrected"),
    ],
)
def test_mask_of_more_than_six_clicks_was_corrected(foreground, background, origin):
    assert MaskOrigin.of_clicks(ExtremePoints.from_clicks("tumour", foreground, background)) == origin


def test_each_label_has_an_origin_of_its_own():
    info = {"accepted": {"tumour": {"origin": "accepted"}, "cyst": {"origin": "corrected"}, "gone": {}}}
    record = MaskRecord({"tumour": 1, "cyst": 2, "vessel": 3}, info=info)

    assert origins(record) == {"tumour": "accepted", "cyst": "corrected", "vessel": "drawn"}
    assert set(acceptances(record)) == {"tumour", "cyst"}


@pytest.mark.parametrize(
    "info",
    [
        None,
        {},
        {"accepted": None},
        {"accepted": ["tumour"]},
        {"accepted": {"tumour": "accepted"}},
        {"accepted": {"tumour": {}}},
        {"accepted": {"tumour": {"origin": "guessed"}}},
        {"accepted": {"tumour": {"origin": []}}},
    ],
)
def test_mask_of_which_nothing_is_recorded_counts_as_drawn(info):
    assert origins(MaskRecord({"tumour": 1}, info=info)) == {"tumour": MaskOrigin.DRAWN}
