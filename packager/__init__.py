"""The core of qwen-pack: it chooses, plans and packages, and knows no runtime and no screen."""

__version__ = "0.1.0"
