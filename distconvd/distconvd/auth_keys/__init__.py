"""Keys: the key file that holds many, and slowing down those who send wrong ones."""
