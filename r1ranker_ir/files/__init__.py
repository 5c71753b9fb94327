"""Reading and writing files: JSON Lines, YAML, outputs that grow under another name, locks, byte offsets.

What is read here is checked to be plain data, and what is written here is never left half done.
"""
