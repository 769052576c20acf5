"""A correct spec, to be broken by the tests."""

GOOD = """\
name: claims
owner: me
source: {path: "claims/*.parquet", timestamp: at, time_zone: Europe/Berlin}
window: {train: 90d, held_out: 14d}
variables:
  region: {states: [SE, DK], other: other}
  hour: {edges: [6, 12, 18]}
  premium: {quantiles: 4}
  size: {states: [small, large]}
targets:
  size: {tolerance: 0.002}
"""
