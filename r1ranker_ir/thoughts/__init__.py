"""Thoughts that led to right answers, kept to be shown to other models: thought reuse, as R1-Ranker's IRanker-COT."""
