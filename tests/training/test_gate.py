"""A network is published only if it is not worse than the best kept version."""

from dataclasses import replace

import pytest
import torch

from lib.annotations.mask_origin import MaskOrigin
from lib.data.prepared_scans import PreparedScans
from lib.geometry.volume import VolumeError
from lib.inference.prediction import BrokenModelError
from lib.networks.checkpoint import TrainedModel, TrainingState
from lib.training import gate as gate_module
from lib.training.gate import COLLAPSED, MAX_SCANS, TOLERANCE, PublishGate
from tests.training import phantoms

CANDIDATE = "candidate"
UNREADABLE = VolumeError("The image cannot be read.")


class Project:
    """Versions, scans, and the score of each network on each scan."""

    def __init__(self, folder, scores):
        self.folder, self.scores, self.scored = folder, scores, []
        self.versions = phantoms.versions_in(folder, keep=9)
        self.scans = phantoms.scans(folder, 4)

    def publish(self, count, labels=("lesion",)):
        for _ in range(count):
            model = phantoms.untrained(labels=labels)
            self.versions.publish(model, TrainingState({}, 10), base=self.versions.published_number())

    def score(self, model, scan, *_):
        self.scored.append((model.version, scan.image_id))
        found = self.scores[model.version]
        found = found.get(scan.image_id, UNREADABLE) if isinstance(found, dict) else found
        if isinstance(found, Exception):
            raise found
        return found

    def gate(self, held_out=2, labels=("lesion",), margin=2, scans=None):
        scans = scans or self.scans
        prepared, device = PreparedScans(self.folder / "prepared"), torch.device("cpu")
        return PublishGate(scans[:held_out], scans[held_out:], labels, self.versions, prepared, margin, device)

    def judge(self, **kinds):
        gate = self.gate(**kinds)
        spec = phantoms.spec(labels=gate.labels)
        return gate.judge(TrainedModel(spec, spec.build(), CANDIDATE), gate.kept_scores())


@pytest.fixture
def project(tmp_path, monkeypatch):
    def make(*versions, candidate, labels=("lesion",)):
        project = Project(tmp_path, {CANDIDATE: candidate, **dict(enumerate(versions, start=1))})
        project.publish(len(versions), labels)
        monkeypatch.setattr(gate_module, "scan_score", project.score)
        return project

    return make


@pytest.mark.parametrize("score", [0.0, 0.9])
def test_first_network_is_published_with_any_score(project, score):
    verdict = project(candidate=score).judge()

    assert verdict.publish
    assert (verdict.score, verdict.published_score, verdict.best_version) == (score, None, None)
    assert verdict.reason == f"Its score on 2 held-out scans is {score:.2f}; there is no earlier model to compare with."


@pytest.mark.parametrize(
    ("candidate", "publish"),
    [(0.9, True), (0.8, True), (0.8 - 0.9 * TOLERANCE, True), (0.8 - 1.1 * TOLERANCE, False), (0.0, False)],
)
def test_network_is_published_if_it_is_not_worse_by_more_than_the_tolerance(project, candidate, publish):
    verdict = project(0.8, candidate=candidate).judge()

    assert verdict.publish is publish
    assert verdict.judged_on == (2, "held-out")
    assert (verdict.score, verdict.published_score) == (pytest.approx(candidate), pytest.approx(0.8))


@pytest.mark.parametrize(
    ("candidate", "held_out", "reason"),
    [
        (0.5, 2, "Its score on 2 held-out scans is 0.50, too far below the best kept version's, which is 0.80."),
        (0.794, 1, "Its score on 1 held-out scan is 0.79; the best kept version's is 0.80."),
        (0.6, 0, "Its score on 4 training scans is 0.60; the published model's is 0.80."),
        (0.3, 0, "Its score on 4 training scans is 0.30, too far below the published model's, which is 0.80."),
    ],
)
def test_reason(project, candidate, held_out, reason):
    assert project(0.8, candidate=candidate).judge(held_out=held_out).reason == reason


@pytest.mark.parametrize("order", [(0.8, 0.6, 0.7), (0.6, 0.8, 0.7), (0.6, 0.7, 0.8)])
def test_candidate_is_compared_with_the_best_kept_version(project, order):
    verdict = project(*order, candidate=0.75).judge()

    assert not verdict.publish
    assert (verdict.published_score, verdict.best_version) == (pytest.approx(0.8), 1 + order.index(0.8))


