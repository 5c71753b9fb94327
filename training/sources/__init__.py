"""Sources of training data: each becomes an iterator of `Record`s, read as it goes."""
