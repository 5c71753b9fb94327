"""Recommendation: items for a user, from what the user has chosen so far."""
