"""Reinforcement learning (GRPO) of the reasoner and the router: rewards, policies, trainer; `python -m` runs it."""
