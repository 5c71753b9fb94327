"""Suites: data sets through a first stage and a reranker, into one folder that says all about it.

Each suite is a table of data sets in a TOML file beside the code.
"""
