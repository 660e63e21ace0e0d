"""Items of which a few are in work at once, in threads, so that waiting for one is not idle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def overlapped(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Iterator[Result]:
    """Yield what some work makes of each item, in order.

    Of the items that are not done, as many are taken as there are threads and one more. The first
    error ends it; what is in work then is finished, what is not begun is left. Context variables
    are seen as where the items are taken.

    Examples
    --------
    >>> list(overlapped(abs, [3, -1, -2], threads=2))
    [3, 1, 2]
    """
    flight: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="overlapped")
    try:
        for item in items:
            flight.append(pool.submit(copy_context().run, work, item))
            if len(flight) > threads:
                yield flight.popleft().result()
        while flight:
            yield flight.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
