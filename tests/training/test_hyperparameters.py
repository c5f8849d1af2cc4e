"""The hyper-parameters: values of the paper, presets, methods, and text for viewers."""

import json

import pytest
import torch
from pydantic import ValidationError

from lib.training.hyperparameters import Hyperparameters, first_error

PRESETS = ("paper", "gpu", "cpu")


def test_defaults_are_those_of_the_paper():
    # Section 4, implementation details.
    paper = Hyperparameters.of_preset("paper")

    assert paper == Hyperparameters()
    assert paper.roi_size == (224, 224, 48)
    assert paper.train_batch_size == 6
    # "9000 iterations with a batch size of 6, i.e. 300 epochs"
    assert (paper.iterations, paper.max_minutes) == (9000, 0)
    assert (paper.optimizer, paper.momentum, paper.learning_rate, paper.weight_decay) == ("sgd", 0.99, 0.01, 3e-5)
    assert (paper.warm_up_iterations, paper.gradient_clip) == (0, 0)
    assert (paper.sigma_alpha, paper.sigma_beta, paper.crf_weight) == (15, 0.05, 1e-4)
    assert (paper.box_margin, paper.patch_context, paper.min_spacing_mm) == (4, 0, 0)
    assert (paper.geodesic, paper.focal_weight, paper.click_mask_weight) == ("deep", 1, 0)


def test_cpu_preset_is_smaller_than_the_paper():
    paper, cpu = Hyperparameters.of_preset("paper"), Hyperparameters.of_preset("cpu")

    for name in ("train_batch_size", "iterations", "base_channels", "levels"):
        assert getattr(cpu, name) < getattr(paper, name)
    assert all(small <= large for small, large in zip(cpu.roi_size, paper.roi_size, strict=True))
    assert cpu.roi_size != paper.roi_size


@pytest.mark.parametrize(("preset", "minutes"), [("cpu", 5), ("gpu", 10)])
def test_presets_limit_the_minutes(preset, minutes):
    assert 0 < Hyperparameters.of_preset(preset).max_minutes <= minutes


@pytest.mark.parametrize(("gpu", "preset"), [(True, "gpu"), (False, "cpu")])
def test_auto_fits_the_machine(monkeypatch, gpu, preset):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)

    assert Hyperparameters.of_preset("auto") == Hyperparameters.of_preset(preset)


@pytest.mark.parametrize(("preset", "method"), [("paper", "paper"), ("gpu", "app"), ("cpu", "app")])
def test_the_paper_s_preset_has_the_paper_s_method(preset, method):
    assert Hyperparameters.of_preset(preset).method == method


METHOD = ("geodesic", "focal_weight", "click_mask_weight", "crf_weight", "sigma_alpha", "sigma_beta")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", ["app", "paper"])
def test_method_is_the_objective_and_preset_the_rest(preset, method):
    h, other = Hyperparameters.of_preset(preset, method), Hyperparameters.of_preset(preset)

    assert h.method == method
    of_method = Hyperparameters.of_preset("cpu", method)
    assert [getattr(h, name) for name in METHOD] == [getattr(of_method, name) for name in METHOD]
    rest = [name for name in Hyperparameters.model_fields if name not in ("method", *METHOD)]
    assert [getattr(h, name) for name in rest] == [getattr(other, name) for name in rest]


def test_another_method_sets_its_own_values_except_those_that_are_given():
    cpu = Hyperparameters.of_preset("cpu")

    assert cpu.changed({"method": "paper"}) == Hyperparameters.of_preset("cpu", "paper")
    assert cpu.changed({"method": "paper", "crf_weight": "0"}).crf_weight == 0
    set_before = cpu.changed({"crf_weight": 0.5})
    assert set_before.changed({"method": "app"}) == set_before, "it is the same method"


@pytest.mark.parametrize("preset", PRESETS)
def test_values_of_info_can_be_sent_back(preset):
    hyperparameters = Hyperparameters.of_preset(preset)

    shown = json.loads(json.dumps(hyperparameters.model_dump()))

    assert Hyperparameters().changed(shown) == hyperparameters


@pytest.mark.parametrize("size", ["64x48x24", "64X48X24", " 64 x 48 x 24 ", [64, 48, 24], (64, 48, 24)])
def test_size_is_parsed_in_every_form_and_shown_as_one_word(size):
    h = Hyperparameters().changed({"roi_size": size})

    assert (h.roi_size, h.model_dump()["roi_size"]) == ((64, 48, 24), "64x48x24")


def test_change_leaves_the_rest_and_the_original():
    original = Hyperparameters.of_preset("cpu")

    changed = original.changed({"iterations": "3"})

    assert changed.iterations == 3
    assert changed.changed({"iterations": original.iterations}) == original
    assert original == Hyperparameters.of_preset("cpu")
    with pytest.raises(ValidationError):
        original.iterations = 3


@pytest.mark.parametrize("name", ["epochs", "max_epochs", "publish_tolerance"])
def test_unknown_name_is_refused(name):
    with pytest.raises(ValidationError) as error:
        Hyperparameters().changed({name: 3})

    assert first_error(error.value).startswith(f"{name}: 3 cannot be used;")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"iterations": 0}, "iterations: 0 cannot be used; Input should be greater than or equal to 1."),
        ({"roi_size": 64}, "roi_size: 64 cannot be used; expected three sizes in voxels, such as 96x96x32."),
        ({"seed": None}, "seed: None cannot be used; Input should be a valid integer."),
        ({"method": "mine"}, "method: 'mine' cannot be used; Input should be 'app' or 'paper'."),
        ({"held_out_share": 1}, "held_out_share: 1 cannot be used; Input should be less than 1."),
    ],
)
def test_first_error_is_one_sentence(changes, sentence):
    with pytest.raises(ValidationError) as error:
        Hyperparameters().changed(changes)

    assert first_error(error.value) == sentence


@pytest.mark.parametrize(
    "arguments", ['{"weights": "/etc/passwd"}', '{"url": "C:\\\\\\\\x"}', '{"pretrained": true}', "[1]", "{", 7]
)
def test_arguments_of_a_network_contain_no_file_and_no_address(arguments):
    with pytest.raises(ValidationError, match="network_arguments"):
        Hyperparameters().changed({"network_arguments": arguments})
