"""The digest of a package's content. An export has the file packager/package/content.py here."""

from packager.package.content import content_sha256

__all__ = ["content_sha256"]
