"""The walkthrough in the terminal: screens over the core, without any domain logic of their own.
Reads `packager` only."""
