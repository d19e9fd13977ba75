"""Implement the commands of `distconv`, one small module for each group."""
