"""The command `r1ranker`: `app` puts the verbs together, and each verb has a file.

Verbs import what they run only when they run.
"""
