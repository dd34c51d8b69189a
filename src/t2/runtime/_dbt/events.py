"""What dbt logs while a node runs: dozens of events that nobody is shown, a sixth of a small model's time.

dbt makes a message of each event, and one more when it is fired. Here an event for debugging becomes a
message when somebody looks at it, and one that nobody listens to is not fired.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dbt_common.events.base_types import BaseEvent, EventLevel
from dbt_common.events.event_manager import EventManager

QUIET_LEVELS = (EventLevel.DEBUG, EventLevel.TEST)

_make, _get, _set = BaseEvent.__init__, BaseEvent.__getattr__, BaseEvent.__setattr__


def make_debug_events_lazily() -> None:
    """Have events for debugging keep what they are made of until somebody looks at them."""
    BaseEvent.__init__ = _make_lazily
    BaseEvent.__getattr__ = _get_lazily
    BaseEvent.__setattr__ = _set_lazily


def fire_loud_events_only(manager: EventManager, listener: Callable[[Any], None]) -> None:
    """Have a manager drop events of `QUIET_LEVELS` while a listener, which ignores them, is the only one."""
    manager.fire_event = partial(_fire, manager, listener)


def _make_lazily(self: BaseEvent, *args: Any, **values: Any) -> None:
    if self.level_tag() is EventLevel.DEBUG:
        self.__dict__["made_of"] = (args, values)
    else:
        _make(self, *args, **values)


def _make_now(self: BaseEvent) -> None:
    if "made_of" in self.__dict__:
        args, values = self.__dict__.pop("made_of")
        _make(self, *args, **values)


def _get_lazily(self: BaseEvent, key: str) -> Any:
    if "made_of" not in self.__dict__:
        return _get(self, key)
    _make_now(self)
    return getattr(self, key)


def _set_lazily(self: BaseEvent, key: str, value: Any) -> None:
    _make_now(self)
    _set(self, key, value)


def _fire(
    manager: EventManager,
    listener: Callable[[Any], None],
    event: BaseEvent,
    level: EventLevel | None = None,
    **more: Any,
) -> None:
    quiet = (level or event.level_tag()) in QUIET_LEVELS and not more.get("force_warn_or_error_handling")
    if not quiet or manager.loggers or listener not in manager.callbacks:
        EventManager.fire_event(manager, event, level=level, **more)
