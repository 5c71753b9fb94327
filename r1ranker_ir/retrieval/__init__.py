"""First stages: what finds the candidates that a reranker orders."""
