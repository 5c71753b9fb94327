"""The published systems by name: one data file each."""
