"""Before rendering: run what is stale of the active profile's run, and lay out the chart library."""

import sys

from token_geometry import project
from token_geometry.__main__ import main
from token_geometry.charts import BUNDLE


def write_bundle() -> None:
    """Write the JavaScript that draws the charts, unless it is there."""
    import vl_convert

    text = vl_convert.javascript_bundle()
    target = project.root() / BUNDLE
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_bundle()
    sys.exit(main(["run"]))
