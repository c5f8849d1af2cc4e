"""Names that become file names: plain, visible, and short enough for a file system."""

import pytest

from lib.annotations.names import MAX_ID_BYTES, check_image_id, check_label


@pytest.mark.parametrize(
    "image_id",
    ["scan.01", "1.2.840.113619", "Müller 1", "腫瘍", "[MR] 2024", "a-b_c", "case+1", "it's", "x" * MAX_ID_BYTES],
)
def test_plain_names_of_images(image_id):
    check_image_id(image_id)


@pytest.mark.parametrize(
    "image_id",
    ["", ".", "..", ".hidden", "._scan", "a/b", "../a", "/etc/passwd", "a/", "a\\b", "a\0b", "a\nb", "a\tb", "a\x7f"],
)
def test_names_with_folders_or_invisible_characters_are_refused(image_id):
    with pytest.raises(ValueError, match="The image id is .*; expected a name without any folder"):
        check_image_id(image_id)


LONG = ["x" * (MAX_ID_BYTES + 1), "ü" * (MAX_ID_BYTES // 2 + 1), "腫" * 61]


@pytest.mark.parametrize(
    ("image_id", "sentence"),
    [
        *((name, "expected a name in UTF-8") for name in ("\ud800", "M\udcfcller")),
        *((name, f"has {len(name.encode())} bytes; expected at most {MAX_ID_BYTES}") for name in LONG),
    ],
)
def test_names_that_utf_8_cannot_hold_or_that_are_too_long_are_refused(image_id, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_image_id(image_id)


@pytest.mark.parametrize("image_id", ["x" * MAX_ID_BYTES, "ü" * (MAX_ID_BYTES // 2)])
def test_longest_name_leaves_room_for_label_and_extension(tmp_path, image_id):
    path = tmp_path / f"{image_id}.{'l' * 64}.json"

    path.write_text("{}")

    assert path.exists()


@pytest.mark.parametrize("label", ["lesion", "left kidney", "cyst_2", "T2-bright", "läsion", "腫瘍", "7", "l" * 64])
def test_names_of_labels(label):
    check_label(label)


@pytest.mark.parametrize("label", ["", " lesion", "_x", "-x", "a.b", "a/b", "..", "a\0", "a,b", "l" * 65, "lesion:1"])
def test_other_names_of_labels_are_refused(label):
    with pytest.raises(ValueError, match="The label is .*; expected letters, digits"):
        check_label(label)
