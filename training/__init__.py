"""Training: data builders, rewards and trainers, installed as `r1ranker_ir.training`."""
