"""A killed server loses no annotation that it has confirmed, and starts again.

`python -m benchmarks.server_kills` does the same a hundred times.
"""

import pytest

from benchmarks.server_kills import Killing


@pytest.mark.parametrize("masks", [False, True], ids=["clicks", "final masks"])
def test_every_answered_annotation_is_there_and_whole_after_a_kill(tmp_path, masks):
    killing = Killing(tmp_path, masks)
    for seconds in (0.9, 1.3, 1.7):
        killing.live_and_die(seconds)

    assert len(killing.answered) > 3
    assert killing.lost() == 0