def test_scans_have_equal_weight(project):
    verdict = project({"scan 0": 0.2, "scan 1": 0.6}, candidate={"scan 0": 0.5, "scan 1": 0.4}).judge()

    assert (verdict.score, verdict.published_score) == (pytest.approx(0.45), pytest.approx(0.4))


# Scans that cannot be read


@pytest.mark.parametrize("held_out", [2, 0])
def test_published_model_stays_if_no_scan_can_be_read(project, held_out):
    verdict = project(0.8, candidate=UNREADABLE).judge(held_out=held_out)

    assert not verdict.publish
    assert verdict.score is None
    assert verdict.reason == "None of the scans to judge it on can be read; the log says why."


def test_published_model_stays_if_it_has_no_score(project):
    assert not project(UNREADABLE, candidate=0.9).judge().publish


def test_first_network_is_published_if_no_scan_can_be_read(project):
    verdict = project(candidate=UNREADABLE).judge()

    assert (verdict.publish, verdict.score) == (True, None)


def test_networks_are_compared_on_scans_with_scores_of_all(project, caplog):
    verdict = project({"scan 0": 0.8, "scan 1": 0.1}, candidate={"scan 0": 0.7}).judge()

    assert not verdict.publish
    assert (verdict.judged_on, verdict.score, verdict.published_score) == ((1, "held-out"), 0.7, 0.8)
    assert "The scan scan 1 is left out of the comparison. The image cannot be read." in caplog.text


# Without held-out scans


@pytest.mark.parametrize(
    ("candidate", "publish"), [(0.9, True), (0.8 * COLLAPSED, True), (0.79 * COLLAPSED, False), (0.0, False)]
)
def test_training_scans_detect_a_collapse_only(project, candidate, publish):
    verdict = project(0.8, candidate=candidate).judge(held_out=0)

    assert verdict.publish is publish
    assert verdict.judged_on == (4, "training")


def test_collapse_is_measured_against_the_published_model(project):
    assert project(1.0, 0.4, candidate=0.3).judge(held_out=0).publish


# Versions that cannot be compared


def test_broken_version_is_logged_and_not_compared(project, caplog):
    found = project(0.9, 0.6, candidate=0.7)
    found.versions.path(1).write_bytes(b"half a mod")

    verdict = found.judge()

    assert (verdict.publish, verdict.best_version) == (True, 2)
    assert "0001.pt cannot be used" in caplog.text


def test_network_with_non_finite_output_scores_0(project, caplog):
    verdict = project(0.8, candidate=BrokenModelError("Version 2 of the model is broken.")).judge()

    assert (verdict.publish, verdict.score) == (False, 0.0)
    assert "Version 2 of the model is broken." in caplog.text


def test_broken_published_model_is_replaced(project):
    found = project(0.9, candidate=0.1)
    found.versions.published_path.write_bytes(b"half a mod")

    verdict = found.judge()

    assert (verdict.publish, verdict.published_score) == (True, None)


@pytest.mark.parametrize("held_out", [2, 0])
@pytest.mark.parametrize("before", [("cyst",), ("lesion", "cyst"), ("cyst", "lesion")])
def test_version_of_other_labels_is_not_compared(project, before, held_out):
    found = project(0.9, candidate=0.1, labels=before)
    assert not found.judge(labels=before, held_out=held_out).publish, "its scores are cached"

    verdict = found.judge(labels=("lesion",), held_out=held_out)

    assert (verdict.publish, verdict.published_score) == (True, None)


def test_published_model_without_a_version_is_compared(project):
    found = project(0.8, candidate=0.5)
    found.versions.path(1).unlink()

    assert not found.judge().publish


def test_version_that_was_rolled_back_is_not_compared(project):
    found = project(0.7, 0.9, candidate=0.75)
    assert not found.judge().publish
    found.versions.roll_back(1)

    verdict = found.judge()

    assert verdict.publish
    assert (verdict.published_score, verdict.best_version) == (0.7, 1)


# Stored scores


