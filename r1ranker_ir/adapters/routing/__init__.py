"""Routing: which language model gets a question, by what its answers are worth and cost."""
