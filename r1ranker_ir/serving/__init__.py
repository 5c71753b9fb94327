"""The rerank service: rankers behind HTTP, in the forms that existing clients know."""
