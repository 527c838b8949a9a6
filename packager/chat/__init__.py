"""How a checkpoint speaks: its chat templates, what they are rendered with, where a turn ends."""
