"""JSON as it was parsed. An export has the file packager/shipping/server/parsed.py here."""

from packager.shipping.server.parsed import Parsed

__all__ = ["Parsed"]
