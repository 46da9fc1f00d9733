"""``python -m dev.chart_schema DIRECTORY``: write the excerpt anew, of a chart that was unpacked there."""

from __future__ import annotations

import argparse
from pathlib import Path

from dev.chart_schema import excerpt

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m dev.chart_schema", description=__doc__)
    parser.add_argument("directory", type=Path, help="the chart: Chart.yaml and values.schema.json lie in it")
    excerpt.EXCERPT.write_text(excerpt.as_text(excerpt.generate(parser.parse_args().directory)))
    print(f"{excerpt.EXCERPT} is written; see its difference before you commit it")
