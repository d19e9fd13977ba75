"""Track the engine's attempts: their context, which are active, and their journal on disk."""
