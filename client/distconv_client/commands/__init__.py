"""The commands of `distconv`, one small module a group; each only joins client, view and words."""
