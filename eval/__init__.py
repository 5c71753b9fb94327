"""Evaluation: measures of runs against judgments."""
