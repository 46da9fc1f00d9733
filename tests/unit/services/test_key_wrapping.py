"""What key wrapping decides without Vault; against a real one: tests/integration/test_key_wrapping.py."""

from __future__ import annotations

import pytest

from pv_backup.services.envelope import key_version_of
from pv_backup.services.errors import FormatRejected
from pv_backup.services.key_wrapping import new_dek, wiped


@pytest.mark.case("TC-NEG-03")
@pytest.mark.parametrize(("wrapped_dek", "version"), [("vault:v1:QUJD", 1), ("vault:v12:QUI=", 12)])
def test_the_key_version_is_the_n_of_the_wrapped_key(wrapped_dek: str, version: int) -> None:
    assert key_version_of(wrapped_dek) == version


@pytest.mark.case("TC-NEG-03", "TC-NEG-05")
@pytest.mark.parametrize(
    "wrapped_dek",
    ["", "vault:QUJD", "vault:v0:QUJD", "vault:v01:QUJD", "vault:v-1:QUJD", "vault:v1:", "vault:v1:QU JD",
     "vault:v1:QUJD\n", "Vault:v1:QUJD", "vault:v١:QUJD", "vault:v9999999999:QUJD"],
)  # fmt: skip
def test_any_other_form_is_refused_without_repeating_it(wrapped_dek: str) -> None:
    with pytest.raises(FormatRejected) as refused:
        key_version_of(wrapped_dek)
    assert "QU" not in str(refused.value)


@pytest.mark.case("TC-INV-02")
def test_a_wiped_key_is_zero_after_use_and_after_an_error() -> None:
    dek = new_dek()
    with wiped(dek) as in_use:
        assert in_use is dek
        assert any(in_use)
    assert dek == bytearray(32)

    dek = new_dek()
    with pytest.raises(KeyError), wiped(dek):
        raise KeyError
    assert dek == bytearray(32)
