"""What no code here may do, whatever its tests say: other ciphers, local keys, weak randomness, other hashes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("plugins", "dags", "include") for path in (ROOT / folder).rglob("*.py"))
ALLOWED_FROM_CRYPTOGRAPHY = {
    "cryptography.exceptions.InvalidTag",
    "cryptography.hazmat.primitives.ciphers.aead.AESGCM",
}
# Evidence is checked with public keys; nothing here can sign with a key of its own.
ALLOWED_TO_EVIDENCE = {
    "cryptography.exceptions.InvalidSignature",
    "cryptography.exceptions.UnsupportedAlgorithm",
    "cryptography.hazmat.primitives.asymmetric.ed25519.Ed25519PublicKey",
    "cryptography.hazmat.primitives.serialization.Encoding",
    "cryptography.hazmat.primitives.serialization.PublicFormat",
    "cryptography.hazmat.primitives.serialization.load_pem_public_key",
}
OTHER_CIPHER_LIBRARIES = {
    "Crypto",
    "Cryptodome",
    "nacl",
    "pyaes",
    "tink",
    "gnupg",
    "pgpy",
    "age",
    "pyrage",
    "jose",
    "itsdangerous",
}
KEY_DERIVATIONS = {"pbkdf2_hmac", "scrypt", "PBKDF2HMAC", "HKDF", "Scrypt", "Argon2id", "Fernet", "generate_key"}
OTHER_HASHES = {"sha256", "sha224", "sha384", "sha512", "sha1", "md5", "blake2b", "SHA256", "SHA-256"}


def names_of(source: str) -> Iterator[str]:
    """Every dotted import, and every name, attribute and text constant: what code can reach a cipher by."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name
            case ast.Constant(value=str(text)) if " " not in text:
                yield text


def uses_other_cryptography(name: str) -> bool:
    top = name.partition(".")[0]
    return (
        (top == "cryptography" and name not in ALLOWED_FROM_CRYPTOGRAPHY | ALLOWED_TO_EVIDENCE)
        or top in OTHER_CIPHER_LIBRARIES
        or name.rpartition(".")[2] in KEY_DERIVATIONS
    )


def uses_random(name: str) -> bool:
    return name == "random" or name.startswith(("random.", "numpy.random"))


def uses_another_hash(name: str) -> bool:
    return name.rpartition(".")[2] in OTHER_HASHES


Rule = Callable[[str], bool]


def offences(source: str, rule: Rule) -> list[str]:
    return [name for name in names_of(source) if rule(name)]


def offenders(rule: Rule) -> dict[str, list[str]]:
    found = {str(path.relative_to(ROOT)): offences(path.read_text(), rule) for path in SOURCES}
    return {path: names for path, names in found.items() if names}


@pytest.mark.case("TC-INV-03")
def test_sources_were_found() -> None:
    assert {"envelope.py", "key_wrapping.py", "hashing.py"} <= {path.name for path in SOURCES}


@pytest.mark.case("TC-INV-03")
def test_only_aes_gcm_and_no_local_key() -> None:
    assert offenders(uses_other_cryptography) == {}


@pytest.mark.case("TC-INV-03")
def test_only_the_envelope_encrypts() -> None:
    users = {path.name for path in SOURCES if "AESGCM" in names_of(path.read_text())}
    assert users == {"envelope.py", "envelope_header.py"}


@pytest.mark.case("TC-INV-03")
def test_only_evidence_checks_signatures() -> None:
    users = {path.parent.name for path in SOURCES if ALLOWED_TO_EVIDENCE & set(names_of(path.read_text()))}
    assert users == {"evidence"}


@pytest.mark.case("TC-NR-03")
def test_no_random() -> None:
    assert offenders(uses_random) == {}


@pytest.mark.case("TC-NR-04")
def test_no_hash_but_sha3_256() -> None:
    assert offenders(uses_another_hash) == {}


@pytest.mark.case("TC-INV-03", "TC-NR-03", "TC-NR-04")
@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("from cryptography.fernet import Fernet", uses_other_cryptography),
        ("from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305", uses_other_cryptography),
        ("import cryptography.hazmat.primitives.kdf.hkdf", uses_other_cryptography),
        (
            "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey",
            uses_other_cryptography,
        ),
        ("import nacl.secret", uses_other_cryptography),
        ("import hashlib\nhashlib.scrypt(b'')", uses_other_cryptography),
        ("import random", uses_random),
        ("from random import choice", uses_random),
        ("import hashlib\nhashlib.sha256()", uses_another_hash),
        ("from hashlib import sha256 as h", uses_another_hash),
        ("import hashlib\nhashlib.new('sha256')", uses_another_hash),
    ],
)
def test_the_rules_catch_what_they_name(source: str, rule: Rule) -> None:
    assert offences(source, rule)


@pytest.mark.case("TC-NR-02")
def test_what_verifies_and_publishes_reads_no_etag_but_to_name_a_version() -> None:
    services = ROOT / "plugins" / "pv_backup" / "services"
    tree = ast.parse((services / "verification.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and "etag" in node.attr.lower()]
    comparisons = [
        ast.unparse(node)
        for path in services.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and "etag" in ast.unparse(node).lower()
    ]
    assert comparisons == []
