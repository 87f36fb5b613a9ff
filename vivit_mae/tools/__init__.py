"""Command lines beside training."""