def test_version_is_scored_once_on_each_scan(project):
    found = project(0.8, 0.7, candidate=0.75)

    first = found.judge()
    found.scored.clear()
    second = found.judge()

    assert second == first
    assert sorted(found.scored) == [(CANDIDATE, "scan 0"), (CANDIDATE, "scan 1")]


def test_published_candidate_is_not_scored_again(project):
    found = project(0.7, candidate=0.8)
    verdict = found.judge()
    found.publish(1)
    found.gate().store_scores(2, verdict.scores)
    found.scored.clear()

    assert found.gate().kept_scores()[2] == verdict.scores
    assert found.scored == []


def other_clicks(scan):
    return replace(scan, annotations=(phantoms.scan(scan.image_path.parent, "other", clicked=("cyst",)).annotations))


@pytest.mark.parametrize(
    "change",
    [
        {"margin": 3},
        {"scan": other_clicks},
        {"scan": lambda scan: replace(scan, image_checksum="another image")},
        {"scan": lambda scan: replace(scan, absent=("cyst",))},
        {"scan": lambda scan: phantoms.scan(scan.image_path.parent, scan.image_id, masked=("lesion",))},
    ],
    ids=["margin", "clicks", "image", "absence", "mask"],
)
def test_version_is_scored_again_after_a_change(project, change):
    found = project(0.8, candidate=0.8)
    found.judge()
    found.scored.clear()
    scans = [change.get("scan", lambda scan: scan)(found.scans[0]), *found.scans[1:]]

    found.judge(margin=change.get("margin", 2), scans=scans)

    assert (1, "scan 0") in found.scored


@pytest.mark.parametrize("content", [b"half a fi", b"[]", b'{"1": 7}', b'{"1": {"a": "much"}}', b"null", b"[" * 99_999])
def test_damaged_scores_are_replaced(project, content):
    found = project(0.8, candidate=0.8)
    first = found.judge()
    (found.versions.folder / "scores.json").write_bytes(content)

    assert found.judge() == first


def test_scores_of_deleted_versions_are_deleted(project):
    found = project(0.8, 0.8, candidate=0.8)
    found.judge()
    found.versions.path(1).unlink()
    found.gate().store_scores(2, {"scan": 0.5})

    assert '"1"' not in (found.versions.folder / "scores.json").read_text()


def test_number_of_scored_scans_is_limited_and_those_with_masks_come_first(tmp_path):
    clicked = phantoms.scans(tmp_path, MAX_SCANS + 3)
    masked = [phantoms.scan(tmp_path, f"masked {n}", masked=("lesion",)) for n in range(3)]
    found = Project(tmp_path, {})

    chosen = found.gate(held_out=MAX_SCANS + 6, scans=[*clicked, *masked]).scans

    assert len(chosen) == MAX_SCANS
    assert {scan.image_id for scan in chosen[:3]} == {scan.image_id for scan in masked}
    again = found.gate(held_out=MAX_SCANS + 6, scans=[*masked, *clicked[::-1]]).scans
    assert again == chosen, "independent of their order"


def test_drawn_and_corrected_masks_are_used_before_accepted_ones(tmp_path):
    both = ("lesion", "cyst")
    ways = {
        "accepted": {"lesion": MaskOrigin.ACCEPTED, "cyst": MaskOrigin.ACCEPTED},
        "corrected": {"lesion": MaskOrigin.CORRECTED, "cyst": MaskOrigin.ACCEPTED},
        "drawn": {},
        "half drawn": {"lesion": MaskOrigin.ACCEPTED},
    }
    masked = [
        replace(phantoms.scan(tmp_path, f"{way} {n}", masked=both), mask_origins=origins)
        for n in range(3)
        for way, origins in ways.items()
    ]
    clicked = phantoms.scans(tmp_path, MAX_SCANS)

    scans = Project(tmp_path, {}).gate(held_out=len(masked) + len(clicked), scans=[*clicked, *masked]).scans

    order = [scan.image_id.rpartition(" ")[0] for scan in scans]
    assert len(order) == MAX_SCANS
    assert sorted(order[:9]) == sorted(3 * ["corrected", "drawn", "half drawn"])
    assert order[9:12] == 3 * ["accepted"]
    assert order[12:] == 4 * ["scan"]
