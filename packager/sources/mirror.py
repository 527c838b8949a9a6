"""Which server weights came from, where it is not the usual one: for the manifest."""

from __future__ import annotations

from urllib.parse import urlsplit

from packager.json_values import JsonObject


def named(endpoint: str, usual: str) -> JsonObject:
    """`endpoint` as scheme and host, without a name or password that an address may hold; nothing
    for the usual server."""
    if endpoint.rstrip("/") == usual:
        return {}
    parts = urlsplit(endpoint)
    port = f":{parts.port}" if parts.port else ""
    return {"endpoint": f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path.rstrip('/')}"}
