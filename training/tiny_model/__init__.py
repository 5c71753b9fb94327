"""How the embedded model was trained, and what GRPO costs: developers' tools, which run from a checkout alone."""
