"""Signatures over packages in the OpenSSF model-signing format: detached, so that a package stays
reproducible.

The signature covers every file of the folder, the manifest among them; what the format leaves out
(empty folders, modes, links) `verify` looks at as well. Source:
github.com/sigstore/model-transparency, model_signing 1.1.
"""

from __future__ import annotations

import stat
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packager.errors import PackError, bad_input, usage
from packager.package import manifest
from packager.package.verify import Finding, verify
from packager.shipping import certificate, keys
from packager.shipping.certificate import Signatory
from packager.shipping.shipment import new_file
from packager.shipping.versions import ordered

ENDING = ".sig"
_LARGEST = 64 << 20
_WRITABLE_BY_ALL = stat.S_IWOTH
_ODD_MODES = (
    stat.S_ISUID
    | stat.S_ISGID
    | stat.S_ISVTX
    | stat.S_IXUSR
    | stat.S_IXGRP
    | stat.S_IXOTH
    | _WRITABLE_BY_ALL
)


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: a private key in PEM form, with a certificate and its chain where the verifier
    knows an authority, not a key."""

    key: Path
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count: one public key, or the certificates of authorities, for all or for
    one `signatory` of theirs."""

    key: Path | None = None
    chain: tuple[Path, ...] = ()
    signatory: Signatory = field(default_factory=Signatory)


def sign(package: Path, signer: Signer, out: Path) -> Path:
    """Sign the package at `package`, and write the detached signature to `out`.

    Raises PackError: 6 for a package that is not what its manifest says, and for a key that cannot
    be read; 2
    where `out` exists.
    """
    library = _library()
    keys.private_key(signer.key, keys.password())
    findings = verify(package)
    if findings:
        raise bad_input(
            f"{package} is not what its manifest says: {findings[0].path} {findings[0].message}.",
            "Nothing was signed.",
        )
    config = library.signing.Config().set_hashing_config(_hashing(library))
    if signer.certificate is None:
        secret = keys.password()
        # The library says text and hands it on to one that takes bytes only.
        config.use_elliptic_key_signer(
            private_key=signer.key, password=secret.encode() if secret else None
        )
    else:
        if keys.password():
            raise usage(
                "Keys of certificates are taken without a password.",
                "Leave QWEN_PACK_KEY_PASSWORD unset, and keep the key safe otherwise.",
            )
        try:
            config.use_certificate_signer(
                private_key=signer.key,
                signing_certificate=signer.certificate,
                certificate_chain=signer.chain,
            )
        except (ValueError, OSError) as error:
            raise bad_input(
                f"{signer.certificate} cannot sign: {error}.",
                "Give the certificate of this key, in PEM form.",
            ) from None
    with new_file(out) as temporary:
        config.sign(package.resolve(), temporary)
    return out


def check(
    package: Path, signature: Path, trust: Trust, min_version: str | None = None
) -> list[Finding]:
    """Every way in which a package is not what was signed; empty when it is.

    Raises PackError: 2 for a key or a signature that is not there; 6 for what is not a key and no
    signature, and for a manifest that cannot be trusted at all.
    """
    library = _library()
    if trust.key is not None:
        keys.public_key(trust.key)
    if not signature.is_file() or signature.is_symlink():
        raise usage(f"There is no signature {signature}.", "Name it with --signature.")
    if signature.stat().st_size > _LARGEST:
        raise bad_input(
            f"{signature} is not the signature of a package.",
            "Name the file that `qwen-pack export --sign` wrote.",
        )
    findings = [*verify(package), *_modes(package)]
    if not any(finding.kind in ("link", "special") for finding in findings):
        wrong = _signed_otherwise(library, package, signature, trust)
        findings += [wrong] if wrong else []
    too_old = _version(package, min_version)
    return [*findings, too_old] if too_old else findings


def _signed_otherwise(library: Any, package: Path, signature: Path, trust: Trust) -> Finding | None:
    config = library.verifying.Config().set_hashing_config(_hashing(library))
    try:
        if trust.key is not None:
            config.use_elliptic_key_verifier(public_key=trust.key)
        else:
            config.use_certificate_verifier(certificate_chain=trust.chain)
        config.verify(package.resolve(), signature)
    except PackError:
        raise
    except Exception as error:
        # The library raises whatever its parsers raise; all of it means that nothing was proved.
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason.startswith("Signature mismatch"):
            reason = "the files are not those that were signed"
        return Finding(
            signature.name,
            "signature",
            f"does not hold for this package and this key: {textwrap.shorten(reason, 200)}",
        )
    if trust.key is None:
        reason = certificate.refusal(signature, trust.chain, trust.signatory) or ""
        if reason:
            return Finding(signature.name, "signature", textwrap.shorten(reason, 300))
    return None


def _modes(package: Path) -> list[Finding]:
    """Files that somebody can run, or everybody can write: weights and papers are neither."""
    modes = []
    for path in sorted(package.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and mode & _ODD_MODES:
            modes.append(
                Finding(
                    path.relative_to(package).as_posix(),
                    "mode",
                    f"has the mode {stat.S_IMODE(mode):04o}; files of a package are data",
                )
            )
        elif stat.S_ISDIR(mode) and mode & _WRITABLE_BY_ALL:
            modes.append(
                Finding(
                    path.relative_to(package).as_posix(),
                    "mode",
                    "is a folder that everybody can write to",
                )
            )
    return modes


def _version(package: Path, floor: str | None) -> Finding | None:
    if floor is None:
        return None
    own = manifest.read(package).contents.version
    if not isinstance(own, str) or ordered(own) < ordered(floor):
        return Finding(
            manifest.NAME, "version", f"has the version {own or 'none'}, older than {floor}"
        )
    return None


def _hashing(library: Any) -> Any:
    return (
        library.hashing.Config()
        .set_ignored_paths(paths=[], ignore_git_paths=False)
        .set_allow_symlinks(False)
    )


def _library() -> Any:
    try:
        import model_signing
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError:
        raise usage(
            "Signatures need the model-signing library, which is not installed.", keys.MISSING
        ) from None
    return model_signing


def trusted(
    key: Path | None, chain: Sequence[Path], identity: str | None = None, issuer: str | None = None
) -> Trust | None:
    """What the flags of `verify` say; None where no signature is asked for. Raises PackError
    (usage) where they contradict."""
    if key is not None and chain:
        raise usage(
            "Give either --key or --certificate-chain.",
            "A key is one signer; a chain is an authority.",
        )
    if (identity is not None or issuer is not None) and not chain:
        raise usage(
            "--identity and --issuer are checked against a certificate.",
            "Name who vouches for it with --certificate-chain.",
        )
    return (
        Trust(key, tuple(chain), Signatory(identity, issuer)) if key is not None or chain else None
    )
