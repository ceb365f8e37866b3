"""The benchmarks: each number that Remit claims, measured beside the floor of the same run.

docs/performance.md says what each includes.
"""
