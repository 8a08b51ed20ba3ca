"""Benchmarks: tasks run by strategies, on record and graded."""
