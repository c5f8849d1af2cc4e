"""What a server does before it listens."""

import logging

import pytest

from lib.configs import warm_up
from tests.full_disk import no_space


def test_answers_one_request_and_leaves_no_file(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    caplog.set_level(logging.INFO)

    warm_up.warm_up()

    assert "Ready for clicks" in caplog.messages[-1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("step", ["compile_kernels", "load_volume", "write_mask"])
def test_failure_keeps_no_server_from_starting(step, monkeypatch, caplog):
    monkeypatch.setattr(warm_up, step, no_space)

    warm_up.warm_up()

    assert "could not get ready for clicks" in caplog.text
    assert "No space left on device" in caplog.text
