"""The embedded model: its tokenizer, its generated data and its training, from nothing but a Python installation."""
