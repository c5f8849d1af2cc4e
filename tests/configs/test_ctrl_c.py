"""A first Ctrl-C is a SIGTERM, and a second one is what it was."""

import signal

import pytest

from lib.configs.ctrl_c import end_on_ctrl_c_as_on_sigterm


@pytest.fixture
def received():
    """Names of the signals that reach the handlers that were there before."""
    names = []
    before = {
        number: signal.signal(number, lambda got, _: names.append(signal.Signals(got).name))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield names
    for number, handler in before.items():
        signal.signal(number, handler)


def test_first_is_a_sigterm_and_the_second_an_interrupt(received):
    end_on_ctrl_c_as_on_sigterm()

    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)

    assert received == ["SIGTERM", "SIGINT"]
