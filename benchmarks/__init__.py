"""bnpipe beside pgmpy and pyAgrum on the same rows: ``python -m benchmarks`` writes docs/benchmarks.md."""
