"""Write docs/settings.md from the settings' dataclasses, or with `--check` compare it with them."""

from __future__ import annotations

import sys
from pathlib import Path

from clic.config.reference import page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"


def main() -> int:
    """Write the page; with `--check` return 1 if it is out of date."""
    if "--check" in sys.argv[1:]:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        print(f"{PAGE} is {'up to date' if same else 'out of date; run scripts/settings_page.py'}")
        return 0 if same else 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
