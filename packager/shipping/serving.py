"""A package's server as a job for a child process: it runs until it is ended."""

from __future__ import annotations

import time
from pathlib import Path

from packager.json_values import JsonObject
from packager.process import resolve
from packager.runtime import Report
from packager.shipping.server import main
from packager.shipping.server import settings as server_settings

_SIGN_S = 30.0
"""A server waits for hours: whoever watches this process is told that it lives."""


def serve_job(
    report: Report,
    *,
    package: str,
    settings: JsonObject,
    engine: str | None,
    log: str,
    host: str,
    port: int,
    waiting: int,
) -> JsonObject:
    """Load the model and answer; the address goes out as text once it does. `settings` are the
    server's, see packager.shipping.apps.server_settings; `engine` is a Runtime's serving_engine,
    None for the server's own."""
    known = server_settings.of(dict(settings), Path(package))
    model = (
        resolve(engine)(known, known.session, Path(log))
        if engine
        else main.loaded(known, known.unit)
    )

    class Watched(main.Server):
        """The server, which says now and then that it lives."""

        signed = time.monotonic()

        def service_actions(self) -> None:
            """Called twice a second."""
            if time.monotonic() - self.signed > _SIGN_S:
                self.signed = time.monotonic()
                report.progress(0, None)

    with Watched((host, port), model, known, waiting) as server:
        report.text(f"{server.address_of(host)}\n")
        server.serve_forever()
    return {}
