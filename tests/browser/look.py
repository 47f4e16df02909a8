"""Open a page in headless Chromium as phones and desktops show it, light and dark, and keep what is to be seen.

    python tests/browser/look.py REPORT.html -o DIR

Writes a screenshot of the whole page for each of them into DIR. Exit code 1 where the console says anything, the
page asks for anything outside of itself, or is wider than the window; 2 where there is no browser.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

# As a script and as a module of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from browser.chromium import Page, find, opened

WINDOWS = {"phone": (390, 844), "desktop": (1280, 900)}
SCHEMES = ("light", "dark")
NO_BROWSER = 2
SHOWN = "[...document.images].filter(i => !i.closest('dialog'))"
DECODED = f"Promise.all({SHOWN}.map(i => i.decode().then(() => 1, () => 0)))"
UNNAMED = f"{SHOWN}.filter(i => !i.alt).length"
UNFOLD = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"


@dataclass(frozen=True)
class View:
    """A page in one window.

    Args:
        name: of the window and its colors, for example "phone-dark".
        picture: screenshot of the whole page.
        faults: in words; empty where all is well.
    """

    name: str
    picture: Path
    faults: tuple[str, ...]


def look(browser: str, path: Path, folder: Path) -> list[View]:
    """Open a page in every window and both color schemes.

    Args:
        browser: program, see ``find``.
        path: the page.
        folder: gets the screenshots; made where it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    views = []
    with opened(browser) as page:
        for window, (width, height) in WINDOWS.items():
            for scheme in SCHEMES:
                page.complaints.clear()
                page.requests.clear()
                page.show(path.resolve().as_uri(), width, height, scheme == "dark", window == "phone")
                page.evaluate(UNFOLD)
                faults = tuple(_faults(page))
                picture = folder / f"{window}-{scheme}.png"
                page.screenshot(picture)
                views.append(View(picture.stem, picture, faults))
    return views


def _faults(page: Page) -> list[str]:
    broken = page.evaluate(DECODED).count(0)
    unnamed = page.evaluate(UNNAMED)
    content, window = page.evaluate(WIDTHS)
    outside = [url for url in page.requests if not url.startswith(("file:", "data:"))]
    faults = [*page.complaints, *(f"asks for {url}" for url in outside)]
    if broken:
        faults.append(f"{broken} pictures cannot be shown")
    if unnamed:
        faults.append(f"{unnamed} pictures have no text alternative")
    if content > window:
        faults.append(f"{content} pixels wide in a window of {window}")
    return faults


def main() -> int:
    """Look at one page; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    browser = find()
    if browser is None:
        print("No Chromium or Chrome in PATH; CHROMIUM may name one.", file=sys.stderr)
        return NO_BROWSER
    views = look(browser, options.page, options.output)
    for view in views:
        print(f"{view.picture}: {'; '.join(view.faults) or 'well'}")
    return int(any(view.faults for view in views))


if __name__ == "__main__":
    sys.exit(main())
