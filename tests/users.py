"""Tests that need a user who may not do everything; they are usually run by root in a container."""

import multiprocessing
import os

NOBODY = 65534


def as_nobody(function, *folders):
    """Run a function as a user without rights in its own process if this is root, else directly.

    Args:
        folders: that become this user's, with all in them that root could read; their parents may be passed through.
    """
    if os.geteuid() != 0:
        return function()
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        for parent in folder.parents[:-2]:
            parent.chmod(parent.stat().st_mode | 0o011)
    process = multiprocessing.get_context("fork").Process(target=_run, args=(function,))
    process.start()
    process.join(60)
    assert process.exitcode == 0, "see the output of the process"


def _run(function):
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    function()
