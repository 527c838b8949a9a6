"""`--host` and `--port` of the commands that serve."""

from __future__ import annotations

import socket

from packager.errors import usage


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises PackError (usage) where it cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, TypeError, UnicodeError) as error:
            # Of a name that no host has Python makes the other two.
            reason = getattr(error, "strerror", None) or "that is not a valid name of a host"
            raise usage(
                f"Port {port} on {host} cannot be used: {reason}.",
                "Choose another with --port or --host.",
            ) from None
        return int(probe.getsockname()[1])
