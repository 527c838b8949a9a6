"""What a finished package is: its manifest, files, digests, and how it is verified."""
