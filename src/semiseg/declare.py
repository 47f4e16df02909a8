"""Declarations of settings: each is said once, by its record or constructor; nothing here imports torch.

A declaration holds the name, the type, the range (``Annotated[float, Ge(0)]``), the default, what the setting affects
(``Mark``) and one line of text: the docstring below a field, or the entry under ``Args:`` of a constructor.
``declared`` reads all of that; the config's check, ``--help``, the comparison of runs and reports ask it.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import math
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform

from annotated_types import Ge, Gt, Le, Len, Lt

from semiseg.errors import UserError, raise_all

__all__ = [
    "Ge",
    "Gt",
    "Le",
    "Len",
    "Lt",
    "Mark",
    "Setting",
    "accepts",
    "as_node",
    "check_fields",
    "checked",
    "choices",
    "declared",
    "described",
    "faults_of",
    "fits",
    "open_ended",
    "record",
    "record_of",
    "split_shared",
]

Affects = Literal["nothing", "machine", "data", "training", "result"]
Role = Literal[
    "label",
    "repetition",
    "length",
    "file",
    "run",
    "place",
    "identity",
    "network",
    "of method",
    "extra",
    "tuning",
]
SHARED = "shared_settings"
"""Attribute of a class that names a record: keys that its config node may have too, which are not arguments of its
constructor. Whoever builds the class takes them apart with ``split_shared``."""

Record = TypeVar("Record", bound=type)
Found = TypeVar("Found", bound=Callable[..., Any])
NAMES: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    None: "null",
}
PLAIN = (int, float, str, bool, list, tuple, type(None))


@dataclasses.dataclass(frozen=True)
class Mark:
    """What a setting affects, which decides when runs may be resumed, averaged and compared.

    Args:
        affects: "nothing" (a run may be resumed with another value), "machine" (where it runs: fixed for a run, free
            between runs that are compared), "data" (which images and labels), "training", or "result" (how networks
            are measured). ``None`` takes what the config group affects.
        role: further property of the value. "label": name of an option, which says nothing that its values do not.
            "repetition": repeated runs of one experiment differ in it. "length": length of a fit, compared by the
            iterations that were done. "file": file of weights, compared by its name. "run": another run, which belongs
            to one repetition. "place": folder of data. "identity": name or place of the run itself. "network": group
            of settings that make up the network. "of method": setting that a method brings along, in which it may
            differ from its baseline. "extra": further measurements, which change no other score. "tuning": way in which
            a network is trained, which those of other runs that this one begins with may differ in.
        same_as: name that other methods have for the same setting of their first fit.
        expected: type and range in words, where those made from the annotation are clumsy.
        first_fit: whether it is a setting of the fit that other runs may reuse, which may differ with a word about it.
    """

    affects: Affects | None = None
    role: Role | None = None
    same_as: str | None = None
    expected: str | None = None
    first_fit: bool = False


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting as its declaration says it.

    Args:
        name: name of the argument.
        hint: annotated type.
        default: value where none is given; ``inspect.Parameter.empty`` where one has to be given.
        text: one line of explanation.
        mark: what it affects.
    """

    name: str
    hint: Any
    default: Any
    text: str
    mark: Mark

    @property
    def required(self) -> bool:
        """Whether a value has to be given."""
        return self.default is inspect.Parameter.empty

    @property
    def expected(self) -> str:
        """Type and range in words."""
        return described(self.hint)


@functools.cache
def declared(target: Callable[..., Any]) -> Mapping[str, Setting]:
    """Return the settings of a record, a class or a function, in the order of its arguments; shared ones come last.

    Raises:
        ValueError: a builtin without a signature.
    """
    own = _own_settings(target)
    shared = getattr(target, SHARED, None)
    # A constructor that has an argument of the same name keeps it.
    if shared is None:
        return own
    more = {name: setting for name, setting in declared(shared).items() if name not in own}
    return types.MappingProxyType({**own, **more})


@functools.cache
def _own_settings(target: Callable[..., Any]) -> Mapping[str, Setting]:
    hints, texts, factories = _hints(target), _texts(target), _factories(target)
    found = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        if name in factories:
            default = factories[name]()
        hint = hints.get(name, Any)
        found[name] = Setting(name, hint, default, texts.get(name, ""), _mark(hint) or Mark())
    return types.MappingProxyType(found)


