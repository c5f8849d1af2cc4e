"""labels.json beside masks."""

import pytest

from lib.exchange.label_indices import label_indices_of, read_label_indices, write_label_indices


def test_what_was_written_is_read_and_goes_before_the_order_of_the_labels(tmp_path):
    write_label_indices(tmp_path / "labels.json", {"Ödem": 1, "lesion": 2})

    assert read_label_indices(tmp_path / "labels.json") == {"Ödem": 1, "lesion": 2}
    assert label_indices_of(tmp_path, ("lesion", "Ödem")) == {"Ödem": 1, "lesion": 2}


def test_folder_without_the_file_has_the_labels_in_order(tmp_path):
    assert label_indices_of(tmp_path, ("lesion", "cyst")) == {"lesion": 1, "cyst": 2}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"a": 0}', '{"a": "1"}', '{"a": true}', '{"a": 1.5}'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(content)

    with pytest.raises(ValueError, match="cannot be read as JSON|does not give the index of each label"):
        read_label_indices(path)
