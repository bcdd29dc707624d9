"""The one library that the page carries: Vega, for traces that can be brushed.

Bundled from PyPI's vl-convert-python, so that the same versions give the same bytes: 0.9 MB, 0.4 MB
as it is embedded (gzip, base64). Plotly's script from PyPI takes 4.5 MB, 1.8 MB embedded.
"""

from __future__ import annotations

import base64
import functools
import gzip

#: What the bundle leaves on `window`; Vega-Lite and Vega are inside vega-embed.
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


@functools.cache
def vega_script() -> str:
    """vega-embed with all that it needs, as one script."""
    import vl_convert

    return str(vl_convert.javascript_bundle(_SNIPPET))


@functools.cache
def packed_vega() -> str:
    """The script as the page carries it."""
    return packed(vega_script())


def packed(text: str) -> str:
    """gzip and base64: what the page unpacks with DecompressionStream."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
