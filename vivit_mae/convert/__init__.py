"""Public weights in and out: foreign names, file formats, the zoo."""
