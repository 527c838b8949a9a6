"""Device classes as data, and their reader and writer."""
