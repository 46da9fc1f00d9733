"""Key wrapping against a real OpenBao: round trips, rotation, and wrapped keys that it refuses."""

from __future__ import annotations

import base64

import pytest

from pv_backup.services.errors import IntegrityError
from pv_backup.services.key_wrapping import WrappedKeyRefused, new_dek, wiped
from tests.integration.vault_world import KEY, Connect, Engine
from tests.support.servers import TestStack


@pytest.mark.case("TC-INV-02", "TC-INV-03")
def test_a_dek_comes_back_from_its_wrapped_form_alone(stack: TestStack, connect: Connect) -> None:
    """As the service does it: the provider's hook, and a token that may do nothing but encrypt and decrypt."""
    keys = connect(stack.vault.address, token=stack.backup_token).key_wrapper(KEY)
    dek = new_dek()
    wrapped = keys.wrap(dek)
    assert wrapped.wrapped_dek.startswith(f"vault:v{wrapped.k_backup_version}:")
    assert base64.b64encode(dek).decode() not in wrapped.wrapped_dek
    assert keys.unwrap(wrapped.wrapped_dek) == dek


@pytest.mark.case("TC-INV-02")
def test_each_artefact_has_a_dek_of_its_own_and_unwrapped_ones_are_wiped(engine: Engine) -> None:
    keys = engine.wrapper()
    deks = [new_dek() for _ in range(5)]
    wrapped = [keys.wrap(dek).wrapped_dek for dek in deks]
    assert len({bytes(dek) for dek in deks}) == len(set(wrapped)) == 5
    for dek, text in zip(deks, wrapped, strict=True):
        with wiped(keys.unwrap(text)) as unwrapped:
            assert unwrapped == dek
        assert unwrapped == bytearray(32)


@pytest.mark.case("TC-NEG-03", "TC-NR-05")
def test_old_artefacts_open_after_a_rotation(engine: Engine) -> None:
    keys, dek = engine.wrapper(), new_dek()
    before = keys.wrap(dek)
    engine.rotate()
    after = keys.wrap(dek)
    assert (before.k_backup_version, after.k_backup_version) == (1, 2)
    assert keys.unwrap(before.wrapped_dek) == keys.unwrap(after.wrapped_dek) == dek


@pytest.mark.case("TC-NEG-03")
def test_a_wrong_key_version_is_refused(engine: Engine) -> None:
    keys = engine.wrapper()
    wrapped = keys.wrap(new_dek()).wrapped_dek
    with pytest.raises(WrappedKeyRefused, match=r"version 7 of the key is not available.*too new"):
        keys.unwrap(wrapped.replace("vault:v1:", "vault:v7:"))
    engine.rotate()
    with pytest.raises(WrappedKeyRefused, match="refused the wrapped DEK of key version 2"):
        keys.unwrap(wrapped.replace("vault:v1:", "vault:v2:"))
    engine.retire_below(2)
    with pytest.raises(WrappedKeyRefused, match=r"version 1 of the key is not available.*too old"):
        keys.unwrap(wrapped)


@pytest.mark.case("TC-NEG-03", "TC-NEG-04")
def test_version_zero_is_refused_although_vault_takes_it_for_one(engine: Engine) -> None:
    keys, dek = engine.wrapper(), new_dek()
    forged = keys.wrap(dek).wrapped_dek.replace("vault:v1:", "vault:v0:")
    as_vault_reads_it = engine.transit.decrypt_data(KEY, ciphertext=forged, mount_point=engine.mount)
    assert base64.b64decode(as_vault_reads_it["data"]["plaintext"]) == dek
    with pytest.raises(WrappedKeyRefused, match="N from 1"):
        keys.unwrap(forged)


@pytest.mark.case("TC-NEG-04")
def test_a_changed_wrapped_dek_is_an_integrity_error(engine: Engine) -> None:
    keys = engine.wrapper()
    prefix, _, text = keys.wrap(new_dek()).wrapped_dek.rpartition(":")
    forged = bytearray(base64.b64decode(text))
    forged[-1] ^= 1
    with pytest.raises(IntegrityError, match=r"refused the wrapped DEK.*authentication failed"):
        keys.unwrap(f"{prefix}:{base64.b64encode(forged).decode()}")
    with pytest.raises(IntegrityError, match=r"refused the wrapped DEK.*length"):
        keys.unwrap("vault:v1:QUJD")


@pytest.mark.case("TC-NEG-04")
def test_a_wrapped_secret_that_is_no_dek_is_refused(engine: Engine) -> None:
    keys = engine.wrapper()
    with pytest.raises(WrappedKeyRefused, match="a key of 16 bytes, a DEK has 32"):
        keys.unwrap(keys.wrap(bytearray(16)).wrapped_dek)


@pytest.mark.case("TC-INV-03")
def test_the_mount_point_comes_from_the_connection(stack: TestStack, engine: Engine, connect: Connect) -> None:
    hook = connect(stack.vault.address, token=engine.token(), transit_mount_point=engine.mount)
    dek = new_dek()
    wrapped = hook.key_wrapper(KEY).wrap(dek).wrapped_dek
    assert engine.wrapper().unwrap(wrapped) == dek
