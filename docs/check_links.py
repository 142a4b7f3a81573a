"""Check a built site: every local link and anchor leads somewhere, and no page loads anything from elsewhere.

python docs/check_links.py docs/_build/html
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes by which a browser fetches something at once.
FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
# Links that name a page elsewhere and fetch nothing.
RELATIONS = {"canonical", "index", "next", "prev", "search"}


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it fetches."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of one tag."""
        values = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := values.get(name)))
        for name in ("href", "src"):
            if value := values.get(name):
                self.links.append(value)
                if (tag, name) in FETCHED and not RELATIONS & set((values.get("rel") or "").split()):
                    self.fetched.append(value)


def problems(site: Path) -> list[str]:
    """One line for each link that leads nowhere and each thing that would come from elsewhere."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    found: list[str] = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        outside = [url for url in page.fetched if urlsplit(url).scheme in {"http", "https"} or url.startswith("//")]
        found += [f"{name}: fetches {url}" for url in outside]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{name}: {link} must be a file of the site")
            # A client-side page, such as the search, makes anchors of its own.
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{name}: {link} must name an anchor of {target.name}")
    return found


def main() -> int:
    site = Path(sys.argv[1])
    if not (site / "index.html").is_file():
        print(f"{site} must be a built site, got no index.html there; run make site")
        return 2
    found = problems(site)
    print(
        "\n".join(found) or "every link and anchor of the site leads somewhere, and nothing is fetched from elsewhere"
    )
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
