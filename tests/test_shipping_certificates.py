"""Certificates: who signed is the name that an authority vouches for, at that time and for that
use."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.shipping import keys
from packager.shipping.certificate import Signatory
from packager.shipping.signature import Signer, Trust, check, sign

pytest_plugins = ("tests.support.fixtures.signing",)
pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("no_password")]


DAY = datetime.timedelta(days=1)


def certificates(
    folder: Path,
    days: tuple[int, int] = (0, 1),
    purpose: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CODE_SIGNING,
    names_: Sequence[x509.GeneralName] = (),
    authority_days: tuple[int, int] | None = None,
) -> tuple[Path, Path, Path]:
    """Key and certificate of a signer, and the certificate of the authority that vouches for it;
    valid from and until, in days."""
    today = datetime.datetime.now(datetime.UTC)

    def made(name: str, key: Any, issuer: str, by: Any, authority: bool) -> x509.Certificate:
        names = [
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[0])
            .issuer_name(names[1])
            .public_key(key.public_key())
        )
        start, end = (authority_days or days) if authority else days
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(today + start * DAY).not_valid_after(today + end * DAY)
        usage = x509.KeyUsage(
            not authority, False, False, False, False, authority, authority, False, False
        )
        builder = builder.add_extension(x509.BasicConstraints(authority, None), True).add_extension(
            usage, True
        )
        if not authority and purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
        if not authority and names_:
            builder = builder.add_extension(x509.SubjectAlternativeName(names_), False)
        return builder.sign(by, hashes.SHA256())

    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority, own = (
        made("Authority", root, "Authority", root, True),
        made("Signer", leaf, "Authority", root, False),
    )
    (folder / "root.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "leaf.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "leaf.key").write_bytes(leaf.private_bytes(*form))
    return folder / "leaf.key", folder / "leaf.pem", folder / "root.pem"


def test_a_certificate_signs_and_its_authority_is_asked(package: Path, tmp_path: Path) -> None:
    key, own, root = certificates(tmp_path)
    signature = sign(package, Signer(key, own, (root,)), tmp_path / "tiny.sig")
    assert check(package, signature, Trust(chain=(root,))) == []
    (tmp_path / "foreign").mkdir()
    _, _, foreign = certificates(tmp_path / "foreign")
    assert [finding.kind for finding in check(package, signature, Trust(chain=(foreign,)))] == [
        "signature"
    ]
    with pytest.raises(PackError, match="cannot sign"):
        sign(
            package, Signer(keys.new(tmp_path / "k").private, own, (root,)), tmp_path / "other.sig"
        )


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"days": (-9, -2), "authority_days": (-10, 10)}, "expired"),
        ({"days": (2, 9), "authority_days": (-10, 10)}, "not yet valid"),
        ({"days": (-5, 5), "authority_days": (-9, -1)}, "expired"),
        ({"purpose": ExtendedKeyUsageOID.SERVER_AUTH}, "not made for signing code (CN=Signer)"),
        ({"purpose": ExtendedKeyUsageOID.EMAIL_PROTECTION}, "not made for signing code"),
    ],
)
def test_a_certificate_out_of_its_time_or_made_for_something_else_is_not_believed(
    made: dict[str, Any], words: str, package: Path, tmp_path: Path
) -> None:
    key, own, root = certificates(tmp_path, **made)
    signature = sign(package, Signer(key, own, (root,)), tmp_path / "tiny.sig")
    (finding,) = check(package, signature, Trust(chain=(root,)))
    assert finding.kind == "signature" and words in finding.message


def test_an_identity_and_an_issuer_can_be_demanded(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        x509.RFC822Name("release@example.org"),
        x509.UniformResourceIdentifier("https://example.org/build"),
    ]
    key, own, root = certificates(tmp_path, names_=names, purpose=None)
    sign(package, Signer(key, own, (root,)), package.with_name(f"{package.name}.sig"))
    asked = ["verify", str(package), "--certificate-chain", str(root)]
    for right in (
        ["--identity", "release@example.org"],
        ["--identity", "https://example.org/build", "--issuer", "Authority"],
    ):
        assert main([*asked, *right]) == 0
    assert main([*asked, "--issuer", "CN=Authority"]) == 0
    capsys.readouterr()
    for wrong in ("Signer", "release@example.org.evil.example", "RELEASE", ""):
        assert main([*asked, "--identity", wrong]) == ExitCode.INPUT
        assert (
            "is of 'release@example.org' or 'https://example.org/build'" in capsys.readouterr().out
        )
    assert main([*asked, "--issuer", "Another"]) == ExitCode.INPUT
    assert main(["verify", str(package), "--identity", "release@example.org"]) == ExitCode.USAGE
    assert (
        main(["verify", str(package), "--key", str(own), "--issuer", "Authority"]) == ExitCode.USAGE
    )


def test_a_certificate_without_other_names_is_of_its_common_name(
    package: Path, tmp_path: Path
) -> None:
    key, own, root = certificates(tmp_path)
    signature = sign(package, Signer(key, own, (root,)), tmp_path / "tiny.sig")
    assert check(package, signature, Trust(None, (root,), Signatory("Signer", "Authority"))) == []
