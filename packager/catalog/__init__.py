"""The catalogue: every Qwen variant as data."""
