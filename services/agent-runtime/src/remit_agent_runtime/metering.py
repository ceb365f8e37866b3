"""CPU time of one task among many on a loop: each step of its coroutine is timed by the thread's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, TypeVar

R = TypeVar("R")


class CpuMetered(Coroutine[Any, Any, R]):
    """Wraps a coroutine. `cpu_seconds` grows while its own steps run; steps of tasks that it starts are not in it."""

    def __init__(self, inner: Coroutine[Any, Any, R]) -> None:
        self._inner = inner
        self.cpu_seconds = 0.0

    def send(self, value: Any) -> Any:
        """One step."""
        began = time.thread_time()
        try:
            return self._inner.send(value)
        finally:
            self.cpu_seconds += time.thread_time() - began

    def throw(self, *fault: Any) -> Any:
        """One step, into which an exception is raised."""
        began = time.thread_time()
        try:
            return self._inner.throw(*fault)
        finally:
            self.cpu_seconds += time.thread_time() - began

    def close(self) -> None:
        """End it."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, R]:
        result: R = yield from _steps(self)
        return result


def _steps(metered: CpuMetered[R]) -> Generator[Any, Any, R]:
    step: Callable[[], Any] = partial(metered.send, None)
    while True:
        try:
            yielded = step()
        except StopIteration as ended:
            result: R = ended.value
            return result
        try:
            value = yield yielded
        except BaseException as fault:  # a second one too: the coroutine must hear of every cancellation
            step = partial(metered.throw, fault)
        else:
            step = partial(metered.send, value)
