"""The hyper-parameters: the paper's values, presets, and text as viewers show and send it."""

import json

import pytest
from pydantic import ValidationError

from lib.trainers.hyperparameters import Hyperparameters, first_error


def test_defaults_are_those_of_the_paper():
    """Section 4, implementation details."""
    paper = Hyperparameters.of_preset("paper")

    assert paper == Hyperparameters()
    assert paper.roi_size == (224, 224, 48)
    assert paper.train_batch_size == 6
    # "9000 iterations with a batch size of 6, i.e. 300 epochs"
    assert paper.max_epochs == 300
    assert paper.max_epochs * paper.iterations_per_epoch == 9000
    assert (paper.momentum, paper.learning_rate, paper.weight_decay) == (0.99, 0.01, 3e-5)
    assert (paper.sigma_alpha, paper.sigma_beta, paper.crf_weight) == (15, 0.05, 1e-4)
    assert paper.box_margin == 4
    assert paper.geodesic == "deep"


def test_cpu_preset_asks_for_less_of_everything_that_costs_time():
    paper, cpu = Hyperparameters.of_preset("paper"), Hyperparameters.of_preset("cpu")

    for name in ("train_batch_size", "iterations_per_epoch", "max_epochs", "base_channels", "levels"):
        assert getattr(cpu, name) < getattr(paper, name)
    assert all(small < large for small, large in zip(cpu.roi_size, paper.roi_size, strict=True))


@pytest.mark.parametrize("preset", ["paper", "cpu"])
def test_what_info_shows_can_be_sent_back(preset):
    hyperparameters = Hyperparameters.of_preset(preset)

    shown = json.loads(json.dumps(hyperparameters.model_dump()))

    assert Hyperparameters().changed(shown) == hyperparameters


def test_viewers_get_a_size_as_one_word():
    # They show a list as a choice.
    assert Hyperparameters(roi_size=(64, 48, 24)).model_dump()["roi_size"] == "64x48x24"


@pytest.mark.parametrize("size", ["64x48x24", "64X48X24", " 64 x 48 x 24 ", [64, 48, 24], (64, 48, 24)])
def test_size_is_read_in_every_form(size):
    assert Hyperparameters().changed({"roi_size": size}).roi_size == (64, 48, 24)


def test_change_leaves_the_rest_and_the_original():
    original = Hyperparameters.of_preset("cpu")

    changed = original.changed({"max_epochs": "3"})

    assert changed.max_epochs == 3
    assert changed.changed({"max_epochs": original.max_epochs}) == original
    assert original == Hyperparameters.of_preset("cpu")


def test_values_cannot_be_changed_under_way():
    with pytest.raises(ValidationError):
        Hyperparameters().max_epochs = 3


def test_unknown_name_is_refused():
    with pytest.raises(ValidationError) as error:
        Hyperparameters().changed({"epochs": 3})

    assert first_error(error.value).startswith("epochs: 3 cannot be used;")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_epochs": 0}, "max_epochs: 0 cannot be used; Input should be greater than or equal to 1."),
        ({"roi_size": 64}, "roi_size: 64 cannot be used; expected three sizes in voxels, such as 96x96x32."),
        ({"seed": None}, "seed: None cannot be used; Input should be a valid integer."),
    ],
)
def test_first_error_is_one_sentence(changes, sentence):
    with pytest.raises(ValidationError) as error:
        Hyperparameters().changed(changes)

    assert first_error(error.value) == sentence
