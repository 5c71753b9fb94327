"""Rewards of ranking answers, as plain functions in the form that TRL's trainers call.

Measures of lists, the answer protocol and the normalisation of several sources live beside them.
"""
