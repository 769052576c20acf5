"""Write ``docs/model.schema.json`` and the tables of ``docs/spec.md``: ``python -m bnpipe.config [docs]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bnpipe.config.json_schema import json_schema
from bnpipe.config.reference import write_keys


def main(folder: Path) -> None:
    """Bring both files in `folder` up to date."""
    (folder / "model.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    page = folder / "spec.md"
    page.write_text(write_keys(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
