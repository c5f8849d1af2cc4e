"""Process items in parallel threads, each with one core."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results in the order of the items, from as many threads as PyTorch has.

    Each of them runs PyTorch with one thread. This is faster than several threads for each convolution, which wait for
    each other after each convolution, in particular on busy machines.
    """
    threads = torch.get_num_threads()
    pool = _pool(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:  # limits the results in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="windows")
    all_there = Barrier(threads)

    def use_one_thread() -> None:
        torch.get_num_threads()  # initialises the thread, which would otherwise reset the number at its first use
        all_there.wait()
        torch.set_num_threads(1)

    for started in [pool.submit(use_one_thread) for _ in range(threads)]:
        started.result()
    # `set_num_threads` is for the calling thread and for all threads that are started later.
    torch.set_num_threads(threads)
    return pool


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has no copy of the threads
