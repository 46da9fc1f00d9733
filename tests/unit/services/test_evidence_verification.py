"""A signed document is one text, byte for byte: whatever else is handed in is refused, and the refusal says why."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pv_backup.services.drill_errors import EvidenceInvalid
from pv_backup.services.errors import ConfigurationError
from pv_backup.services.evidence.document import Evidence
from pv_backup.services.evidence.public_keys import PublicKey, pem_of, read_public_keys
from pv_backup.services.evidence.storable import storable
from pv_backup.services.evidence.verification import verified, verify_evidence
from tests.support.evidence import KEY, LocalKey, failed, passed

pytestmark = pytest.mark.case("TC-INV-09", "TC-NOM-04")

SIGNER = LocalKey()
EVIDENCE = passed().to_json()
TEXT = SIGNER.sign(EVIDENCE)
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def canonical(document: Any) -> str:
    """Good enough for our samples: ASCII, and numbers that Python writes as RFC 8785 does."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_a_document_comes_back_as_it_was_signed():
    for evidence in (passed(), failed()):
        assert verify_evidence(SIGNER.sign(evidence.to_json()), [SIGNER.public]) == evidence


def test_the_signed_bytes_are_the_document_without_its_last_member():
    before, _, after = TEXT.rpartition(',"value":"')

    assert after.endswith('"}}')
    assert canonical(json.loads(TEXT)) == TEXT
    signature = json.loads(TEXT)["signature"]
    SIGNER.public.key.verify(base64.b64decode(signature["value"]), (before + "}}").encode())


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON tree, the inner ones too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield (*path, name)
        yield from places(item, (*path, name))


def other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case str():
            return value + "x"
        case int() | float():
            return value + 1
        case list():
            return [*value, "x"]
        case dict():
            return value | {"x": "x"}


def altered(place: tuple[str | int, ...], *, remove: bool = False) -> str:
    document = json.loads(TEXT)
    parent = document
    for name in place[:-1]:
        parent = parent[name]
    if remove:
        del parent[place[-1]]
    else:
        parent[place[-1]] = other(parent[place[-1]])
    return canonical(document)


ALL_PLACES = list(places(json.loads(TEXT)))


def refusal(text: str) -> str:
    """Why a text is refused; empty if it is not."""
    try:
        verify_evidence(text, [SIGNER.public])
    except EvidenceInvalid as error:
        return error.what
    return ""


def test_every_single_field_is_signed():
    assert len(ALL_PLACES) > 150

    for place in ALL_PLACES:
        for why in (refusal(altered(place)), refusal(altered(place, remove=True))):
            assert "does not hold" in why if len(place) > 1 and place[0] == "evidence" else why, place


def test_every_single_character_is_signed():
    text = SIGNER.sign(passed(legs=[], checks=[]).to_json())

    changed = [text[:at] + chr(ord(character) ^ 1) + text[at + 1 :] for at, character in enumerate(text)]

    assert [text for text in changed if not refusal(text)] == []


def test_a_signature_has_one_spelling_although_base64_has_several():
    """The last character before the padding has four bits that no decoder looks at."""
    value = json.loads(TEXT)["signature"]["value"]
    last = BASE64.index(value[-3])
    same = [value[:-3] + BASE64[(last & 0b110000) | bits] + "==" for bits in range(16)]
    assert {base64.b64decode(text) for text in same} == {base64.b64decode(value)}

    for text in set(same) - {value}:
        with pytest.raises(EvidenceInvalid, match="not the base64 of 64 bytes"):
            verify_evidence(TEXT.replace(value, text), [SIGNER.public])


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(json.loads(TEXT), indent=2),
        TEXT + " ",
        TEXT + "\n\n",
        "\ufeff" + TEXT,
        canonical(dict(reversed(json.loads(TEXT).items()))).replace('"evidence":', '"evidence": '),
        json.dumps(dict(reversed(json.loads(TEXT).items())), separators=(",", ":")),
        TEXT.replace('"verdict":"PASSED"}', '"verdict":"FAILED","verdict":"PASSED"}'),
        TEXT.replace('"verdict":"PASSED"}', '"verdict":"PASSED","verdict":"PASSED"}'),
        TEXT.replace("83.412", "83.4120"),
        TEXT.replace("83.412", "8.3412e1"),
        TEXT.replace('"wal_files":412', '"wal_files":412.0'),
        TEXT.replace('"PASSED"', '"\\u0050ASSED"'),
        TEXT.replace('"pg_amcheck"', '"pg\\/amcheck"'),
    ],
    ids=[
        "indented",
        "space",
        "lines",
        "BOM",
        "inside",
        "reordered",
        "twice",
        "twice_the_same",
        "zero",
        "exponent",
        "float",
        "escape",
        "slash",
    ],
)
def test_another_spelling_is_refused_even_where_it_means_the_same(text: str):
    assert text != TEXT
    with pytest.raises(EvidenceInvalid, match=r"canonical form|no JSON"):
        verify_evidence(text, [SIGNER.public])


def test_the_line_feed_that_tools_add_is_no_part_of_it():
    assert verify_evidence(TEXT + "\n", [SIGNER.public]) == passed()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no JSON object"),
        (canonical(EVIDENCE), "no signed evidence"),
        ('{"evidence":{},"signature":"x"}', "no signed evidence"),
        (canonical(json.loads(TEXT) | {"approved": "yes"}), "other members"),
        (TEXT.replace('"algorithm":"ed25519"', '"algorithm":"none"'), "algorithm"),
        (TEXT.replace('"key_version":1', '"key_version":0'), "key_version"),
        (TEXT.replace('"key_version":1', '"key_version":true'), "key_version"),
        (TEXT.replace("83.412", "NaN"), "no canonical form"),
        (TEXT.replace("83.412", "1e999"), "no canonical form"),
        (TEXT.replace("83.412", str(2**53)), "no canonical form"),
        (TEXT.replace('"PASSED"', '"\\ud800"'), "no canonical form"),
    ],
)
def test_what_is_no_document_is_refused_saying_why(text: str, why: str):
    with pytest.raises(EvidenceInvalid, match=why) as refused:
        verify_evidence(text, [SIGNER.public])
    assert refused.value.code == "EVIDENCE"
    assert refused.value.remedy


