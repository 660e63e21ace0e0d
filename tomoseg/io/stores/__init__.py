"""Folders, OME-Zarr volumes and receipts: the only door to zarr and to object storage.

Law 2: a write is a union of whole shards, so that no two tasks ever share a shard and no lock is
needed. Law 3: a receipt is written after the shards of its block, under a digest of everything
that matters; what is done is one listing.
"""

from tomoseg.io.stores.claims import Claim, Owner, claimed, living_owner
from tomoseg.io.stores.folders import (
    Entry,
    Folder,
    fingerprint,
    free_bytes,
    is_folder,
    listing,
    matching,
    open_file,
    read_file,
    spool_bytes,
)
from tomoseg.io.stores.ledger import READERS, WRITTEN, Ledger, begun, digest, ledgers
from tomoseg.io.stores.lives import Life
from tomoseg.io.stores.moves import (
    discard,
    is_array,
    items_below,
    seals,
    sizes_below,
    stands,
    transfer,
)
from tomoseg.io.stores.omezarr import (
    OmeZarrReader,
    label_names,
    write_image_metadata,
    write_label_metadata,
    write_mask_metadata,
)
from tomoseg.io.stores.urls import checked_url, local_path, scratch_folder
from tomoseg.io.stores.volumes import Volume, inner_chunk
from tomoseg.io.stores.written import noted_writes

__all__ = [
    "READERS",
    "WRITTEN",
    "Claim",
    "Entry",
    "Folder",
    "Ledger",
    "Life",
    "OmeZarrReader",
    "Owner",
    "Volume",
    "begun",
    "checked_url",
    "claimed",
    "digest",
    "discard",
    "fingerprint",
    "free_bytes",
    "inner_chunk",
    "is_array",
    "is_folder",
    "items_below",
    "label_names",
    "ledgers",
    "listing",
    "living_owner",
    "local_path",
    "matching",
    "noted_writes",
    "open_file",
    "read_file",
    "scratch_folder",
    "seals",
    "sizes_below",
    "spool_bytes",
    "stands",
    "transfer",
    "write_image_metadata",
    "write_label_metadata",
    "write_mask_metadata",
]
