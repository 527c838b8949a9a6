"""Key pairs for signatures: P-256, as PEM files that openssl reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.errors import bad_input, usage
from packager.files import write_secret
from packager.shipping.shipment import free_place, new_file

MISSING = "pip install 'qwen-pack[ship]'"
_TAKEN = "Name another file."


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where the two halves lie; the private one is readable by its owner only."""

    private: Path
    public: Path


def new(path: Path, password: str | None = None) -> KeyPair:
    """Write a new P-256 key to `path` and its public half to `path`.pub; encrypted where a password
    is given.

    Raises PackError (usage) where either exists already: a key is never replaced.
    """
    serialization, ec = _cryptography()
    if not path.name:
        raise usage(f"{path} is a folder, not a file.", "Name a file for the key.")
    public = path.with_name(f"{path.name}.pub")
    free_place(path, _TAKEN)
    free_place(public, _TAKEN)
    key = ec.generate_private_key(ec.SECP256R1())
    how = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    open_half = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_secret(path, secret)
    except FileExistsError:
        # Somebody was faster.
        free_place(path, _TAKEN)
        raise
    try:
        with new_file(public) as temporary:
            temporary.write_bytes(open_half)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return KeyPair(path, public)


def private_key(path: Path, password: str | None) -> None:
    """Check that a private key can be used. Raises PackError: 2 where it is absent or locked, 6
    where it is none."""
    serialization, ec = _cryptography()
    try:
        key = serialization.load_pem_private_key(
            _read(path), password.encode() if password else None
        )
    except TypeError:
        if password:
            raise usage(f"{path} has no password.", "Leave QWEN_PACK_KEY_PASSWORD unset.") from None
        raise usage(
            f"{path} is locked by a password.", "Give it in the variable QWEN_PACK_KEY_PASSWORD."
        ) from None
    except ValueError:
        raise bad_input(
            f"{path} is not a private key in PEM form, or the password is wrong.",
            "`qwen-pack keys new` makes one.",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise bad_input(
            f"{path} is not a key on an elliptic curve.",
            "Take P-256, P-384 or P-521; `qwen-pack keys new` makes one.",
        )


def public_key(path: Path) -> None:
    """Check that a public key can be used. Raises PackError: 2 where it is absent, 6 where it is
    none."""
    serialization, ec = _cryptography()
    try:
        key = serialization.load_pem_public_key(_read(path))
    except ValueError:
        raise bad_input(
            f"{path} is not a public key in PEM form.",
            "Name the .pub file that `qwen-pack keys new` wrote.",
        ) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise bad_input(
            f"{path} is not a key on an elliptic curve.",
            "Name the .pub file that `qwen-pack keys new` wrote.",
        )


def password() -> str | None:
    """The password of the private key, from the environment: never from the command line, which
    others can read."""
    return os.environ.get("QWEN_PACK_KEY_PASSWORD") or None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        raise usage(f"There is no key {path}.", "`qwen-pack keys new` makes one.") from None


def _cryptography() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise usage(
            "Signatures need the cryptography library, which is not installed.", MISSING
        ) from None
    return serialization, ec
