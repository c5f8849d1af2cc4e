"""Failed logins are limited, so that passwords cannot be guessed."""

import pytest
from fastapi import HTTPException

from lib.server.login.attempts import Attempts


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def attempts(clock):
    return Attempts(window_s=60, max_per_name=3, max_per_address=5, clock=clock)


def test_name_is_refused_wherever_the_attempts_come_from_until_they_are_old(attempts, clock):
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        attempts.begin("anna", address)

    with pytest.raises(HTTPException, match="Too many logins") as refusal:
        attempts.begin("anna", "10.0.0.4")
    assert (refusal.value.status_code, refusal.value.headers) == (429, {"Retry-After": "61"})
    clock.now = 60
    attempts.begin("anna", "10.0.0.4")


def test_address_is_refused_after_too_many_names(attempts):
    for number in range(5):
        attempts.begin(f"name {number}", "10.0.0.1")

    with pytest.raises(HTTPException, match="try again in 2 minutes"):
        attempts.begin("anna", "10.0.0.1")
    attempts.begin("anna", "10.0.0.2")


def test_right_password_makes_the_name_free_again_but_does_not_clear_the_address(attempts):
    for _ in range(2):
        for _ in range(2):
            attempts.begin("anna", "10.0.0.1")
        attempts.begin("uma", "10.0.0.1")
        attempts.succeeded("uma", "10.0.0.1")
        attempts.succeeded("anna", "10.0.0.1")
    for name in ("b", "c", "d"):
        attempts.begin(name, "10.0.0.1")

    with pytest.raises(HTTPException):
        attempts.begin("anna", "10.0.0.1")


def test_name_is_the_same_however_it_is_written(attempts):
    for name in ("anna", "Anna", " ANNA "):
        attempts.begin(name, "10.0.0.1")

    with pytest.raises(HTTPException):
        attempts.begin("anna", "10.0.0.2")


def test_attempt_that_was_neither_right_nor_wrong_does_not_count(attempts):
    for _ in range(20):
        attempts.begin("anna", "10.0.0.1")
        attempts.withdraw("anna", "10.0.0.1")

    attempts.begin("anna", "10.0.0.1")


def test_old_attempts_are_not_kept(attempts, clock):
    for number in range(10_001):
        clock.now = number
        attempts.begin(f"name {number}", f"address {number}")

    assert len(attempts._made) <= 10_000
