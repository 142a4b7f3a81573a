"""How long the explorer takes to its first view, and from a drag to its answer: `python -m benchmarks.explorer`.

In Chromium, by playwright, on this machine. A view is there when all of its figures are drawn. An answer counts from
the change of the dragged point in the browser to the change of the numbers there, so it has both ways of the connection
in it, and the waiting behind answers before.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

# What is dragged to where, in data units, for each page.
DRAGS = {"/": ((-1.5, 1.8), (2.0, -1.0)), "/gradient": ((-1.5, 1.8), (2.0, -1.0)), "/race": ((2.6, 3.0), (4.4, 1.0))}
MOVES = 120
WATCH = """() => {
  const watched = window.waits !== undefined;
  window.waits = [];
  if (watched) return;
  const [handle, numbers] = ["handle0", "numbers"].map((name) => Bokeh.documents[0].get_model_by_name(name));
  let since = null;
  handle.properties.data.change.connect(() => { since ??= performance.now(); });
  numbers.properties.text.change.connect(() => {
    if (since !== null) { window.waits.push(performance.now() - since); since = null; }
  });
}"""
PLACE = """([x, y]) => {
  const frame = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name("panel0")).frame;
  return [frame.x_scale.compute(x), frame.y_scale.compute(y)];
}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> list[float]:
    """Drag from one point to another in two seconds, and return the waits for answers in milliseconds."""
    canvas = page.locator("figure").first.locator("canvas").first.bounding_box()
    page.wait_for_timeout(500)
    page.evaluate(WATCH)
    for place, point in enumerate(np.linspace(start, end, MOVES).tolist()):
        across, down = page.evaluate(PLACE, point)
        page.mouse.move(canvas["x"] + across, canvas["y"] + down)
        if place == 0:
            page.mouse.down()
        page.wait_for_timeout(16)
    page.mouse.up()
    page.wait_for_timeout(500)
    return [float(wait) for wait in page.evaluate("window.waits")]


def open_page(browser: Any, address: str) -> tuple[Any, float]:
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    began = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    return page, time.perf_counter() - began


def measure(browser: Any, address: str) -> dict[str, Any]:
    """Open each page twice, and drag in all that have something to drag."""
    views = {path: [open_page(browser, address + path)[1] for _ in range(2)] for path in (*DRAGS, "/digits")}
    drags: dict[str, list[float]] = {}
    for path, (start, end) in DRAGS.items():
        page, _ = open_page(browser, address + path)
        drags[path] = drag(page, start, end)
        if path == "/race":
            page.get_by_role("button", name="Start", exact=True).click()
            page.wait_for_timeout(1000)
            drags["/race, running"] = drag(page, start, end)
    return {"view_s": views, "drag_ms": drags}


@contextmanager
def explorer() -> Generator[tuple[str, float]]:
    """Yield the address of an explorer, and the seconds from the command to it."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "aidotnet_py", "explore", "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found is not None
            yield found.group().rstrip("/"), time.perf_counter() - began
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where all numbers go")
    arguments = parser.parse_args()
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver, explorer() as (address, seconds):
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--disable-gpu", *sandbox])
        figures = {"command_s": seconds, **measure(browser, address)}
        browser.close()
    print(f"command to address: {figures['command_s']:.1f} s")
    for path, (first, next_one) in figures["view_s"].items():
        print(f"{path:16} first view {first:.1f} s, the next {next_one:.1f} s")
    for path, waits in figures["drag_ms"].items():
        median, most = np.percentile(waits, [50, 95])
        print(f"{path:16} {len(waits)} answers to a drag: median {median:.0f} ms, 95 % within {most:.0f} ms")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
