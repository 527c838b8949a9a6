"""The agent: llama.cpp on a device, driven from the desk (packager.lab)."""
