"""`r1ranker doctor`: whether a model can rank at all, and how it is best asked.

It uses short lists of the packaged collection in which one passage answers the query.
"""
