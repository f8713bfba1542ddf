"""Locks that all models share."""

import os
from threading import Lock, RLock

__all__ = ["LOCKS"]


class _Locks:
    """Renewed in a forked process, where whoever held them does not live on."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        # One forward pass at a time turns the flags of torch modules. Its thread may enter again: a model may
        # hold a defence that asks a generator, or makes maps.
        self.flags = RLock()
        self.compiling = Lock()


LOCKS = _Locks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LOCKS.renew)
