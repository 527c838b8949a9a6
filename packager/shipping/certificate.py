"""The certificate in a signature: is it valid now, was it made for signing, and whose is it?

The signing library proves that the chain holds at the moment when the certificate begins, and that
it may sign something; a certificate that has expired, or that was made for a TLS server, proves
nothing about who made a package today.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OIDC_ISSUER = ("1.3.6.1.4.1.57264.1.8", "1.3.6.1.4.1.57264.1.1")
"""Extensions in which Fulcio says who vouched for an identity. Source: sigstore/fulcio,
docs/oid-info.md."""


@dataclass(frozen=True, slots=True)
class Signatory:
    """Who must have signed: a subject alternative name of the certificate, and who issued it; None
    is anybody."""

    identity: str | None = None
    issuer: str | None = None


def refusal(signature: Path, authorities: Sequence[Path], wanted: Signatory) -> str | None:
    """Why the certificate in a signature file is not to be believed now, as the end of a sentence;
    None where it is."""
    # Late: only a signature by certificate needs them.
    from cryptography import x509
    from OpenSSL import crypto

    try:
        chain = _chain(signature)
        if not chain:
            return "holds no certificate"
        store = crypto.X509Store()
        for authority in x509.load_pem_x509_certificates(
            b"\n".join(path.read_bytes() for path in authorities)
        ):
            store.add_cert(crypto.X509.from_cryptography(authority))
        leaf, *others = [crypto.X509.from_cryptography(certificate) for certificate in chain]
        path = [
            found.to_cryptography()
            for found in crypto.X509StoreContext(store, leaf, others).get_verified_chain()
        ]
    except crypto.X509StoreContextError as error:
        return f"has a certificate that does not hold today ({error})"
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        binascii.Error,
        crypto.Error,
    ) as error:
        return f"has a certificate that cannot be read ({type(error).__name__})"
    return _purpose(path) or _identity(chain[0], wanted)


def _chain(signature: Path) -> list[Any]:
    """The certificates of a Sigstore bundle, the signer's first."""
    from cryptography import x509

    material = json.loads(signature.read_bytes())["verificationMaterial"]
    rows = material["x509CertificateChain"]["certificates"]
    return [
        x509.load_der_x509_certificate(base64.b64decode(row["rawBytes"], validate=True))
        for row in rows
    ]


def _purpose(path: Sequence[Any]) -> str | None:
    """Every certificate below the authority itself must allow code signing, where it says what it
    is for."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    allowed = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    for certificate in path[:-1] or path:
        try:
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            continue
        if not allowed & set(usage):
            return (
                "has a certificate that was not made for signing code "
                f"({certificate.subject.rfc4514_string()})"
            )
    return None


def _identity(certificate: Any, wanted: Signatory) -> str | None:
    names, issuers = identities(certificate), _issuers(certificate)
    if wanted.identity is not None and wanted.identity not in names:
        return f"is of {_listed(names)}, not of {wanted.identity!r}"
    if wanted.issuer is not None and wanted.issuer not in issuers:
        return f"has a certificate that was issued by {_listed(issuers)}, not by {wanted.issuer!r}"
    return None


def identities(certificate: Any) -> list[str]:
    """Whose a certificate is: its alternative names (mail, address, host); the common name where
    there are none."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [
            str(name.value)
            for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ]
    kinds = (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName)
    return [str(value) for kind in kinds for value in names.get_values_for_type(kind)]


def _issuers(certificate: Any) -> list[str]:
    """Who issued it: the address that vouched for the identity, the issuer's common name, or its
    whole name."""
    from cryptography.x509.oid import NameOID

    issuers = []
    for extension in certificate.extensions:
        if extension.oid.dotted_string in _OIDC_ISSUER:
            value = extension.value.value
            # The newer of the two is a DER string of less than 128 bytes, the older one plain text.
            plain = value[2:] if value[:1] == b"\x0c" and len(value) == value[1] + 2 else value
            issuers.append(plain.decode(errors="replace"))
    names = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [*issuers, *(str(name.value) for name in names), certificate.issuer.rfc4514_string()]


def _listed(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in dict.fromkeys(names)) or "nobody"
