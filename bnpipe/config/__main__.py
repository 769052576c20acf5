"""Write JSON schemas and tables of keys into the documentation: ``python -m bnpipe.config [docs]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bnpipe.config.json_schema import json_schema, serving_schema
from bnpipe.config.reference import SECTIONS, SERVING, write_keys


def main(folder: Path) -> None:
    """Bring the files in `folder` up to date."""
    for name, schema in (("model", json_schema()), ("serving", serving_schema())):
        (folder / f"{name}.schema.json").write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
    for name, sections in (("spec", SECTIONS), ("serving", SERVING)):
        page = folder / f"{name}.md"
        page.write_text(write_keys(page.read_text(encoding="utf-8"), sections), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
