"""Checkpoints: what a folder, a GGUF file or a name on the hub holds, and how it is loaded.

The embedded model, the small one and models with random weights are found here as well.
"""
