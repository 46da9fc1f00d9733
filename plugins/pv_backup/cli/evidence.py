"""`evidence …`: what an auditor does with the proof of a drill; the first two need neither settings nor network."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pv_backup.services.errors import ConfigurationError

if TYPE_CHECKING:
    from pv_backup.services.object_store import ObjectStore
    from pv_backup.services.settings import Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_HOW = """Check and read what a restoration drill left as proof (docs/evidence.md).

  1. public-key > key.pem                        once, by somebody who may read the key in Vault
  2. verify drill_….json --public-key key.pem    by anybody, offline; exit status 0: the signature holds, 2: it does not
  3. report drill_….json --output drill.html     the same as a page for people

Documents come from the journal database, a mail, or for 30 days from the bucket: `list`, `fetch DRILL_ID`.
"""


def add_commands(commands: Commands) -> None:
    """Add this room's commands to the parser."""
    evidence = commands.add_parser(
        "evidence",
        help="check and read what a restoration drill left as proof",
        description=_HOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inner = evidence.add_subparsers(required=True, metavar="COMMAND")

    verify = inner.add_parser("verify", help="check a document's signature; offline, with the public key alone")
    verify.add_argument("file", help="the document, such as drill_….json; - is standard input")
    verify.add_argument(
        "--public-key",
        required=True,
        action="append",
        metavar="FILE",
        help="PEM, or Vault's JSON of the key; from somebody whom you trust, never from beside the document",
    )
    verify.set_defaults(offline=_verify)

    report = inner.add_parser("report", help="write a document as a page for people; offline")
    report.add_argument("file", help="the document; - is standard input")
    report.add_argument("--output", default="-", help="HTML file to write, made new; - is standard output (default)")
    report.set_defaults(offline=_report)

    public_key = inner.add_parser(
        "public-key", help="print the public key as PEM, from Vault: VAULT_ADDR, VAULT_TOKEN of who may read the key"
    )
    public_key.add_argument("--key", default=_default_key(), help="name in Transit (default: %(default)s)")
    public_key.add_argument("--mount-point", default="transit", help="where Transit is mounted (default: %(default)s)")
    public_key.add_argument("--key-version", type=int, help="one version only (default: every one)")
    public_key.set_defaults(offline=_public_key)

    listing = inner.add_parser("list", help="the documents in the bucket, the oldest first")
    listing.set_defaults(run=_list)
    fetch = inner.add_parser("fetch", help="write a document from the bucket to standard output, as it was signed")
    fetch.add_argument("drill_id", help="as `list` shows it")
    fetch.set_defaults(run=_fetch)


def _default_key() -> str:
    return os.environ.get("PV_BACKUP_EVIDENCE_KEY") or "pv-backup-evidence"


def _verify(options: argparse.Namespace) -> None:
    from pv_backup.services.evidence.public_keys import read_public_keys
    from pv_backup.services.evidence.verification import verified

    keys = [key for file in options.public_key for key in read_public_keys(_text(file), source=file)]
    proof = verified(_text(options.file), keys)
    evidence = proof.evidence
    print(f"the signature holds: {proof.signature.key} version {proof.signature.key_version}")
    print(f"  public key SHA3-256 {proof.key.fingerprint}")
    print(f"drill {evidence.drill_id} of {evidence.started_at}, target {evidence.target}: {evidence.verdict}")
    for failure in evidence.failures:
        print(f"  {failure.code} {failure.cause}")


def _report(options: argparse.Namespace) -> None:
    from pv_backup.services.evidence.report import html

    page = html(_text(options.file))
    if options.output == "-":
        sys.stdout.write(page)
        return
    with Path(options.output).open("x", encoding="utf-8") as file:
        file.write(page)


def _public_key(options: argparse.Namespace) -> None:
    from pv_backup.services.evidence.public_keys import pem_of, public_keys_of_vault
    from pv_backup.services.standalone import vault_from_environment

    keys = public_keys_of_vault(vault_from_environment(), options.key, mount_point=options.mount_point)
    wanted = [key for key in keys if options.key_version in (None, key.version)]
    if not wanted:
        raise ConfigurationError(
            f"{options.key} has no version {options.key_version}, it has {', '.join(str(key.version) for key in keys)}",
            remedy="take the key_version of the document's signature",
        )
    sys.stdout.write("".join(map(pem_of, wanted)))


def _list(options: argparse.Namespace, settings: Settings, store: ObjectStore) -> None:
    from pv_backup.services.evidence.publishing import evidence_keys

    keys = evidence_keys(store)
    if not keys:
        print(f"s3://{store.bucket} holds no evidence; what is older than 30 days is in the journal database alone")
    for key in keys:
        print(key)


def _fetch(options: argparse.Namespace, settings: Settings, store: ObjectStore) -> None:
    from pv_backup.services.evidence.publishing import read_copy

    sys.stdout.write(read_copy(store, options.drill_id))


def _text(file: str) -> str:
    """The very bytes: no line ending may be translated in what was signed."""
    raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is no text in UTF-8", remedy="give the file as it was delivered") from None
