"""Feature feeds made from real data that PyPI packages ship: what a team's own pipeline would deliver."""

from __future__ import annotations
