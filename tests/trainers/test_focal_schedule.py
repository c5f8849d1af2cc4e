"""How much the focal loss counts in the course of a training run."""

import pytest

from lib.networks.versions import ModelVersions
from lib.trainers.hyperparameters import Hyperparameters
from tests.trainers import phantoms

TINY = {"iterations_per_epoch": 2, "roi_size": "16x16x16", "levels": 2, "base_channels": 2, "publish_tolerance": 1}


def progress_of_each_step(folder, **changes):
    """What the objective of a training run is told."""
    told = []

    class Watched(phantoms.OneScan):
        def loss_function(self, context):
            objective = super().loss_function(context)
            objective.register_forward_pre_hook(
                lambda _, args, kwargs: told.append(kwargs["progress"]), with_kwargs=True
            )
            return objective

    h = Hyperparameters.of_preset("cpu").changed({**TINY, **changes})
    task = Watched(ModelVersions(folder / "inextremis.pt"), ("lesion",), None, h, tracking="None")
    task({"model": "inextremis"}, None)
    return told


def test_the_objective_is_told_how_much_of_the_run_is_over(tmp_path):
    assert progress_of_each_step(tmp_path, max_epochs=4) == pytest.approx([0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75])


def test_each_run_begins_anew(tmp_path):
    first, second = (progress_of_each_step(tmp_path, max_epochs=2) for _ in range(2))

    assert first == second == pytest.approx([0, 0, 0.5, 0.5])