def test_another_key_is_refused():
    with pytest.raises(EvidenceInvalid, match=f"the signature does not hold: {KEY}, version 1"):
        verify_evidence(TEXT, [LocalKey().public])


def test_a_key_of_another_name_or_version_is_not_even_tried():
    for stranger in (LocalKey(version=2), LocalKey(name="another")):
        with pytest.raises(EvidenceInvalid, match=rf"version 1, and the keys at hand are: {stranger.public}"):
            verify_evidence(TEXT, [stranger.public])
    with pytest.raises(EvidenceInvalid, match="are: none"):
        verify_evidence(TEXT, [])


def test_a_version_cannot_be_passed_off_as_another():
    """The version is signed, so that a key whose file does not say its version can be used too."""
    bare = PublicKey(key=SIGNER.public.key)
    assert verify_evidence(TEXT, [bare]) == passed()
    with pytest.raises(EvidenceInvalid, match="does not hold"):
        verify_evidence(TEXT.replace('"key_version":1', '"key_version":2'), [bare])
    with pytest.raises(EvidenceInvalid, match="does not hold"):
        verify_evidence(TEXT.replace(f'"key":"{KEY}"', '"key":"another"'), [bare])


def test_the_right_one_of_several_keys_is_found_and_named():
    keys = [LocalKey(version=3).public, LocalKey().public, SIGNER.public]

    assert verified(TEXT, keys).key is SIGNER.public


def test_a_format_of_tomorrow_is_named_once_its_signature_holds():
    tomorrow = SIGNER.sign(EVIDENCE | {"format_version": 2})
    with pytest.raises(EvidenceInvalid, match=r"format is none that this version knows \(1\).*format_version"):
        verify_evidence(tomorrow, [SIGNER.public])
    with pytest.raises(EvidenceInvalid, match="does not hold"):
        verify_evidence(tomorrow, [LocalKey().public])
    with pytest.raises(EvidenceInvalid, match=r"evidence\.approved_by"):
        verify_evidence(SIGNER.sign(EVIDENCE | {"approved_by": "x"}), [SIGNER.public])


def test_evidence_that_no_json_can_hold_is_not_signed():
    for value in (float("nan"), float("inf"), 2**53):
        with pytest.raises(EvidenceInvalid, match="no canonical form"):
            SIGNER.sign(EVIDENCE | {"rto_s": value})


def test_one_odd_byte_of_a_message_costs_no_proof():
    read = b"relation \xe9t\xe9\x00".decode("utf-8", "surrogateescape")
    check = {"name": read, "result": "PASSED", "seconds": 0.1}
    evidence = Evidence.model_validate(storable(EVIDENCE | {"bucket": read, "checks": [check]}))

    back = verify_evidence(SIGNER.sign(evidence.to_json()), [SIGNER.public])

    assert (back.bucket, back.checks[0].name) == ("relation \ufffdt\ufffd\ufffd",) * 2
    assert storable(EVIDENCE) == EVIDENCE


def test_the_names_of_tables_may_be_anything():
    counts = {'public."été\u0001\u007f\U0001f418': 1, "public.ﬁ": 2, "\ue000": 3, "\U00010000": 4, "": 5}
    evidence = passed(legs=[EVIDENCE["legs"][0] | {"row_counts": counts}])

    assert verify_evidence(SIGNER.sign(evidence.to_json()), [SIGNER.public]) == evidence


def test_pem_says_which_key_it_is_and_openssl_still_reads_it():
    second = LocalKey(version=2)
    text = pem_of(SIGNER.public) + pem_of(second.public)

    keys = read_public_keys(text, source="keys.pem")

    assert [(key.name, key.version, key.fingerprint) for key in keys] == [
        (KEY, 1, SIGNER.public.fingerprint),
        (KEY, 2, second.public.fingerprint),
    ]
    (bare,) = read_public_keys(text[text.index("-----") : text.index(f"{KEY} version 2")], source="key.pem")
    assert (bare.name, bare.version, bare.fingerprint) == (None, None, SIGNER.public.fingerprint)
    windows = pem_of(SIGNER.public).replace("\n", "\r\n")
    assert read_public_keys(windows, source="key.pem")[0].fingerprint == SIGNER.public.fingerprint


def public_pem(key: Any) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no public key"),
        ("{", "neither PEM nor JSON"),
        ("{}", "no public keys of Transit"),
        ('{"data":{"keys":{}}}', "no public keys of Transit"),
        ('{"data":{"keys":{"1":1700000000}}}', "no ed25519"),
        ('{"data":{"keys":{"1":{"public_key":"AAAA"}}}}', "no ed25519"),
        (
            Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "holds no public key",
        ),
        (public_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()), "no ed25519"),
        (pem_of(SIGNER.public).replace("MCow", "MCoM"), "no ed25519"),
    ],
    ids=["empty", "JSON cut", "other JSON", "no versions", "symmetric", "short", "private", "RSA", "broken"],
)
def test_a_file_without_a_usable_key_is_named(text: str, why: str):
    with pytest.raises(ConfigurationError, match=f"keys.pem.*{why}|keys.pem is {why}"):
        read_public_keys(text, source="keys.pem")
