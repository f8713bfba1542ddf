"""Further names of a class, which take its arguments in another order."""

import inspect
from typing import Any, ClassVar

from .checks import ignore_device_type

__all__ = ["Variant"]


class Variant(type):
    """Metaclass of a name under which ART has a variant of a defence for one framework.

    Calling the name makes an object of its base, the one class that serves every framework: its `repr`, its
    pickles and its parameters are those of the one class, and so is every question of `isinstance`. A class
    that is derived from the name is derived from the one class.

    It takes a class because ART's variants have arguments in another order, or other defaults, which an alias
    could not have, and because a function could not stand in `isinstance`.
    """

    positional: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[dict[str, Any]] = {}

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
        """A name or, if a base is one already, an ordinary class."""
        if any(isinstance(base, Variant) for base in bases):
            bases = tuple(base.__base__ if isinstance(base, Variant) else base for base in bases)  # type: ignore[misc]
            return type(name, bases, namespace)
        return super().__new__(mcs, name, bases, namespace)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """An object of the one class."""
        given = cls.__signature__.bind(*args, **kwargs).arguments
        ignore_device_type(given.pop("device_type", None))
        return cls.__base__(**{**cls.defaults, **given})  # type: ignore[misc]

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__base__)  # type: ignore[arg-type]

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.__base__)  # type: ignore[arg-type]

    @property
    def __signature__(cls) -> inspect.Signature:
        """ART's positional arguments, then everything else that the one class takes."""
        device = inspect.Parameter("device_type", inspect.Parameter.KEYWORD_ONLY, default="gpu")
        known = {**inspect.signature(cls.__base__).parameters, "device_type": device}  # type: ignore[arg-type]
        for name, default in cls.defaults.items():
            known[name] = known[name].replace(default=default)
        first = [known.pop(name).replace(kind=device.POSITIONAL_OR_KEYWORD) for name in cls.positional]
        return inspect.Signature([*first, *(p.replace(kind=device.KEYWORD_ONLY) for p in known.values())])
