"""Rewards of ranking answers, as plain functions in the form that TRL's trainers call."""
