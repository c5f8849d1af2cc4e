"""What `--conf` takes, and how it refuses the rest."""

from pathlib import Path

import pytest
import torch

from lib.configs.settings import RESERVED_LABELS, ConfigurationError, read_conf
from lib.training.hyperparameters import Hyperparameters


def test_without_conf_everything_has_its_default():
    settings, hyperparameters = read_conf({})

    assert settings.labels == ("lesion",)
    assert settings.preset == "auto"
    assert hyperparameters == Hyperparameters.of_preset("auto")


@pytest.mark.parametrize(
    ("conf", "name", "value"),
    [
        ({"labels": "tumour, left kidney ,cyst_2"}, "labels", ("tumour", "left kidney", "cyst_2")),
        ({"labels": "läsion,腫瘍"}, "labels", ("läsion", "腫瘍")),
        (
            {"labels": "lesion,cyst,liver", "codes": "lesion=SCT:52988006, liver = SCT:10200004"},
            "codes",
            {"lesion": "SCT:52988006:Lesion", "liver": "SCT:10200004:Liver"},
        ),
        ({"codes": "lesion=99LOCAL:A-1:Own words"}, "codes", {"lesion": "99LOCAL:A-1:Own words"}),
        ({"modalities": "mr, PT"}, "modalities", ("MR", "PT")),
        ({"model_dir": "/srv/my model"}, "model_dir", Path("/srv/my model")),
        ({"tracking": "None"}, "tracking", "None"),
    ],
)
def test_text_of_the_command_line_becomes_values(conf, name, value):
    assert getattr(read_conf(conf)[0], name) == value


def test_values_are_text_as_the_command_line_gives_them():
    _, hyperparameters = read_conf(
        {"iterations": "7", "learning_rate": "1e-3", "roi_size": "96x64x32", "geodesic": "gradient", "crf_weight": "0"}
    )

    assert hyperparameters.iterations == 7
    assert hyperparameters.learning_rate == pytest.approx(0.001)
    assert hyperparameters.roi_size == (96, 64, 32)
    assert hyperparameters.geodesic == "gradient"
    assert hyperparameters.crf_weight == 0


@pytest.mark.parametrize("name", Hyperparameters.model_fields)
def test_every_hyperparameter_can_be_set_by_its_name(name):
    # The text that /info/ shows is text that --conf takes.
    shown = Hyperparameters().model_dump()[name]

    _, hyperparameters = read_conf({"preset": "cpu", name: str(shown)})

    assert hyperparameters == Hyperparameters.of_preset("cpu").changed({name: shown})


@pytest.mark.parametrize("preset", ["paper", "gpu", "cpu"])
def test_preset_sets_what_is_not_set_by_name(preset):
    _, hyperparameters = read_conf({"preset": preset, "iterations": "7"})

    assert hyperparameters == Hyperparameters.of_preset(preset).changed({"iterations": 7})


def test_method_sets_the_objective_of_any_preset():
    _, hyperparameters = read_conf({"preset": "cpu", "method": "paper", "focal_weight": "0.5"})

    assert hyperparameters == Hyperparameters.of_preset("cpu", "paper").changed({"focal_weight": 0.5})


@pytest.mark.parametrize(("gpu", "preset"), [(True, "gpu"), (False, "cpu")])
def test_auto_fits_the_machine(monkeypatch, gpu, preset):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)

    assert read_conf({"preset": "auto"})[1] == Hyperparameters.of_preset(preset)


def test_relative_model_dir_is_refused_and_the_absolute_one_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="^--conf model_dir: 'model' cannot be used; expected an abs") as error:
        read_conf({"model_dir": "model"})

    assert str(Path(tmp_path, "model")) in str(error.value)


def test_what_monai_label_adds_by_itself_is_no_setting():
    # Its training process starts the app again, with the same values and this one.
    assert read_conf({"server_mode": "true"}) == read_conf({})


