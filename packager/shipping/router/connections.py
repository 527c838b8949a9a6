"""The connections of the server. An export has the file packager/shipping/server/connections.py
here."""

from packager.shipping.server.connections import LONGEST, BoundedServer, JsonHandler

__all__ = ["LONGEST", "BoundedServer", "JsonHandler"]
