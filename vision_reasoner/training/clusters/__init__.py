"""Reinforcement learning on clusters, with veRL or EasyR1: reward adapters, configurations, a script to run them."""