REFUSALS = [
    ("labels", "", "''", "letters, digits"),
    ("labels", "lesion,", "''", "letters, digits"),
    ("labels", "a/b", "'a/b'", "letters, digits"),
    ("labels", "../up", "'../up'", "letters, digits"),
    ("labels", "lesion,Lesion", "lesion, Lesion", "each label may appear once"),
    *(("labels", f"lesion,{name}", f"'{name}'", "requests use this name") for name in ("Foreground", *RESERVED_LABELS)),
    ("codes", "tumour=SCT:52988006", "'tumour'", "expected one of lesion"),
    ("codes", "lesion", "''", "expected SCHEME:VALUE, such as SCT:52988006"),
    ("codes", "lesion=52988006", "'52988006'", "expected SCHEME:VALUE, such as SCT:52988006"),
    ("codes", "lesion=SCT:52988007", "'SCT:52988007'", "correct it, or give SCT:52988007:MEANING"),
    ("modalities", "", "''", "such as MR,CT,PT"),
    ("modalities", "MR,p/t", "'P/T'", "such as MR,CT,PT"),
    ("tracking", "mlfow", "'mlfow' cannot be used", "'mlflow' or 'None'"),
    ("preset", "fast", "'fast'", "'auto', 'gpu', 'cpu' or 'paper'"),
    ("method", "Paper", "'Paper'", "'app' or 'paper'"),
    ("geodesic", "Deep", "'Deep'", "'none', 'gradient', 'gradient_euclidean' or 'deep'"),
    ("iterations", "0", "'0'", "greater than or equal to 1"),
    ("iterations", "many", "'many'", "valid integer"),
    ("iterations", "", "''", "valid integer"),
    ("box_margin", "1.5", "'1.5'", "valid integer"),
    ("learning_rate", "0", "'0'", "greater than 0"),
    ("learning_rate", "0,01", "'0,01'", "valid number"),
    ("learning_rate", "nan", "'nan'", "finite number"),
    ("momentum", "1", "'1'", "less than 1"),
    ("annotated_fraction", "1.1", "'1.1'", "less than or equal to 1"),
    ("crf_weight", "-1e-4", "'-1e-4'", "greater than or equal to 0"),
    ("levels", "7", "'7'", "less than or equal to 6"),
    ("roi_size", "96x96", "'96x96'", "three sizes in voxels, such as 96x96x32"),
    ("roi_size", "96x96x4", "'4'", "greater than or equal to 8"),
    ("roi_size", "96x96xmany", "'many'", "valid integer"),
]


@pytest.mark.parametrize(("name", "value", "shown", "expectation"), REFUSALS)
def test_refusals_name_the_setting_the_value_and_what_is_expected(name, value, shown, expectation):
    with pytest.raises(ConfigurationError) as error:
        read_conf({name: value})

    sentence = str(error.value)
    assert sentence.startswith(f"--conf {name}: ")
    assert shown in sentence
    assert expectation in sentence
    assert "\n" not in sentence


def test_numbers_are_finite():
    accepted = []
    for name in (name for name, field in Hyperparameters.model_fields.items() if field.annotation is float):
        try:
            read_conf({name: "inf"})
            accepted.append(name)
        except ConfigurationError as error:
            assert str(error).startswith(f"--conf {name}: 'inf' cannot be used")

    assert accepted == []


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("label", "labels"), ("model-dir", "model_dir"), ("iteration", "iterations"), ("crf_wieght", "crf_weight")],
)
def test_misspelt_name_is_refused_with_the_one_that_was_meant(wrong, meant):
    with pytest.raises(ConfigurationError, match=f"^--conf {wrong}: there is no such setting; did you mean '{meant}'"):
        read_conf({wrong: "1"})


def test_name_like_no_other_is_refused_with_all_there_are():
    with pytest.raises(ConfigurationError, match="^--conf zzz: there is no such .*; expected one of labels, .*seed"):
        read_conf({"zzz": "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_origins", "null"),
        ("allowed_origins", "*"),
        ("allowed_origins", "viewer.example"),
        ("allowed_origins", "https://viewer.example/path"),
        ("allowed_hosts", "*"),
        ("allowed_hosts", "https://viewer.example"),
        ("labels", ",".join(f"l{n}" for n in range(256))),
        ("network_arguments", '{"pretrained": true}'),
        ("network_arguments", '{"weights": "/etc/passwd"}'),
        ("network_arguments", "[" * 60000),
        ("train_batch_size", "1000000"),
        ("learning_rate", "1e30"),
    ],
)
def test_values_that_would_open_or_stop_the_server_are_refused(name, value):
    with pytest.raises(ConfigurationError, match=f"--conf {name}"):
        read_conf({name: value})
