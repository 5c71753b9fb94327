"""One training from arguments to a trained folder: recipes, loading, progress, records, comparison.

`r1ranker train` calls `command`; nothing here knows a reward's formula.
"""
