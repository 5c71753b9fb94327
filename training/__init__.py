"""Training: data builders, rewards, trainers and jobs, installed as `r1ranker_ir.training`.

Its folders follow the path of a training: data, rewards, trainers, jobs; recipes are data files.
"""
