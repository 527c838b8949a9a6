"""The device a package is for, what tells it from other machines, and this machine."""
