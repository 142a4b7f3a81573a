"""The code that a reader is shown runs: docstrings, README, docs pages and the example scripts."""

from __future__ import annotations

import builtins
import doctest
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer
from nbclient import NotebookClient
from places import OMNIGLOT, ROOT

import aidotnet_py
from aidotnet_py import autodiff
from aidotnet_py.autodiff.tracing.tracer import numpy_functions
from aidotnet_py.cli.app import app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.docs


def blocks(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, with the lines that they start at."""
    text = page.read_text(encoding="utf-8")
    return [(text[: match.start(1)].count("\n"), match.group(1)) for match in BLOCK.finditer(text)]


PRINT = re.compile(r"^\s*print\(.*\)  # (.*)$")


def claims(block: str) -> dict[int, str]:
    """What a block says that its lines print: the comments behind calls of print, by line."""
    lines = enumerate(block.splitlines(), start=1)
    return {number: match.group(1) for number, line in lines if (match := PRINT.match(line)) is not None}


class Printing:
    """The `print` of a block, which remembers what each line printed last."""

    def __init__(self) -> None:
        self.printed: defaultdict[int, str] = defaultdict(str)

    def __call__(self, *values: Any, **options: Any) -> None:
        builtins.print(*values, **options)
        self.printed[sys._getframe(1).f_lineno] = str(options.get("sep", " ")).join(map(str, values))


def is_printed(claim: str, text: str) -> bool:
    """Whether the text is the one claimed; … stands for anything, and how blanks are laid out does not count."""
    wanted, came = (re.sub(r"(?<=\[) | (?=\])", "", " ".join(one.split())) for one in (claim, text))
    return re.fullmatch(".*".join(re.escape(part) for part in wanted.split("…")), came) is not None


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # As in a session there: blocks import modules that earlier blocks wrote.
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for line, block in blocks(page):
        if ">>>" in block:
            # With prompts, what a reader is shown as printed is checked too.
            session = doctest.DocTestParser().get_doctest(block, names, page.name, str(page), line)
            doctest.DebugRunner().run(session, clear_globs=False)
            names.update(session.globs)
        else:
            names["print"] = printing = Printing()
            exec(compile("\n" * line + block, str(page), "exec"), names)
            for number, claim in claims(block).items():
                assert is_printed(claim, printing.printed[line + number]), (line + number, claim)


SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def command_lines(page: Path) -> list[str]:
    """The commands that a page shows, in blocks for a shell and in running text."""
    text = page.read_text(encoding="utf-8")
    in_text = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [*(line for block in SHELL.findall(text) for line in block.splitlines()), *in_text]
    return [part.strip() for line in lines for part in re.split(r"&&|\||\s#", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_of_a_page_can_be_typed(page: Path) -> None:
    """`aidotnet-py` takes each command's arguments, which are not run; scripts have the options that they are given."""
    main = typer.main.get_command(app)
    for line in command_lines(page):
        if re.match(r"aidotnet-py [a-z]", line):
            words = shlex.split(line)[1:]
            with main.make_context("aidotnet-py", words, resilient_parsing=True) as context:
                _, command, rest = main.resolve_command(context, words)
                # A command that is only named needs no arguments.
                command.make_context(line, rest, resilient_parsing=not rest)
        elif script := re.search(r"python (?:-m (benchmarks)\.(\w+)|(examples)/(\w+)\.py)(.*)", line):
            folder, name = script[1] or script[3], script[2] or script[4]
            source = (ROOT / folder / f"{name}.py").read_text(encoding="utf-8")
            assert [option for option in re.findall(r"--[\w-]+", script[5]) if f'"{option}"' not in source] == [], line


def test_values_in_comments_are_compared() -> None:
    block = "print(1 + 1)  # 2\nx = 3  # not printed\nprint('a b', [1.])  # a … [ 1.0]\n"
    assert claims(block) == {1: "2", 3: "a … [ 1.0]"}
    printing = Printing()
    exec(block, {"print": printing})
    assert is_printed("2", printing.printed[1])
    assert not is_printed("3", printing.printed[1])
    assert is_printed("a … [ 1.0]", printing.printed[3])


def test_pages_claim_values() -> None:
    assert sum(len(claims(block)) for page in PAGES for _, block in blocks(page)) >= 20


def test_the_readme_has_code() -> None:
    assert blocks(ROOT / "README.md")


@pytest.mark.parametrize(
    ("script", "arguments", "printed"),
    [
        ("digits.py", ["--steps", "3", "--tasks", "5"], "iMAML, after adaptation"),
        ("sinusoid.py", ["--steps", "3", "--tasks", "5"], "iMAML, after adaptation"),
        ("fertility.py", ["--steps", "3"], "births per woman, 39 countries that were not trained on"),
        ("photographs.py", ["--steps", "2", "--tasks", "3"], "5-shot  nearest mean of a pooled network"),
        ("from_scratch.py", ["--steps", "3"], "epoch    2   loss after adaptation"),
        ("gallery.py", ["--steps", "8", "--folder", "."], "training-light.png and training-dark.png"),
        ("resnet.py", ["--steps", "3", "--size", "32", "--images", "2", "--batches", "2"], "MAML, 3 inner steps"),
        pytest.param(
            "torch_backend.py",
            ["--steps", "2"],
            "an adapted model predicts a Tensor",
            marks=pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed"),
        ),
        pytest.param(
            "omniglot.py",
            [str(OMNIGLOT), "--steps", "2", "--tasks", "5", "--filters", "8"],
            "iMAML, after adaptation",
            marks=pytest.mark.skipif(not OMNIGLOT.exists(), reason="no Omniglot archive beside the checkout"),
        ),
    ],
)
def test_an_example_runs(script: str, arguments: list[str], printed: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
    # Bars that draw themselves anew are for terminals alone.
    assert "\r" not in done.stdout + done.stderr


# What ipykernel says of itself when it ends is beside the point.
_STRICT = "import warnings\nwarnings.simplefilter('error')\nwarnings.simplefilter('ignore', PendingDeprecationWarning)"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_top_to_bottom(path: Path, tmp_path: Path) -> None:
    """Each cell runs without a warning, and each figure at the end of a cell shows."""
    kept = nbformat.read(path, as_version=4)
    assert all(not cell.outputs for cell in kept.cells if cell.cell_type == "code"), "kept without outputs"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_STRICT))
    with warnings.catch_warnings():
        # Of Jupyter's own libraries.
        warnings.simplefilter("ignore")
        done = NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    figures = [cell for cell in code if cell.source.splitlines()[-1].startswith(("draw_", "run.draw("))]
    assert figures
    for cell in figures:
        assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source
    assert not [o.text for cell in code for o in cell.outputs if o.get("name") == "stderr" and "Warning" in o.text]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_placeholder_is_left(page: Path) -> None:
    assert not re.findall(r"\b[A-Z]{2,}_[A-Z_]+\b", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", prose(page))
    assert [link for link in links if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """The names that a code host gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_headings(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", prose(page))
    targets = [(page.parent / file if file else page, anchor) for file, anchor in links]
    assert [anchor for target, anchor in targets if target.suffix == ".md" and anchor not in anchors(target)] == []


def test_the_check_of_the_site_sees_dead_links(tmp_path: Path) -> None:
    problems = runpy.run_path(str(ROOT / "docs" / "check_links.py"), run_name="imported")["problems"]
    (tmp_path / "index.html").write_text('<h1 id="top"><a href="#top">a</a><a href="other.html#there">b</a></h1>')
    (tmp_path / "other.html").write_text('<p id="there"><a href="https://example.org">elsewhere is not asked</a></p>')
    assert problems(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        '<a href="none.html">a</a><a href="other.html#gone">b</a><script src="https://example.org/x.js"></script>'
    )
    assert problems(tmp_path) == [
        "bad.html: fetches https://example.org/x.js",
        "bad.html: none.html must be a file of the site",
        "bad.html: other.html#gone must name an anchor of other.html",
    ]


def test_the_reference_has_every_public_name() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "extensions" / "api_pages.py"), run_name="imported")
    taken: set[int] = set()
    listed = {name.rsplit(".", 1)[1] for page in pages["PAGES"] for name, _ in pages["names_of"](page, taken)}
    assert set(aidotnet_py.__all__) <= listed
    rooms = [name for name in dir(aidotnet_py) if hasattr(getattr(aidotnet_py, name), "__path__")]
    assert {"autodiff", "data", "solvers"} <= set(rooms)
    public = {name for room in rooms if room != "cli" for name in getattr(getattr(aidotnet_py, room), "__all__", ())}
    assert public <= listed


def test_the_engine_page_lists_what_can_be_traced() -> None:
    text = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    table = text[text.index("### What can be traced") : text.index("## Transform")]
    assert set(re.findall(r"`([a-z0-9_.]+)`", table[: table.index("`aidotnet_py")])) == set(numpy_functions)
    others = {
        name
        for name in autodiff.__all__
        if name not in {"Profile", "ProfileRow", "Program", "grad", "profile", "hvp", "jvp", "vjp", "vmap"}
    }
    transforms = {"hessian", "jacobian", "linearize", "trace", "value_and_grad"}
    assert others - transforms <= set(re.findall(r"`(\w+)`", table))


def test_every_example_is_listed_here() -> None:
    listed = {
        "digits.py",
        "fertility.py",
        "from_scratch.py",
        "gallery.py",
        "omniglot.py",
        "photographs.py",
        "resnet.py",
        "sinusoid.py",
        "torch_backend.py",
    }
    assert {p.name for p in (ROOT / "examples").glob("*.py")} == listed
    for name in listed - (set() if find_spec("torch") else {"torch_backend.py"}):
        # Importing does no work: a reader can take the functions of an example into a notebook.
        runpy.run_path(str(ROOT / "examples" / name), run_name="imported")


def test_docstring_examples_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--doctest-modules", "aidotnet_py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout), done.stdout
