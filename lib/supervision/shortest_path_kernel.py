"""Search shortest paths by a compiled Dijkstra from both ends at once, on voxel grids of 26 neighbours.

A node is a voxel on one of the two sides. Its key is the cost of the best known path to it from the end on its side,
including its own vertex cost. Each side has settled every node up to the smallest key in its queue. A path
that costs less than the sum of the two smallest keys is therefore known up to a voxel that both sides have reached:
the search ends when this sum is at least the best known cost.

The side with the smaller queue continues, so that an end in a uniform region does not expand far while the other end is
still enclosed by edges.

Large volumes are limited by memory access, not by arithmetic. A queue is therefore a heap of single integers: the bits
of a key, the lowest of them overwritten by the node. This can only lower a key, so the criterion to end stays valid.
Keys that differ in those bits only may leave the queue out of order; a node is then settled again when its cost falls.

All compiled functions are in this file: numba compiles a file again only when that file itself has changed.
"""

from __future__ import annotations

import numpy as np

from lib.jit import compiled

N_NEIGHBOURS = 26
HEAP_ARITY = 4

# Values of `arrival`: the step that led to a node, or one of the first two; SETTLED is added to settled nodes.
AT_END = 26
UNREACHED = 27
SETTLED = 32


@compiled
def search(cost: np.ndarray, start: int, goal: int, strides: np.ndarray, step_weight: np.ndarray) -> np.ndarray:
    """Find the cheapest path, as flat indices (n,) int64.

    Args:
        cost: (N,) float64, a raveled volume with a border of inf, one voxel thick.
        start, goal: flat indices of the two ends.
        strides: (3,) int64, from a voxel to the next along each axis.
        step_weight: (3,) float64.
    """
    offset, length, onward, n_onward = _steps_of(strides, step_weight)
    n = cost.size
    # Voxel v is node 2 * v on the side of the start and 2 * v + 1 on the other. Arrivals of both sides are interleaved
    # because they are read together; costs to reach a voxel are not, because each side scans its own.
    arrival = np.full(2 * n, UNREACHED, np.int8)
    reached = np.full(2 * n, np.inf)
    arrival[2 * start] = arrival[2 * goal + 1] = AT_END
    reached[start] = reached[n + goal] = 0.0
    node_mask = _mask(2 * n)
    heaps = np.empty((2, 1024), np.uint64)
    size = np.zeros(2, np.int64)
    size[0] = _push(heaps[0], 0, _entry(cost[start], 2 * start, node_mask))
    size[1] = _push(heaps[1], 0, _entry(cost[goal], 2 * goal + 1, node_mask))
    best, meeting = np.inf, start
    found = False
    while not found:
        # Growing here, and not at each push, avoids reference counting in the inner loop.
        if max(size[0], size[1]) + N_NEIGHBOURS > heaps.shape[1]:
            heaps = np.concatenate((heaps, np.empty_like(heaps)), axis=1)
        while max(size[0], size[1]) + N_NEIGHBOURS <= heaps.shape[1]:
            side = 0 if size[0] <= size[1] else 1
            heap, their_least = heaps[side], _key(heaps[1 - side, 0], node_mask)
            found = size[side] == 0 or _key(heap[0], node_mask) + their_least >= best
            if found:
                break
            node = np.int64(heap[0] & node_mask)
            size[side] = _pop(heap, size[side])
            step = arrival[node]
            if step >= SETTLED:
                continue
            arrival[node] = step + SETTLED
            u, mine, other = node >> 1, side * n, (1 - side) * n
            key = reached[mine + u] + cost[u]
            for m in range(n_onward[step]):
                next_step = onward[step, m]
                v = u + offset[next_step]
                entered = key + length[next_step]
                if entered < reached[mine + v]:
                    reached[mine + v] = entered
                    arrival[2 * v + side] = next_step
                    left = entered + cost[v]
                    if arrival[2 * v + 1 - side] != UNREACHED and left + reached[other + v] < best:
                        best, meeting = left + reached[other + v], v
                    if left + their_least < best:
                        size[side] = _push(heap, size[side], _entry(left, 2 * v + side, node_mask))
    to_start = _walk(arrival, 2 * offset, 2 * meeting) >> 1
    to_goal = _walk(arrival, 2 * offset, 2 * meeting + 1) >> 1
    return np.concatenate((to_start[::-1], to_goal[1:]))


@compiled
def _steps_of(strides: np.ndarray, step_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the offset and length of each step, and the steps to try after it.

    After a step from u to v, neighbours of v that are also neighbours of u are skipped: by the triangle inequality,
    the direct step from u is at most as expensive. Row `AT_END` is for an end of the path, with all steps.
    """
    shift = np.empty((N_NEIGHBOURS, 3), np.int64)
    for step in range(N_NEIGHBOURS):
        cell = step if step < N_NEIGHBOURS // 2 else step + 1
        shift[step, 0], shift[step, 1], shift[step, 2] = cell // 9 - 1, cell // 3 % 3 - 1, cell % 3 - 1
    offset = (shift * strides).sum(axis=1)
    length = np.sqrt(((shift * step_weight) ** 2).sum(axis=1))
    onward = np.empty((AT_END + 1, N_NEIGHBOURS), np.int64)
    n_onward = np.zeros(AT_END + 1, np.int64)
    for step in range(AT_END + 1):
        for next_step in range(N_NEIGHBOURS):
            if step == AT_END or np.abs(shift[step] + shift[next_step]).max() > 1:
                onward[step, n_onward[step]] = next_step
                n_onward[step] += 1
    return offset, length, onward, n_onward


@compiled
def _walk(arrival: np.ndarray, offset: np.ndarray, node: int) -> np.ndarray:
    """Return the nodes from `node` back to the end on its side; `offset` of each step is in nodes."""
    nodes = np.empty(64, np.int64)
    count = 1
    nodes[0] = node
    while arrival[node] % SETTLED != AT_END:
        node -= offset[arrival[node] % SETTLED]
        if count == nodes.size:
            nodes = np.concatenate((nodes, np.empty_like(nodes)))
        nodes[count] = node
        count += 1
    return nodes[:count]


@compiled
def _mask(n_nodes: int) -> np.uint64:
    mask = 1
    while mask < n_nodes:
        mask = 2 * mask + 1
    return np.uint64(mask)


@compiled
def _entry(key: float, node: int, node_mask: np.uint64) -> np.uint64:
    # Non-negative floats sort in the order of their bits.
    return (np.float64(key).view(np.uint64) & ~node_mask) | np.uint64(node)


@compiled
def _key(entry: np.uint64, node_mask: np.uint64) -> float:
    return float(np.uint64(entry & ~node_mask).view(np.float64))


@compiled
def _push(heap: np.ndarray, size: int, entry: np.uint64) -> int:
    at = size
    while at > 0:
        above = (at - 1) // HEAP_ARITY
        if heap[above] <= entry:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = entry
    return size + 1


@compiled
def _pop(heap: np.ndarray, size: int) -> int:
    size -= 1
    entry = heap[size]
    at = 0
    while HEAP_ARITY * at + 1 < size:
        first = HEAP_ARITY * at + 1
        below = first
        for sibling in range(first + 1, min(first + HEAP_ARITY, size)):
            if heap[sibling] < heap[below]:
                below = sibling
        if entry <= heap[below]:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = entry
    return size
