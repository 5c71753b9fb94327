"""`r1ranker generic`: what a training on rankings did to other abilities, by the tasks of lm-evaluation-harness."""
