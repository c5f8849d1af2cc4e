"""Checks of inference requests: model, format and annotator."""

import pytest
from fastapi import HTTPException

from lib.infers.requests import RESULT_DTYPES, RESULT_EXTENSIONS, annotator_of, check_result_format, require_model


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("result_extension", extension) for extension in (*RESULT_EXTENSIONS, "", None)),
        *(("result_dtype", dtype) for dtype in (*RESULT_DTYPES, "", None)),
        ("lesion", [[1, 2, 3]]),
    ],
)
def test_supported_formats(key, value):
    check_result_format({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("result_extension", ".exe"),
        ("result_extension", "nrrd"),
        ("result_extension", "/../../x.nrrd"),
        ("result_dtype", "object"),
        ("result_dtype", "float64"),
        ("result_dtype", "UINT8"),
        *((key, bad) for key in ("result_extension", "result_dtype") for bad in (["a"], {"a": 1}, 7, True, "x" * 9999)),
    ],
)
def test_unsupported_formats_are_refused_in_a_short_sentence(key, value):
    with pytest.raises(HTTPException) as error:
        check_result_format({key: value})

    assert error.value.status_code == 422
    assert error.value.detail.startswith(f"The {key} is {str(value)[:80]!r}; expected one of ")
    assert len(error.value.detail) < 250


@pytest.mark.parametrize("model", ["deepedit", "", None, ["inextremis"], "../inextremis", {"a": 1}])
def test_unknown_model_is_refused_with_the_known_ones(model):
    with pytest.raises(HTTPException) as error:
        require_model(model, {"inextremis": object(), "extreme_points": object()})

    assert error.value.status_code == 404
    assert error.value.detail == f"There is no model {str(model)!r}; this app has inextremis, extreme_points."
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
def test_annotator_is_the_client_id(request_params, who):
    assert annotator_of(request_params) == who
