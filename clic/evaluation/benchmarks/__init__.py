"""Readers of the benchmarks' files, one module a family: from a data root to a table of cases."""
