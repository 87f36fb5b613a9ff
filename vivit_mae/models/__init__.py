"""Flax modules of the video transformers; import them into any project."""
