"""The frozen plan of a build, and how it is chosen."""
