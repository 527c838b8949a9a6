"""This machine as a device: limits, instruction sets, GPUs, measured rates."""
