"""Before rendering: run what is stale of the active profile's run, and lay out the chart library."""

import importlib.metadata
import sys

from token_geometry.__main__ import main
from token_geometry.base import project
from token_geometry.chapters.charts import BUNDLE


def write_bundle() -> None:
    """Write the JavaScript that draws the charts, unless this vl-convert has: that takes seconds."""
    import vl_convert

    made_by = f"/* vl-convert-python {importlib.metadata.version('vl-convert-python')} */\n"
    target = project.root() / BUNDLE
    if not target.is_file() or not target.read_text(encoding="utf-8").startswith(made_by):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.write_text(made_by + vl_convert.javascript_bundle(), encoding="utf-8")
        partial.replace(target)


if __name__ == "__main__":
    write_bundle()
    sys.exit(main(["run"]))
