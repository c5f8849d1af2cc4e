"""Assignment of scans to training or held out, and the file of the record."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.training.record import TrainingRecord, TrainingRun

RUN = TrainingRun("2026-01-01T10:00:00+00:00", "2026-01-01T10:02:00+00:00", 1, 240, 8, (2, "held-out"), 0.8, None, 0.5)
IDS = [f"study {n}" for n in range(60)]


@given(st.lists(st.integers(1, 8), min_size=1, max_size=8), st.floats(0, 0.9))
def test_no_scan_that_was_trained_on_is_held_out_later(growth, share):
    record, known = TrainingRecord(), 0
    for more in growth:
        before, known = record, min(known + more, len(IDS))
        record = record.with_scans(IDS[:known], share)

        assert not set(record.held_out) & set(before.trained_on)
        assert set(before.held_out) <= set(record.held_out)
        assert set(record.held_out) | set(record.trained_on) == set(IDS[:known])
        assert not set(record.held_out) & set(record.trained_on)


@given(st.lists(st.sets(st.sampled_from(IDS), min_size=1), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_some_scans_are_always_trained_on(days, share):
    record = TrainingRecord()
    for scans in days:
        before, record = record, record.with_scans(scans, share)

        assert set(record.held_out) < scans
        assert not set(record.held_out) & set(record.trained_on)
        assert not set(record.held_out) & set(before.trained_on)
        assert scans <= set(record.held_out) | set(record.trained_on)
        assert len(record.held_out) <= share * len(scans)


@pytest.mark.parametrize(("scans", "held_out"), [(1, 0), (4, 0), (5, 1), (9, 1), (10, 2), (50, 10)])
def test_share_of_scans_is_held_out(scans, held_out):
    assert len(TrainingRecord().with_scans(IDS[:scans], 0.2).held_out) == held_out


def test_new_scans_are_held_out_until_the_share_is_reached():
    record = TrainingRecord().with_scans(IDS[:4], 0.2).with_scans(IDS[:5], 0.2)

    assert record.held_out == (IDS[4],)


def test_choice_does_not_depend_on_the_order_of_the_scans():
    assert TrainingRecord().with_scans(IDS, 0.2) == TrainingRecord().with_scans(IDS[::-1], 0.2)


def test_share_of_0_trains_on_all():
    record = TrainingRecord().with_scans(IDS[:10], 0.2).with_scans(IDS[:10], 0)

    assert record.held_out == ()
    assert set(record.trained_on) == set(IDS[:10])


def test_deleted_scan_is_not_held_out():
    record = TrainingRecord().with_scans(IDS[:10], 0.2)
    gone = record.held_out[0]

    assert gone not in record.with_scans(set(IDS[:10]) - {gone}, 0.2).held_out


def test_restored_scan_that_was_trained_on_is_trained_on_again():
    record = TrainingRecord().with_scans(IDS[:4], 0.2).with_scans(IDS[4:14], 0.2).with_scans(IDS[:14], 0.5)

    assert set(IDS[:4]) <= set(record.trained_on)


def test_held_out_scans_are_trained_on_if_all_others_were_deleted():
    record = TrainingRecord().with_scans(IDS, 0.2)
    left = record.held_out

    record = record.with_scans(left, 0.2)

    assert len(record.held_out) == int(0.2 * len(left))
    assert set(left) - set(record.held_out) <= set(record.trained_on)


def test_record_is_the_same_after_a_round_trip(tmp_path):
    record = TrainingRecord().with_scans(IDS[:10], 0.2).begin().begin().with_run(RUN)
    record.save(tmp_path / "record.json")

    assert TrainingRecord.load(tmp_path / "record.json") == record
    assert record.begun == 2


def test_record_without_the_number_of_begun_trainings_counts_finished_ones(tmp_path):
    TrainingRecord(runs=(RUN, RUN)).save(tmp_path / "record.json")
    content = json.loads((tmp_path / "record.json").read_text())
    del content["begun"]
    (tmp_path / "record.json").write_text(json.dumps(content))

    assert TrainingRecord.load(tmp_path / "record.json").begun == 2


def test_record_is_empty_before_the_first_training(tmp_path):
    assert TrainingRecord.load(tmp_path / "record.json") == TrainingRecord()


@pytest.mark.parametrize("content", ["half a fi", "[]", '{"trained_on": [], "held_out": []}', '{"runs": [{"a": 1}]}'])
def test_unreadable_record_is_renamed_and_logged(tmp_path, caplog, content):
    path = tmp_path / "record.json"
    path.write_text(content)

    assert TrainingRecord.load(path) == TrainingRecord()
    assert (tmp_path / "record.corrupt").read_text() == content
    assert "record.json cannot be read" in caplog.text
