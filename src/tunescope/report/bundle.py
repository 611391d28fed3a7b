"""The chart library (Vega, Vega-Lite, Vega-Embed) as one script: bundled by vl-convert once per version, then read from a cache."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from importlib import metadata
from pathlib import Path

END = "\n/* whole */\n"  # by which a file cut short is known


@functools.cache
def script() -> str:
    """The script, safe inside <script>. Bundling takes seconds, so it is kept in the user's cache folder; where none can be written, it
    is made anew."""
    path = _cache() / f"vega-{metadata.version('vl-convert-python')}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if (kept := path.read_text(encoding="utf-8")).endswith(END):
            return kept
    import vl_convert

    made = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script").replace("<!--", "<\\!--") + END
    with contextlib.suppress(OSError):
        _put(path, made)
    return made


def _cache() -> Path:
    """Where nobody's home is known, a place in which nothing can be made."""
    home = os.path.expanduser("~/.cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or (os.devnull if home.startswith("~") else home), "tunescope")


def _put(path: Path, text: str) -> None:
    """Whole or not at all: other processes may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)
