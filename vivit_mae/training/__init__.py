"""The experiment: state, optimiser, sharding, checkpoints, the loop."""
