"""Folders, OME-Zarr volumes and receipts: the only door to zarr and to object storage.

Law 2: a write is a union of whole shards, so that no two tasks ever share a shard and no lock is
needed. Law 3: a receipt is written after the shards of its block, under a digest of everything
that matters; what is done is one listing.
"""

from tomoseg.stores.claims import Claim, Owner, claimed, living_owner
from tomoseg.stores.folders import (
    Folder,
    checked_url,
    fingerprint,
    free_bytes,
    listing,
    open_file,
)
from tomoseg.stores.ledger import READERS, Ledger, digest
from tomoseg.stores.omezarr import (
    OmeZarrReader,
    label_names,
    write_image_metadata,
    write_label_metadata,
    write_mask_metadata,
)
from tomoseg.stores.volumes import Volume, inner_chunk

__all__ = [
    "READERS",
    "Claim",
    "Folder",
    "Ledger",
    "OmeZarrReader",
    "Owner",
    "Volume",
    "checked_url",
    "claimed",
    "digest",
    "fingerprint",
    "free_bytes",
    "inner_chunk",
    "label_names",
    "listing",
    "living_owner",
    "open_file",
    "write_image_metadata",
    "write_label_metadata",
    "write_mask_metadata",
]
