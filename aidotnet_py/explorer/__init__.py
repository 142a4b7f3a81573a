"""An interactive introduction to iMAML in a browser, computed by this library (the ``explore`` extra).

`surfaces`, `inner_problem`, `meta_gradient`, `race`, `digits` and `strokes` compute and know no browser; `pages` shows
what they return by Bokeh, and `server` serves it to this machine.
"""

from aidotnet_py.explorer.server import serve

__all__ = ["serve"]
