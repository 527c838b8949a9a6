"""The package for iOS: the manifest of a Background Assets pack, and Swift that compares before it
hands anything out.

Source: developer.apple.com/documentation/backgroundassets/creating-managed-asset-packs.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from packager.escapes import slug
from packager.files import folder_that_appears_whole, write_json
from packager.shipping.apps import snippets
from packager.shipping.apps.layout import copy_package
from packager.shipping.shipment import Shipment, free_place


def write(shipment: Shipment, out: Path, limit: int | None = None) -> Generator[int, None, None]:
    """Write the folder `out`; yields sizes."""
    free_place(out)
    values = snippets.facts(shipment).values()
    manifest = {
        "assetPackID": slug(shipment.name),
        "downloadPolicy": {"onDemand": {}},
        "fileSelectors": [{"directory": snippets.FOLDER}],
        "platforms": ["iOS"],
    }
    with folder_that_appears_whole(out) as folder:
        write_json(folder / "Manifest.json", manifest)
        snippets.write(folder, "swift/ModelFiles.swift", "ModelFiles.swift", values)
        snippets.write(folder, "README.md", "ios.md", values)
        yield from copy_package(shipment, folder)
