"""What an inference request has to pass: models that exist, formats that can be written, a name of who asks."""

import pytest
from fastapi import HTTPException

from lib.infers.requests import RESULT_DTYPES, RESULT_EXTENSIONS, annotator_of, check_result_format, require_model


@pytest.mark.parametrize("extension", [*RESULT_EXTENSIONS, "", None])
def test_formats_that_can_be_written(extension):
    check_result_format({"result_extension": extension})


@pytest.mark.parametrize("dtype", [*RESULT_DTYPES, "", None])
def test_types_that_can_be_written(dtype):
    check_result_format({"result_dtype": dtype})


def test_request_without_a_format_gets_the_default():
    check_result_format({"lesion": [[1, 2, 3]]})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("result_extension", ".exe"),
        ("result_extension", "nrrd"),
        ("result_extension", "/../../x.nrrd"),
        ("result_dtype", "object"),
        ("result_dtype", "float64"),
        ("result_dtype", "UINT8"),
    ],
)
def test_formats_that_cannot_be_written_are_named_with_those_that_can(key, value):
    with pytest.raises(HTTPException) as error:
        check_result_format({key: value})

    assert error.value.status_code == 422
    assert error.value.detail.startswith(f"The {key} is {value!r}; expected one of ")


@pytest.mark.parametrize("value", [[".nrrd"], {"a": 1}, 7, True, "x" * 10_000])
@pytest.mark.parametrize("key", ["result_extension", "result_dtype"])
def test_what_is_no_format_at_all_is_refused_in_a_short_sentence(key, value):
    with pytest.raises(HTTPException) as error:
        check_result_format({key: value})

    assert error.value.status_code == 422
    assert len(error.value.detail) < 250


@pytest.mark.parametrize("model", ["deepedit", "", None, ["inextremis"], "../inextremis", {"a": 1}])
def test_unknown_model_is_named_with_those_there_are(model):
    with pytest.raises(HTTPException) as error:
        require_model(model, {"inextremis": object(), "extreme_points": object()})

    assert error.value.status_code == 404
    assert error.value.detail == f"There is no model {str(model)!r}; this app has inextremis, extreme_points."


def test_known_model_is_let_through():
    require_model("inextremis", {"inextremis": object()})


@pytest.mark.parametrize(
    ("request_params", "who"),
    [
        ({"client_id": "reader 1"}, "reader 1"),
        ({"client_id": 7}, "7"),
        ({"client_id": ""}, "unknown"),
        ({"client_id": None}, "unknown"),
        ({}, "unknown"),
        ({"client_id": "r" * 1000}, "r" * 200),
    ],
)
def test_annotator_is_who_the_client_says(request_params, who):
    assert annotator_of(request_params) == who
