"""The search behind `shortest_path` on two threads, one for each end of the path, in large volumes.

Both sides of `lib.supervision.shortest_path_kernel` go on at once, in rounds. Within a round a side reads and writes
its own arrays alone, and takes the other to stand where it stood when the round began. Then both look up, while
nothing is written, where the voxels whose cost fell in the round have been reached from the other end.

What a side knows of the other from before the round is too low a least key and too high a best cost, so that nothing
that counts is left out: some nodes too many are settled, no more. A round ends after a number of nodes, never after a
time, so that the path does not depend on which thread is quicker.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lib.supervision.shortest_path_kernel import joined, meet, open_side, settle, steps_of, walk

# Nodes in a side's first rounds; later ones are a part of what it has settled, so that the nodes too many stay a part
# of all as well, and the threads wait for each other a few dozen times only.
FIRST_ROUND = 2048
PART_OF_SETTLED = 16


def search_on_two_threads(
    cost: np.ndarray, start: int, goal: int, strides: np.ndarray, step_weight: np.ndarray
) -> np.ndarray:
    """The flat indices (n,) int64 of the cheapest path; arguments as in `shortest_path_kernel.search`."""
    steps = steps_of(strides, step_weight)
    with ThreadPoolExecutor(1) as second_thread:
        opening = second_thread.submit(_Side, cost, goal, steps)
        near, far = _Side(cost, start, steps), opening.result()
        best, meeting = np.inf, start
        while near.least + far.least < best:
            near_least, far_least = near.least, far.least  # both change in the round
            far_round = second_thread.submit(far.settle_round, best, near_least)
            near.settle_round(best, far_least)
            far_round.result()
            far_meeting = second_thread.submit(far.meet, near)
            for total, voxel in (near.meet(far), far_meeting.result()):
                if total < best:
                    best, meeting = total, voxel
    return joined(near.walk(meeting), far.walk(meeting))


class _Side:
    """What is known from one end of the path."""

    def __init__(
        self, cost: np.ndarray, end: int, steps: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        self.cost, self.steps = cost, steps
        self.arrival, self.reached, self.heap = open_side(cost.size, end, cost[end])
        self.size, self.n_settled = 1, 0
        self.least = 0.0  # or more
        self.touched = np.empty(0, np.int64)

    def settle_round(self, best: float, their_least: float) -> None:
        limit = max(FIRST_ROUND, self.n_settled // PART_OF_SETTLED)
        self.heap, self.size, self.touched, n, self.least = settle(
            self.cost, self.arrival, self.reached, self.heap, self.size, self.steps, limit, best, their_least
        )
        self.n_settled += n

    def meet(self, other: _Side) -> tuple[float, int]:
        return meet(self.touched, self.cost, self.reached, other.arrival, other.reached)

    def walk(self, voxel: int) -> np.ndarray:
        return walk(self.arrival, self.steps[0], voxel)
