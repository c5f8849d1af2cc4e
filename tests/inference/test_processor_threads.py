"""Parallel processing of items, with results in order."""

import multiprocessing
import threading
import time

import pytest
import torch

from lib.inference.processor_threads import parallel_map


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_have_the_order_of_the_items():
    def slower_for_the_first(item):
        time.sleep(0.01 * (10 - item))
        return item * item

    assert list(parallel_map(slower_for_the_first, range(10))) == [n * n for n in range(10)]


def test_as_many_items_are_processed_at_once_as_pytorch_has_threads():
    together = threading.Barrier(3, timeout=30)

    list(parallel_map(lambda item: together.wait(), range(6)))


def test_each_item_has_one_thread_and_other_threads_keep_their_number():
    found = list(parallel_map(lambda item: torch.get_num_threads(), range(6)))

    of_others = []
    other = threading.Thread(target=lambda: of_others.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert set(found) == {1}
    assert torch.get_num_threads() == 3 and of_others == [3]


def test_number_of_waiting_results_is_limited():
    begun = []
    results = parallel_map(begun.append, range(100))

    next(results)
    time.sleep(0.2)

    assert len(begun) <= 4 + 1


def test_error_of_an_item_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(parallel_map(lambda item: 1 // item, [2, 1, 0, 1]))
    assert list(parallel_map(lambda item: item, [1])) == [1]


def work(queue):
    queue.put(list(parallel_map(lambda item: item + 1, range(3))))


def test_forked_process_has_threads_of_its_own():
    list(parallel_map(lambda item: item, range(3)))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=work, args=(queue,), daemon=True)
    child.start()

    assert queue.get(timeout=30) == [1, 2, 3]
