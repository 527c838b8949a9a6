"""The build as a generator of events: stages, cache, checks before it starts, packaging."""
