"""Wait for what a server does in the background."""

import time

import requests


def wait_for(is_true, timeout_s=60, poll_s=0.1):
    """Call a function until its value is true, and return the value."""
    end = time.monotonic() + timeout_s
    while not (found := is_true()):
        assert time.monotonic() < end, f"not so after {timeout_s} s"
        time.sleep(poll_s)
    return found


def wait_for_training(url, timeout_s=240):
    """Return the state of the last training after its end."""

    def ended():
        task = requests.get(f"{url}/train/", timeout=60).json()
        return task if task["status"] not in ("SUBMITTED", "RUNNING") else None

    return wait_for(ended, timeout_s, poll_s=0.3)
