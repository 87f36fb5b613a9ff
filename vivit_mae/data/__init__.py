"""From video files to batches: numpy, PyAV and Grain, no jax."""
