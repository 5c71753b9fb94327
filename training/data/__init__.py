"""Training data: judged lists from every source, samples of them, and the files that hold samples.

Prompts are rendered exactly as they are when the trained model ranks.
"""
