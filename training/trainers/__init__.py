"""SFT, GRPO and PPO on ranking samples, with TRL's trainers; single steps or whole eliminations."""
