"""HTML from Python values; all text is escaped here and nowhere else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

VOID = frozenset({"img", "source", "meta", "link", "br"})


class Html(str):
    """Text that is HTML already; a plain ``str`` is escaped wherever it goes into an element."""


def element(name: str, /, *children: str | Iterable[str], **attributes: str | int | bool | None) -> Html:
    """Write an element.

    Args:
        name: of the element.
        children: text, which is escaped, elements, or several of them.
        attributes: underscores become hyphens, and one at the end is dropped (``class_``); True writes the
            name alone, None and False nothing.
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    return Html(f"<{opening}>" if name in VOID else f"<{opening}>{joined(*children)}</{name}>")


def joined(*children: str | Iterable[str]) -> Html:
    """Write text, which is escaped, and elements one after the other."""
    return Html(
        "".join(
            joined(*child)
            if not isinstance(child, str)
            else child
            if isinstance(child, Html)
            else escape(child)
            for child in children
        )
    )


@dataclass(frozen=True)
class Entry:
    """A field of a table.

    Args:
        content: text or an element.
        sort: what a sort by its column compares; None sorts by the text.
        style: CSS of this field.
        kind: CSS class.
    """

    content: str
    sort: float | str | None = None
    style: str | None = None
    kind: str | None = None


def table(
    label: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Entry]],
    headings: int = 1,
    kind: str | None = None,
) -> Html:
    """Write a table that a click on a column's name sorts, and that scrolls in its own frame in a narrow window.

    Args:
        label: name of the table for who cannot see it.
        head: names of the columns.
        rows: as many entries each.
        headings: how many entries at the start of a row name it.
        kind: CSS class.
    """
    names = [element("th", element("button", name, type="button"), scope="col") for name in head]
    body = [
        element("tr", (_field(entry, number < headings) for number, entry in enumerate(row))) for row in rows
    ]
    content = element(
        "table",
        element("thead", element("tr", names)),
        element("tbody", body),
        class_=" ".join(filter(None, ("sortable", kind))),
    )
    # Reachable by keyboard, or else what is cut off could not be scrolled to.
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def _field(entry: Entry, heading: bool) -> Html:
    sort = None if entry.sort is None else str(entry.sort)
    shown = {"data_sort": sort, "style": entry.style, "class_": entry.kind}
    if heading:
        return element("th", entry.content, scope="row", **shown)
    return element("td", entry.content, **shown)


def _attribute(key: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
