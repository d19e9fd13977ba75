"""Every bundled plugin, one small module each."""
