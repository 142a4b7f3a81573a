"""The rooms of the site: pages that no room names go into the how-tos, and links that leave `docs/` find their page."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ANY_OTHER_PAGE = "(any other page)"
# Files of the repository's root that are pages of the site too.
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def _arrange(app: Sphinx, docname: str, source: list[str]) -> None:
    text = source[0]
    if ANY_OTHER_PAGE in text:
        pages = {path.stem for path in Path(app.srcdir).glob("*.md")}
        named = set(re.findall(r"^(?:.*<)?([\w/-]+)>?$", text, re.MULTILINE)) | {docname}
        text = text.replace(ANY_OTHER_PAGE, "\n".join(sorted(pages - named)))
    up = "../" * docname.count("/")
    for file, page in ROOT_PAGES.items():
        text = text.replace(f"]({up}../{file}", f"]({up}{page}")
    text = re.sub(r"\]\((?:\.\./)+examples/gallery\)", f"]({up}gallery/index.rst)", text)
    source[0] = re.sub(r"\]\((?:\.\./)+examples/gallery/(\w+)\.py", rf"]({up}gallery/\1.rst", text)


def _read_rooms_again(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Read the rooms again when a page comes or goes: they hold the names of the others."""
    return ["index"] if (added or removed) and "index" not in added else []


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _arrange)
    app.connect("env-get-outdated", _read_rooms_again)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
