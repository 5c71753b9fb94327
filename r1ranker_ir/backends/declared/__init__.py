"""The backends by name: one declaration a file, none of which imports what runs models."""
