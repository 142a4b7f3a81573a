"""A scraper for sphinx-gallery: figures that `aidotnet_py.plotting` returns, which pyplot does not know of."""

from __future__ import annotations

from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst, matplotlib_scraper


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any], **options: Any) -> str:
    """Save pyplot's figures, or else a `figure` that this block made."""
    if pyplot.get_fignums():
        return str(matplotlib_scraper(block, block_vars, gallery_conf, **options))
    figure = block_vars["example_globals"].pop("figure", None)
    if not isinstance(figure, Figure):
        return ""
    path = next(block_vars["image_path_iterator"])
    figure.savefig(path, dpi=160)
    return str(figure_rst([path], gallery_conf["src_dir"]))
