"""The completions cache: answers that were paid for once, kept in an SQLite file.

Keys depend on all that decides an answer, and on nothing else.
"""
