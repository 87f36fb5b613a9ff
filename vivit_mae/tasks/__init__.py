"""What is learned: one file per task, one small contract."""
