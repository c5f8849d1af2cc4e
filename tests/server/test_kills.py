"""A server that is killed in the middle of its work has lost nothing that it answered, and starts again.

`python -m benchmarks.server_kills` does the same a hundred times.
"""

from benchmarks.server_kills import Killing


def test_every_answered_annotation_is_there_after_a_kill(tmp_path):
    killing = Killing(tmp_path)
    for seconds in (0.9, 1.3, 1.7):
        killing.live_and_die(seconds)

    assert len(killing.answered) > 3
    assert killing.lost() == 0
