"""Evaluators: one file each, run by the loop or by a tool."""
