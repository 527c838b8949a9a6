"""Is an engine right on this machine, and how must it be started there? Tried before it is used,
and remembered."""
