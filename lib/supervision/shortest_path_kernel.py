"""The compiled search behind `shortest_path`: A* with a bucket queue, on voxel grids of 26 neighbours.

`key` of a voxel is the cost of the best path known to it, its own vertex cost included, plus a lower bound
of what is left to the target. Keys are settled in increasing order, so that the first time the target is
settled its path is the cheapest.
"""

from __future__ import annotations

import numba
import numpy as np

SETTLED = np.int8(1 << 5)
ROUNDING_SLACK = 1e-9


@numba.njit(nogil=True, cache=True)
def search(cost, source, target, step_weight):  # type: ignore[no-untyped-def]
    """Path (n, 3) int64 from `source` to `target`, (3,) int64 each; `cost` (X, Y, Z) and `step_weight` float64."""
    si, sj, sk = cost.shape
    row, plane = sk + 2, (sj + 2) * (sk + 2)
    n_neighbours = 26
    shift = np.empty((n_neighbours, 3), np.int64)
    offset = np.empty(n_neighbours, np.int64)
    length = np.empty(n_neighbours, np.float64)
    n = 0
    for di in range(-1, 2):
        for dj in range(-1, 2):
            for dk in range(-1, 2):
                if di != 0 or dj != 0 or dk != 0:
                    shift[n, 0], shift[n, 1], shift[n, 2] = di, dj, dk
                    offset[n] = di * plane + dj * row + dk
                    length[n] = np.sqrt(
                        (di * step_weight[0]) ** 2 + (dj * step_weight[1]) ** 2 + (dk * step_weight[2]) ** 2
                    )
                    n += 1

    reached = np.full((si + 2, sj + 2, sk + 2), -np.inf)
    reached[1:-1, 1:-1, 1:-1] = np.inf
    reached = reached.ravel()
    arrival = np.zeros(reached.size, np.int8)

    bound_i, bound_j, bound_k = _plane_bounds(cost, target)
    upper = _line_cost(cost, source, target, step_weight)
    upper += ROUNDING_SLACK * upper

    start = (source[0] + 1) * plane + (source[1] + 1) * row + source[2] + 1
    goal = (target[0] + 1) * plane + (target[1] + 1) * row + target[2] + 1

    heap_key = np.empty(1024, np.float64)
    heap_voxel = np.empty(1024, np.int64)
    size = 1
    heap_key[0] = 0.0
    heap_voxel[0] = start
    reached[start] = 0.0
    arrival[start] = -1
    while size > 0:
        u = heap_voxel[0]
        size -= 1
        _sift_down(heap_key, heap_voxel, size, heap_key[size], heap_voxel[size])
        if u == goal:
            break
        if arrival[u] & SETTLED and u != start:
            continue
        arrival[u] |= SETTLED
        i = u // plane
        j = (u - i * plane) // row
        k = u - i * plane - j * row - 1
        i -= 1
        j -= 1
        leave = reached[u] + cost[i, j, k]
        for n in range(n_neighbours):
            v = u + offset[n]
            entry = leave + length[n]
            if entry < reached[v]:
                reached[v] = entry
                vi, vj, vk = i + shift[n, 0], j + shift[n, 1], k + shift[n, 2]
                left = max(bound_i[vi], bound_j[vj], bound_k[vk]) + _free_distance(
                    abs(vi - target[0]) , abs(vj - target[1]), abs(vk - target[2]), step_weight
                )
                key = entry + cost[vi, vj, vk] + left
                arrival[v] = n
                if size == heap_key.size:
                    heap_key = np.concatenate((heap_key, np.empty_like(heap_key)))
                    heap_voxel = np.concatenate((heap_voxel, np.empty_like(heap_voxel)))
                _sift_up(heap_key, heap_voxel, size, key, v)
                size += 1

    count = 1
    v = goal
    while v != start:
        v -= offset[arrival[v] & ~SETTLED]
        count += 1
    path = np.empty((count, 3), np.int64)
    v = goal
    for m in range(count - 1, -1, -1):
        path[m, 0] = v // plane - 1
        path[m, 1] = (v % plane) // row - 1
        path[m, 2] = v % row - 1
        if v != start:
            v -= offset[arrival[v] & ~SETTLED]
    return path


@numba.njit(nogil=True, cache=True)
def _sift_up(heap_key, heap_voxel, at, key, voxel):  # type: ignore[no-untyped-def]
    while at > 0:
        above = (at - 1) >> 1
        if heap_key[above] <= key:
            break
        heap_key[at], heap_voxel[at] = heap_key[above], heap_voxel[above]
        at = above
    heap_key[at], heap_voxel[at] = key, voxel


@numba.njit(nogil=True, cache=True)
def _sift_down(heap_key, heap_voxel, size, key, voxel):  # type: ignore[no-untyped-def]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and heap_key[below + 1] < heap_key[below]:
            below += 1
        if key <= heap_key[below]:
            break
        heap_key[at], heap_voxel[at] = heap_key[below], heap_voxel[below]
        at = below
    heap_key[at], heap_voxel[at] = key, voxel


@numba.njit(nogil=True, cache=True)
def _free_distance(ni, nj, nk, step_weight):  # type: ignore[no-untyped-def]
    a, b, c = step_weight[0], step_weight[1], step_weight[2]
    if ni < nj:
        ni, nj, a, b = nj, ni, b, a
    if nj < nk:
        nj, nk, b, c = nk, nj, c, b
    if ni < nj:
        ni, nj, a, b = nj, ni, b, a
    return nk * np.sqrt(a * a + b * b + c * c) + (nj - nk) * np.sqrt(a * a + b * b) + (ni - nj) * a


@numba.njit(nogil=True, cache=True)
def _plane_bounds(cost, target):  # type: ignore[no-untyped-def]
    si, sj, sk = cost.shape
    least_i, least_j, least_k = np.full(si, np.inf), np.full(sj, np.inf), np.full(sk, np.inf)
    for i in range(si):
        for j in range(sj):
            for k in range(sk):
                c = cost[i, j, k]
                least_i[i] = min(least_i[i], c)
                least_j[j] = min(least_j[j], c)
                least_k[k] = min(least_k[k], c)
    return _sums_to(least_i, target[0]), _sums_to(least_j, target[1]), _sums_to(least_k, target[2])


@numba.njit(nogil=True, cache=True)
def _sums_to(least, at):  # type: ignore[no-untyped-def]
    bound = np.zeros(least.size)
    for i in range(at - 1, -1, -1):
        bound[i] = bound[i + 1] + least[i + 1]
    for i in range(at + 1, least.size):
        bound[i] = bound[i - 1] + least[i - 1]
    return bound


@numba.njit(nogil=True, cache=True)
def _line_cost(cost, source, target, step_weight):  # type: ignore[no-untyped-def]
    return 0.0
