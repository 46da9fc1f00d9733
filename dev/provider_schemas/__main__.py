"""``python -m dev.provider_schemas``: write the excerpt anew."""

from __future__ import annotations

from dev.provider_schemas import excerpt

if __name__ == "__main__":
    excerpt.EXCERPT.write_text(excerpt.as_text(excerpt.generate()))
    print(f"{excerpt.EXCERPT} describes {len(excerpt.used())} resources and data sources")