def split_shared(
    target: Callable[..., Any], values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide the values of a config node into arguments of its class and settings that classes of its kind share."""
    shared = declared(target).keys() - _own_settings(target).keys()
    own = {name: value for name, value in values.items() if name not in shared}
    return own, {name: value for name, value in values.items() if name in shared}


def as_node(value: Any, hint: Any) -> Any:
    """Return the value of a setting that is a record as a config node, which names its class; others as they are.

    Args:
        value: record, or plain values by name as a config gives them.
        hint: annotated type of the setting.
    """
    kind = record_of(hint)
    if kind is None:
        return value
    target = {"_target_": f"{kind.__module__}.{kind.__qualname__}"}
    if isinstance(value, kind):
        return target | {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return target | dict(value) if isinstance(value, Mapping) and "_target_" not in value else value


def record_of(hint: Any) -> type[Any] | None:
    """Return the record that an annotated type is; ``None`` for any other type."""
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return inner if inspect.isclass(inner) and dataclasses.is_dataclass(inner) else None


def accepts(target: Callable[..., Any], name: str) -> bool:
    """Whether a class or function takes an argument of this name."""
    return name in declared(target) or open_ended(target)


def open_ended(target: Callable[..., Any]) -> bool:
    """Whether a class or function takes arguments of any name."""
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(target).parameters.values())


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: Record) -> Record:
    """Make a class a frozen record of settings that checks types and ranges of all its fields at once.

    A record may have ``conflicts()``, which yields a ``UserError`` for each combination of values that are right by
    themselves and wrong together.

    Raises:
        UserError: of the record's constructor; a value is of another type or out of range, or values conflict.
    """

    def __post_init__(self: Any) -> None:  # noqa: N807 - the name that dataclasses call
        check_fields(self)
        if hasattr(self, "conflicts"):
            raise_all(self.conflicts())

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    made: Record = dataclasses.dataclass(frozen=True, kw_only=True)(cls)  # type: ignore[assignment]
    return made


def checked(init: Found) -> Found:
    """Let a constructor refuse all arguments of another type or out of range at once.

    Raises:
        UserError: of the constructor; an argument does not fit its annotation.
    """

    @functools.wraps(init)
    def checking(self: Any, *arguments: Any, **named: Any) -> None:
        bound = inspect.signature(init).bind(self, *arguments, **named).arguments
        raise_all(faults_of(init, dict(list(bound.items())[1:])))
        init(self, *arguments, **named)

    return checking  # type: ignore[return-value]


def check_fields(made: Any) -> None:
    """Refuse all fields of a dataclass that are of another type or out of range, for its ``__post_init__``.

    Raises:
        UserError: a field does not fit its annotation.
    """
    raise_all(
        faults_of(type(made), {each.name: getattr(made, each.name) for each in dataclasses.fields(made)})
    )


def faults_of(target: Callable[..., Any], values: Mapping[str, Any]) -> Iterator[UserError]:
    """Find the values that are of another type than declared, or out of range.

    Args:
        target: record, class or function.
        values: arguments by name; names that the target does not declare are left out.
    """
    known = declared(target)
    for name, value in values.items():
        if name in known and not fits(value, known[name].hint):
            yield UserError(f"expected {known[name].expected}.", key=name, value=value)


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of an annotated type and in its range; types that a config cannot express pass."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return fits(value, arguments[0]) and all(_within(value, bound) for bound in arguments[1:])
    if isinstance(value, dict) and "_target_" in value:
        return hint not in (int, float, bool, str)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)  # true is no 1
    if hint in (int, float):
        number = isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
        return number and abs(value) < math.inf
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint in (None, type(None)):
        return value is None
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(item, arguments[1]) for item in value.values())
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        return isinstance(value, list | tuple) and _items_fit(value, origin, arguments)
    own_class = inspect.isclass(hint) and hint.__module__.startswith("semiseg.")
    return not (own_class and isinstance(value, PLAIN))


def described(hint: Any) -> str:
    """An annotated type and its range in words, such as "a number, 0 or more"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        if (mark := _own_mark(hint)) and mark.expected:
            return mark.expected
        bounds = _bounds(arguments[1:])
        return described(arguments[0]) + (f" {bounds}" if bounds else "")
    if hint in NAMES:
        return NAMES[hint]
    if origin in (Union, types.UnionType):
        return " or ".join(described(each) for each in arguments)
    if origin is Literal:
        return "one of: " + ", ".join(map(str, arguments))
    if inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
        inner = [described(each) for each in arguments if each is not Ellipsis]
        return f"a list [{', '.join(dict.fromkeys(inner))}, ...]" if inner else "a list"
    if hint is Any:
        return "any value"
    if inspect.isclass(hint):
        return f"a node whose _target_ gives a {hint.__name__}"
    return str(hint)


def choices(hint: Any) -> tuple[str, ...]:
    """Names that a setting may have; empty where it is no choice of names."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return tuple(each for each in arguments if isinstance(each, str))
    inner = arguments[:1] if origin is Annotated else arguments if origin in (Union, types.UnionType) else ()
    return tuple(name for each in inner for name in choices(each))


def _own_mark(hint: Any) -> Mark | None:
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Mark)), None)


def _mark(hint: Any) -> Mark | None:
    """The mark of an annotated type; where it has none, that of one of the types that it joins."""
    joined = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else ()
    return _own_mark(hint) or next((mark for each in joined if (mark := _mark(each))), None)


def _within(value: Any, bound: Any) -> bool:
    """Whether a value is inside of a bound; of a list, each number, or its length."""
    if isinstance(bound, Len):
        return bound.min_length <= len(value) <= (bound.max_length or len(value))
    if isinstance(value, list | tuple):
        return all(_within(each, bound) for each in value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    if isinstance(bound, Ge):
        return bool(value >= bound.ge)  # type: ignore[operator]
    if isinstance(bound, Gt):
        return bool(value > bound.gt)  # type: ignore[operator]
    if isinstance(bound, Le):
        return bool(value <= bound.le)  # type: ignore[operator]
    if isinstance(bound, Lt):
        return bool(value < bound.lt)  # type: ignore[operator]
    return True


def _bounds(metadata: Iterable[Any]) -> str:
    """Range in words: "of 0 or more", "above 0 and at most 1"."""
    words = []
    for bound in metadata:
        if isinstance(bound, Len):
            words.append(_lengths(bound))
        elif isinstance(bound, Ge):
            words.append(f"of at least {bound.ge}")
        elif isinstance(bound, Gt):
            words.append(f"above {bound.gt}")
        elif isinstance(bound, Le):
            words.append(f"at most {bound.le}")
        elif isinstance(bound, Lt) and bound.lt != math.inf:
            words.append(f"below {bound.lt}")
    return " and ".join(words)


def _lengths(bound: Len) -> str:
    if bound.max_length is None:
        return f"of {bound.min_length} or more"
    return f"of {bound.min_length}" + (
        f" to {bound.max_length}" if bound.max_length > bound.min_length else ""
    )


def _items_fit(value: list[Any] | tuple[Any, ...], origin: type, arguments: tuple[Any, ...]) -> bool:
    if issubclass(origin, tuple) and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    return not arguments or all(fits(item, arguments[0]) for item in value)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        found = target.__init__ if inspect.isclass(target) else target
        return typing.get_type_hints(found, include_extras=True)
    except Exception:  # annotations of other packages need not resolve
        return {}


def _factories(target: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """Functions that make the default values of a record's fields."""
    fields = dataclasses.fields(target) if dataclasses.is_dataclass(target) else ()
    made = {each.name: each.default_factory for each in fields}
    return {name: factory for name, factory in made.items() if callable(factory)}


def _texts(target: Callable[..., Any]) -> dict[str, str]:
    """Explanations of arguments: the entries under ``Args:`` and the docstrings below fields, of bases too.

    So a class need not repeat what it passes on to its base.
    """
    if not inspect.isclass(target):
        return _argument_texts(inspect.getdoc(target) or "")
    texts: dict[str, str] = {}
    for cls in reversed(inspect.getmro(target)):
        texts |= _argument_texts(inspect.cleandoc(cls.__doc__ or ""))
        if dataclasses.is_dataclass(cls):
            texts |= _field_texts(cls)
    return texts


def _field_texts(cls: type) -> dict[str, str]:
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    except (OSError, TypeError):  # defined without a file
        return {}
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            value = text.value if isinstance(text, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[field.target.id] = " ".join(value.value.split())
    return found


def _argument_texts(docstring: str) -> dict[str, str]:
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
