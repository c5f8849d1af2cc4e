"""An image that does not fit into memory is answered with 503 and a sentence."""

from types import SimpleNamespace

import pytest
import torch

from lib.server.endpoints import mask_requests as inference
from tests.server.refusals import refusal


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_no_memory_is_no_server_error(monkeypatch, error):
    def run_out(request):
        raise error

    monkeypatch.setattr(inference, "app_instance", lambda: SimpleNamespace(models={"inextremis": run_out}))

    status, sentence = refusal(inference._run, {"model": "inextremis"}, SimpleNamespace())

    assert status == 503 and "no memory left" in sentence
