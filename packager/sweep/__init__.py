"""A matrix of builds from one plan file: run, resumed, reported, compared with the last time."""
