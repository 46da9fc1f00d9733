"""Objects that another writer left under a WAL file's key: genuine artefacts, of whatever bytes a test wants."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from pv_backup.services.artefacts import ArtefactType, wal_object_key
from pv_backup.services.compression import Compressor
from pv_backup.services.envelope import ArtefactContext, EnvelopeWriter, new_iv
from pv_backup.services.hashing import Sha3
from pv_backup.services.key_wrapping import new_dek
from pv_backup.services.wal_objects import HASH, SYSTEM_IDENTIFIER
from tests.integration.wal_world import RecordedWal, ShippingWorld

SMALL_SEGMENTS = 16
_TAG_BYTES = 16


@dataclass(frozen=True)
class Forgery:
    """An artefact that opens.

    :ivar header_bytes: how long its header is; the first PVB1 segment begins behind it.
    """

    backup_id: str
    body: bytes
    metadata: dict[str, str]
    header_bytes: int

    def cut_after_segments(self, count: int) -> bytes:
        """Its bytes up to the end of one of its PVB1 segments of 64 KiB."""
        kept = self.header_bytes + count * ((1 << SMALL_SEGMENTS) + _TAG_BYTES)
        assert kept < len(self.body), "an artefact of one segment cannot be cut at a boundary"
        return self.body[:kept]


def forged(world: ShippingWorld, name: str, plain: bytes, *, system_identifier: str, segment_log2: int = 20) -> Forgery:
    """Make the artefact of these bytes under a WAL file's key, as the services would, and put it there."""
    key = wal_object_key(name)
    compressor = Compressor()
    compressed = compressor.update(plain) + compressor.finish()
    dek = new_dek()
    wrapped = world.bench.keys.wrap(dek)
    context = ArtefactContext(
        backup_id=str(uuid4()),
        backup_type=ArtefactType.WAL,
        object_key=key,
        created_at="2026-03-29T00:00:00Z",
        compression="zstd",
        wrapped_dek=wrapped.wrapped_dek,
        k_backup_version=wrapped.k_backup_version,
    )
    writer = EnvelopeWriter(dek=dek, iv=new_iv(), context=context, segment_log2=segment_log2)
    body = b"".join([writer.header.raw, *writer.update(compressed), writer.finish()])
    hasher = Sha3()
    hasher.update(compressed)
    own = {HASH: hasher.hexdigest(), SYSTEM_IDENTIFIER: system_identifier}
    forgery = Forgery(context.backup_id, body, writer.header.metadata | own, len(writer.header.raw))
    world.bucket.put(key, forgery.body, forgery.metadata)
    return forgery


def genuine(world: ShippingWorld, recorded: RecordedWal, name: str, **options: int) -> Forgery:
    """An artefact of the recorded file, as another worker would have made it."""
    return forged(world, name, recorded.bytes(name), system_identifier=recorded.system_identifier, **options)
