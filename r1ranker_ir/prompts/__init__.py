"""From ranking requests to prompts, and from outputs back to candidates."""
