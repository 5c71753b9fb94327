"""SFT, GRPO and PPO on ranking samples, with TRL's trainers; single steps or whole eliminations.

What decides which samples are seen when, the curriculum and the mixture, is here as well.
"""
