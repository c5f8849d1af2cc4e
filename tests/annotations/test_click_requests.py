import time

import numpy as np
import pytest

from lib.annotations.click_requests import MAX_CLICKS, ClickRequestError, parse_click_request
from lib.geometry.image_geometry import ImageGeometry

# Axes permuted, flipped, turned and anisotropic, so that no mistake in coordinates can hide.
AFFINE = np.array([[0, -0.5, 0.3, 40], [0.6, 0, 0, -20], [0, 0.1, 6.5, 7], [0, 0, 0, 1.0]])
GEOMETRY = ImageGeometry((40, 50, 12), AFFINE)
CLICKS = [[10, 20, 5], [30, 21, 5], [20, 11, 5], [20, 31, 5], [20, 20, 2], [20, 20, 9]]
LABELS = ("lesion", "cyst")


def answers(**request):
    return parse_click_request(request, LABELS, GEOMETRY)


def parse(**request):
    return answers(**request).structures


def test_form_with_a_key_a_label():
    (points,) = parse(lesion=CLICKS, cyst=[], background=[[1, 1, 1]], result_extension=".nrrd", roi_size=[96, 96, 32])

    assert points.label == "lesion"
    assert points.foreground_voxel.tolist() == CLICKS
    assert points.background_voxel.tolist() == [[1, 1, 1]]


def test_foreground_needs_no_label_where_there_is_only_one():
    (points,) = parse_click_request({"foreground": CLICKS}, ("lesion",), GEOMETRY).structures

    assert points.label == "lesion"


SHIFTED = [[i, j + 1, k] for i, j, k in CLICKS]
BESIDE = [[1, 1, 1], [35, 40, 10]]


@pytest.mark.parametrize(
    ("request_params", "about"),
    [
        ({"lesion": CLICKS}, ["lesion"]),
        ({"foreground": CLICKS, "label": "cyst"}, ["cyst"]),
        ({"lesion": CLICKS, "cyst": SHIFTED}, ["lesion", "cyst"]),
        ({"lesion": CLICKS, "foreground": SHIFTED, "label": "cyst"}, ["lesion", "cyst"]),
        ({"lesion": CLICKS, "cyst": []}, ["lesion"]),
        ({"lesion": CLICKS, "absent": ["cyst"]}, ["lesion"]),
    ],
)
def test_background_clicks_are_about_each_label_that_is_clicked_in_the_same_request(request_params, about):
    structures = parse(**request_params, background=BESIDE)

    assert {points.label: points.background_voxel.tolist() for points in structures} == dict.fromkeys(about, BESIDE)


@pytest.mark.parametrize(
    ("request_params", "clicked", "absent"),
    [
        ({"absent": ["cyst"]}, [], ("cyst",)),
        ({"absent": ["cyst", "lesion"]}, [], ("lesion", "cyst")),
        ({"absent": ["cyst", "cyst"]}, [], ("cyst",)),
        ({"absent": ["cyst"], "lesion": [], "cyst": [], "background": []}, [], ("cyst",)),
        ({"absent": ["cyst"], "lesion": CLICKS}, ["lesion"], ("cyst",)),
        ({"absent": ["lesion"], "foreground": CLICKS, "label": "cyst"}, ["cyst"], ("lesion",)),
        ({"absent": [], "lesion": CLICKS}, ["lesion"], ()),
        ({"cyst": CLICKS, "lesion": CLICKS}, ["lesion", "cyst"], ()),
        ({"absent": None, "lesion": CLICKS}, ["lesion"], ()),
        ({"lesion": CLICKS}, ["lesion"], ()),
    ],
)
def test_labels_that_are_not_in_the_image_are_named_beside_clicks_or_without(request_params, clicked, absent):
    said = answers(**request_params)

    assert [points.label for points in said.structures] == clicked
    assert said.absent == absent


@pytest.mark.parametrize("system", ["lps", "ras"])
def test_millimetres_reach_the_voxel_that_lies_there(system):
    ras_mm = np.array(CLICKS) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    clicks_mm = ras_mm * ([-1, -1, 1] if system == "lps" else [1, 1, 1])

    (points,) = parse(lesion=clicks_mm.tolist(), coordinates=system)

    assert points.foreground_voxel.tolist() == CLICKS


