"""What is ranked besides passages: items for a user, language models for a question."""
