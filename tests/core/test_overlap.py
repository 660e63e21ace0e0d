"""A few items at once, in order, and no more taken than are worked on."""

import threading

import pytest

from tomoseg.core.overlap import overlapped


def test_items_are_worked_on_at_once_and_come_in_order():
    both = threading.Barrier(2, timeout=20)

    def work(item):
        if item < 2:
            both.wait()  # passes only if two are in work
        return -item

    assert list(overlapped(work, range(9), threads=2)) == [-i for i in range(9)]


def test_no_more_items_are_taken_than_threads_and_one():
    taken = []
    items = (taken.append(i) or i for i in range(50))
    results = overlapped(lambda item: item, items, threads=3)
    assert next(results) == 0
    assert taken == [0, 1, 2, 3]


def test_the_first_error_ends_it():
    begun = []

    def work(item):
        begun.append(item)
        return 1 // (item - 4)

    with pytest.raises(ZeroDivisionError):
        list(overlapped(work, range(50), threads=2))
    assert 4 in begun and max(begun) <= 7
