"""Clicks in CSV: what is read, and which line is wrong."""

import pytest

from lib.exchange.click_records import ImportRefusedError
from lib.exchange.point_table import read_point_table

HEADER = "image,label,x,y,z,coordinates\n"
SIX = "".join(f"scan,lesion,{n},{n + 1},{n + 2},voxel\n" for n in range(6))


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "points.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def refusal(path):
    with pytest.raises(ImportRefusedError) as error:
        read_point_table(path)
    return error.value.sentences


def test_points_of_a_structure_are_one_record(table):
    (record,) = read_point_table(table(HEADER + SIX))

    assert (record.image, record.label, record.coordinates) == ("scan", "lesion", "voxel")
    assert record.points == tuple((float(n), n + 1.0, n + 2.0) for n in range(6))
    assert record.source == "points.csv, lines 2 to 7"


def test_structures_and_images_may_be_mixed_and_background_is_of_every_structure_of_its_image(table):
    rows = "a,lesion,1,1,1,\nb,lesion,2,2,2,\na,cyst,3,3,3,\na,lesion,4,4,4,\na,background,9,9,9,\n"

    records = {(r.image, r.label): (r.points, r.background) for r in read_point_table(table(HEADER + rows))}

    assert records == {
        ("a", "lesion"): (((1, 1, 1), (4, 4, 4)), ((9, 9, 9),)),
        ("b", "lesion"): (((2, 2, 2),), ()),
        ("a", "cyst"): (((3, 3, 3),), ((9, 9, 9),)),
    }


def test_columns_come_in_any_order_and_coordinates_default_to_voxel(table):
    (record,) = read_point_table(table("z, x, label, y, image\n3, 1, left kidney, 2, scan.01\n"))

    assert (record.image, record.label, record.points, record.coordinates) == (
        "scan.01",
        "left kidney",
        ((1, 2, 3),),
        "voxel",
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_files_of_spreadsheets_are_read(table, encoding, line_end):
    text = 'image,label,x,y,z\n"Müller, 1",lesion,1.5,-2,3e1\n'.replace("\n", line_end)

    (record,) = read_point_table(table(text, encoding))

    assert (record.image, record.points) == ("Müller, 1", ((1.5, -2.0, 30.0),))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image,label,x,y\n", "points.csv, line 1: the header has no column 'z'; expected image,label,x,y,z"),
        ("image,label,x,y,z,w\n", "points.csv, line 1: the header has a column 'w'"),
        ("", "points.csv, line 1: the header has no column 'image'"),
        (HEADER, "points.csv: holds no points"),
        (HEADER + SIX + "scan,lesion,1,two,3,voxel\n", "points.csv, line 8: y is 'two'; expected a number"),
        (HEADER + "scan,lesion,1,,3,voxel\n", "points.csv, line 2: y is ''; expected a number"),
        (HEADER + "scan,lesion,1,2\n", "points.csv, line 2: the row has another number of cells than the header"),
        (HEADER + "scan,lesion,1,2,3,lps,7\n", "points.csv, line 2: the row has another number of cells"),
        (HEADER + ",lesion,1,2,3,lps\n", "points.csv, line 2: the image is missing"),
        (HEADER + "scan,,1,2,3,lps\n", "points.csv, line 2: the label is missing"),
        (HEADER + "scan,lesion,1,2,3,mm\n", "points.csv, line 2: the coordinates are 'mm'; expected voxel, lps, ras"),
        (
            HEADER + SIX + "scan,lesion,1,2,3,lps\n",
            "points.csv, line 8: the coordinates are 'lps', and in line 2 'voxel'",
        ),
        (HEADER + SIX + "scan,background,1,2,3,lps\n", "line 8: the coordinates are 'lps', and in line 2 'voxel'"),
        (HEADER + "scan,background,1,2,3,lps\n", "line 2: image 'scan' has background points only"),
    ],
)
def test_refusals_name_the_line(table, text, sentence):
    (told,) = refusal(table(text))

    assert sentence in told


def test_every_wrong_line_is_named(table):
    sentences = refusal(table(HEADER + "scan,lesion,a,2,3,\nscan,lesion,1,2,3,\nscan,lesion,1,2,c,\n"))

    assert [sentence.split(":")[0] for sentence in sentences] == ["points.csv, line 2", "points.csv, line 4"]


@pytest.mark.parametrize("content", [b"\x1f\x8b\xff\x00", None], ids=["no text", "no file"])
def test_file_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "points.csv"
    if content is not None:
        path.write_bytes(content)

    assert "points.csv: cannot be read as CSV" in refusal(path)[0]
