"""The first stages by name: one declaration a file."""
