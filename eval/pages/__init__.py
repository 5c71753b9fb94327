"""Pages to look at: one HTML file that works offline, and what stands on it."""
