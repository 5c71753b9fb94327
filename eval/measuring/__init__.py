"""Measures of runs by ir_measures, and what may be said of their differences.

Tests of significance, chance levels, costs per query and comparisons are computed here.
"""
