"""Point lists of 3D Slicer: where their points, their image and their label come from."""

import json

import pytest

from lib.exchange.click_records import ImportRefusedError
from lib.exchange.slicer_markups import read_markups

LABELS = ("lesion", "cyst")


def point_list(**changes):
    points = [{"id": str(n), "label": f"lesion-{n}", "position": [n, -n, 0.5 * n]} for n in range(1, 7)]
    return {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points, **changes}


@pytest.fixture
def markups(tmp_path):
    def write(*lists, name="scan.01.mrk.json", **content):
        path = tmp_path / name
        path.write_text(json.dumps({"markups": list(lists), **content}))
        return path

    return write


@pytest.mark.parametrize("system", ["LPS", "RAS"])
def test_positions_system_and_image_are_read(markups, system):
    (record,) = read_markups(markups(point_list(coordinateSystem=system)), LABELS)

    assert (record.image, record.label, record.coordinates) == ("scan.01", "lesion", system.lower())
    assert record.points == tuple((float(n), float(-n), 0.5 * n) for n in range(1, 7))


def test_points_that_were_never_placed_are_left_out(markups):
    content = point_list()
    content["controlPoints"][2]["positionStatus"] = "defined"
    content["controlPoints"] += [{"label": "lesion-7", "position": [0, 0, 0], "positionStatus": "undefined"}]
    content["controlPoints"] += [{"label": "lesion-8", "position": None, "positionStatus": "preview"}]

    (record,) = read_markups(markups(content), LABELS)

    assert len(record.points) == 6


@pytest.mark.parametrize(
    ("name", "changes", "options", "image", "label"),
    [
        ("scan.mrk.json", {}, {}, "scan", "lesion"),
        ("scan.mrk.json", {"name": "cyst"}, {}, "scan", "cyst"),
        ("scan.cyst.mrk.json", {"name": "F"}, {}, "scan", "cyst"),
        ("scan.cyst.mrk.json", {}, {"label": "lesion"}, "scan", "lesion"),
        ("F.mrk.json", {}, {"image": "scan.02"}, "scan.02", "lesion"),
        ("scan.liver.mrk.json", {}, {}, "scan.liver", "lesion"),
    ],
)
def test_image_and_label(markups, name, changes, options, image, label):
    (record,) = read_markups(markups(point_list(**changes), name=name), LABELS, **options)

    assert (record.image, record.label) == (image, label)


def test_every_list_of_a_file_is_a_record(markups):
    records = read_markups(markups(point_list(name="lesion"), point_list(name="cyst")), LABELS)

    assert [record.label for record in records] == ["lesion", "cyst"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"type": "ROI"}, "the markup is a 'ROI'; expected a point list"),
        ({"coordinateSystem": "IJK"}, "the coordinate system is 'IJK'; expected LPS or RAS"),
        ({"coordinateSystem": None}, "the coordinate system is None; expected LPS or RAS"),
        ({"coordinateUnits": "um"}, "the units are 'um'; expected mm"),
        ({"controlPoints": None}, "the point list has no points"),
        (
            {"controlPoints": [{"label": "F-1", "position": [1, 2]}]},
            "the point 'F-1' is at [1, 2]; expected three numbers",
        ),
        ({"controlPoints": [{"label": "F-1", "position": [1, 2, "c"]}]}, "at [1, 2, 'c']; expected three numbers"),
        ({"controlPoints": [{"label": "left", "position": [1, 2, 3]}]}, "give it with --label"),
        (
            {"controlPoints": [{"label": f"{name}-1", "position": [1, 2, 3]} for name in ("lesion", "cyst")]},
            "give it with --label",
        ),
    ],
)
def test_refusals_name_the_file(markups, changes, sentence):
    with pytest.raises(ImportRefusedError) as error:
        read_markups(markups(point_list(**changes)), LABELS)

    assert str(error.value).startswith("scan.01.mrk.json: ")
    assert sentence in str(error.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"markups": []}', b'{"markups": [7]}', b"\xff\xfe"])
def test_file_that_holds_no_markups_is_refused(tmp_path, content):
    path = tmp_path / "scan.mrk.json"
    path.write_bytes(content)

    with pytest.raises(ImportRefusedError, match="^scan.mrk.json: (cannot be read as JSON|holds no markups)"):
        read_markups(path, LABELS)
