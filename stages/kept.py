"""What a stage that stays up keeps from one unit to the next: warm simulators, connected ranks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Thing:
    made_for: object
    value: Any
    stack: ExitStack


class Kept:
    """Things by name, opened when they are first needed and closed at the end, the last one first."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._things: dict[str, _Thing] = {}

    def take(
        self,
        name: str,
        made_for: object,
        make: Callable[[], AbstractContextManager[T]],
        good: Callable[[T], bool] = lambda value: True,
    ) -> T:
        """Get a thing as it was kept, or a new one.

        Args:
            name: of the thing; there is one of a name at a time.
            made_for: what it depends on; one that was made for something else is closed and made anew.
            make: opens a new one.
            good: whether a kept one can still be used.

        Returns:
            The thing, which stays open when the caller is done with it.
        """
        kept = self._things.get(name)
        if kept is not None and kept.made_for == made_for and good(kept.value):
            return kept.value
        if kept is not None:
            self._things.pop(name).stack.close()
        stack = ExitStack()
        value = stack.enter_context(make())
        self._things[name] = _Thing(made_for, value, stack)
        return value

    def close(self) -> None:
        """Close everything."""
        with ExitStack() as all_:
            for thing in self._things.values():
                all_.push(thing.stack)
            self._things.clear()

    def __enter__(self) -> Kept:
        """Use it in a `with` block, which closes everything."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything; what goes wrong then must not hide the exception that led here."""
        with contextlib.suppress(Exception) if kind is not None else contextlib.nullcontext():
            self.close()
