"""Waiting for what a server does in the background."""

import time


def wait_for_training(client, timeout_s=240):
    """The last training, when it has ended."""
    end = time.monotonic() + timeout_s
    while (task := client.train_status(check_if_running=False))["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < end, task
        time.sleep(0.3)
    return task
