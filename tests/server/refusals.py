"""Catch refusals."""

import pytest
from fastapi import HTTPException


def refusal(call, *arguments, **keywords):
    """Return the status and the sentence of the HTTPException that a call raises."""
    with pytest.raises(HTTPException) as error:
        call(*arguments, **keywords)
    assert error.value.detail.encode()
    return error.value.status_code, error.value.detail