@pytest.mark.parametrize(
    ("request_params", "sentence"),
    [
        ({}, "no clicks for any label"),
        ({"lesion": CLICKS[:5]}, "'lesion': 5 clicks; expected at least six"),
        ({"lesion": CLICKS, "cyst": CLICKS[:2]}, "'cyst': 2 clicks"),
        ({"lesion": [[*c[:2], 5] for c in CLICKS]}, "'lesion': all clicks have the same k index"),
        ({"lesion": [*CLICKS, [40, 0, 0]]}, r"the click \[40, 0, 0\] is outside the image"),
        ({"lesion": [*CLICKS, [-1, 0, 0]]}, "outside the image"),
        ({"lesion": CLICKS, "background": [[0, 0, 12]]}, "'background': the click"),
        ({"lesion": [*CLICKS, ["a", 1, 2]]}, "not three finite numbers"),
        ({"lesion": [*CLICKS, [float("nan"), 1, 2]]}, "not three finite numbers"),
        ({"lesion": [*CLICKS, [float("inf"), 1, 2]]}, "not three finite numbers"),
        ({"lesion": [*CLICKS, [True, 1, 2]]}, "not three finite numbers"),
        ({"lesion": [*CLICKS, [1, 2]]}, "not three finite numbers"),
        ({"lesion": "here"}, "not a list of clicks"),
        ({"lesion": {"a": 1}}, "not a list of clicks"),
        ({"tumour": CLICKS}, "Label 'tumour' does not exist in this app; its labels are 'lesion', 'cyst'"),
        ({"foreground": CLICKS}, "expected 'label' to be one of"),
        ({"foreground": CLICKS, "label": "tumour"}, "for label 'tumour'"),
        ({"lesion": CLICKS, "coordinates": "mni"}, "Coordinates are 'mni'"),
        ({"lesion": CLICKS, "coordinates": ["voxel"]}, "Coordinates are"),
        ({"lesion": CLICKS, "background": [CLICKS[0]]}, "clicked as foreground and as background"),
        ({"lesion": CLICKS, "absent": ["lesion"]}, "'lesion' is clicked and under 'absent'; leave out one of the two"),
        ({"foreground": CLICKS, "label": "cyst", "absent": ["cyst"]}, "'cyst' is clicked and under 'absent'"),
        ({"lesion": CLICKS[:1], "absent": ["lesion"]}, "'lesion' is clicked and under 'absent'"),
        ({"absent": ["tumour"]}, "Label 'tumour' does not exist in this app; its labels are 'lesion', 'cyst'"),
        ({"lesion": CLICKS, "absent": ["absent"]}, "Label 'absent' does not exist in this app"),
        ({"absent": [CLICKS[0]]}, r"Label \[10, 20, 5\] does not exist in this app"),
        ({"absent": [None]}, "Label None does not exist in this app"),
        ({"absent": "cyst"}, "The value of 'absent' is 'cyst'; expected a list of labels"),
        ({"absent": True}, "The value of 'absent' is True"),
        ({"absent": {"cyst": True}}, "The value of 'absent' is {'cyst': True}"),
        ({"absent": [], "lesion": []}, "no clicks for any label"),
        ({"absent": ["cyst"], "background": [[1, 1, 1]]}, "no clicks for any label that they could be about"),
    ],
)
def test_refusals_name_what_is_wrong(request_params, sentence):
    with pytest.raises(ClickRequestError, match=sentence):
        parse(**request_params)


def many(count):
    """Clicks that are all in the image."""
    return (CLICKS * (1 + count // len(CLICKS)))[:count]


@pytest.mark.parametrize(
    "request_params",
    [
        {"lesion": many(MAX_CLICKS)},
        {"lesion": many(MAX_CLICKS - 10), "background": [[1, 1, 1]] * 10},
        {"lesion": many(MAX_CLICKS // 2), "cyst": many(MAX_CLICKS // 2)},
    ],
)
def test_as_many_clicks_as_a_request_may_have(request_params):
    assert parse(**request_params)


@pytest.mark.parametrize(
    "request_params",
    [
        {"lesion": many(MAX_CLICKS + 1)},
        {"lesion": many(MAX_CLICKS - 10), "background": [[1, 1, 1]] * 11},
        {"lesion": many(MAX_CLICKS), "cyst": many(6)},
        {"foreground": many(MAX_CLICKS + 1), "label": "lesion"},
        {"lesion": many(100_000), "background": many(100_000)},
    ],
)
def test_more_clicks_are_refused_at_once(request_params):
    begin = time.perf_counter()
    with pytest.raises(ClickRequestError, match=r"The request has \d+ clicks; expected at most 1000\."):
        parse(**request_params)

    assert time.perf_counter() - begin < 1


def test_check_of_as_many_clicks_as_there_may_be_takes_no_time():
    rng = np.random.default_rng(0)
    foreground = rng.integers(0, [20, 50, 12], (MAX_CLICKS // 2, 3)).tolist()
    background = rng.integers([20, 0, 0], [40, 50, 12], (MAX_CLICKS // 2, 3)).tolist()
    begin = time.perf_counter()

    assert parse(lesion=foreground, background=background)
    assert time.perf_counter() - begin < 0.5


@pytest.mark.parametrize(
    "value",
    [
        {"lesion": CLICKS, "coordinates": "x" * 10_000},
        {"lesion": "x" * 10_000},
        {"absent": ["x" * 10_000]},
        {"absent": "x" * 10_000},
    ],
)
def test_refusals_are_short_whatever_was_sent(value):
    with pytest.raises(ClickRequestError) as refused:
        parse(**value)

    assert len(str(refused.value)) < 300
