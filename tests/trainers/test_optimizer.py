"""The optimiser goes on with the moments of the run before, and begins anew where another one is asked for."""

import pytest

from lib.networks.checkpoint import load_training_state
from lib.networks.versions import ModelVersions
from lib.trainers.hyperparameters import Hyperparameters
from tests.trainers import phantoms

MOMENTS = {"sgd": {"momentum_buffer"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}}
TINY = {"max_epochs": 1, "iterations_per_epoch": 2, "roi_size": "16x16x16", "levels": 2, "base_channels": 2}


def train(folder, optimizer):
    """Moments of one weight after a run, and whether the run found some before its first step."""
    versions = ModelVersions(folder / "inextremis.pt")
    h = Hyperparameters.of_preset("cpu").changed({**TINY, "optimizer": optimizer, "publish_tolerance": 1})
    task = phantoms.OneScan(versions, ("lesion",), None, h, tracking="None")
    found = []
    make = task.optimizer
    task.optimizer = lambda context: found.append(made := make(context)) or made  # as the run got it
    before = []
    update = task.train_iteration_update

    def watched(context):
        before.append(len(found[0].state))
        return update(context)

    task.train_iteration_update = watched
    task({"model": "inextremis"}, None)
    return set(load_training_state(versions.published_path).optimizer["state"][0]), before[0] > 0


@pytest.mark.parametrize("optimizer", MOMENTS)
def test_moments_go_on_from_run_to_run(tmp_path, optimizer):
    assert train(tmp_path, optimizer) == (MOMENTS[optimizer], False)
    assert train(tmp_path, optimizer) == (MOMENTS[optimizer], True)


@pytest.mark.parametrize(("first", "then"), [("sgd", "adamw"), ("adamw", "sgd")])
def test_another_optimiser_begins_with_moments_of_its_own(tmp_path, first, then):
    train(tmp_path, first)

    assert train(tmp_path, then) == (MOMENTS[then], False)
