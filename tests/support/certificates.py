"""Certificates for servers on loopback."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def self_signed(folder: Path, *addresses: str) -> tuple[Path, Path]:
    """Certificate and key, in the folder, for these addresses; nobody vouches for them. Skips the
    test where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ",".join(f"IP:{address}" for address in addresses)
    words = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-keyout", str(key), "-out", str(certificate)),
        *("-subj", f"/CN={addresses[0]}", "-addext", f"subjectAltName={names}"),
    ]
    subprocess.run(words, check=True, capture_output=True)
    return certificate, key
