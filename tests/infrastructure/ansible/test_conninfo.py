"""The connection string as a service file, held against libpq, which reads both."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from tests.infrastructure.ansible.receivewal_world import ROLE

pytestmark = pytest.mark.case("TC-INF-03")

_PROGRAM = ROLE / "files" / "conninfo.jq"
_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=12)
_VALUES = _WORDS.filter(lambda word: word == word.rstrip())
_BARE = st.text("abcXYZ019.-_/", min_size=1, max_size=8)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SETTING = st.builds(
    "{}{}{}".format,
    st.sampled_from(["host", "user", "password", "sslmode", "application_name", "connect_timeout", "options"]),
    st.sampled_from(["=", " = ", " =\t"]),
    st.one_of(_VALUES.map(_quoted), _BARE),
)


def convert(answer: object) -> subprocess.CompletedProcess[str]:
    """What the program makes of Vault's answer."""
    command = "jq --raw-output --arg service pv_backup --arg where kv/pv-backup/receivewal --from-file"
    return subprocess.run(
        [*command.split(), _PROGRAM],
        input=json.dumps(answer),
        capture_output=True,
        text=True,
        check=False,
    )


def of(conninfo: object) -> subprocess.CompletedProcess[str]:
    return convert({"data": {"data": {"conninfo": conninfo}}})


@pytest.fixture(scope="module")
def read_back(tmp_path_factory):
    """What libpq reads of a service file."""
    path: Path = tmp_path_factory.mktemp("service") / "pg_service.conf"

    def read(text: str) -> dict[str, str]:
        path.write_text(text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGSERVICEFILE", str(path))
            patch.setenv("PGSERVICE", "pv_backup")
            return {option.keyword.decode(): (option.val or b"").decode() for option in pq.Conninfo.get_defaults()}

    return read


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(_SETTING, min_size=1, max_size=5))
def test_libpq_reads_the_same_of_both(read_back, parts):
    conninfo = "  ".join(parts)

    done = of(conninfo)

    assert done.returncode == 0, done.stderr
    meant = conninfo_to_dict(conninfo) | {"application_name": "pv_backup"}
    assert {key: value for key, value in read_back(done.stdout).items() if key in meant} == meant


def test_a_network_that_swallows_packets_is_noticed_unless_the_string_says_otherwise(read_back):
    assert read_back(of("host=a").stdout)["tcp_user_timeout"] == "60000"
    assert read_back(of("host=a tcp_user_timeout=5").stdout)["tcp_user_timeout"] == "5"


@pytest.mark.parametrize(
    ("conninfo", "reason"),
    [
        (None, "is missing"),
        ("", "is missing"),
        (5, "is missing"),
        ("postgresql://me:geheim@host/db", "is a URI; write it as host="),
        ("host", "is no connection string"),
        ("password='geheim", "is no connection string"),
        ("password=geheim'", None),
        ("host=a geheim", "is no connection string"),
        ("password='geheim\nx'", "has a line break in password"),
        ("password='geheim '", "a space at its end"),
    ],
)
def test_what_is_no_connection_string_is_refused_without_repeating_it(conninfo, reason):
    done = of(conninfo)

    assert (done.returncode == 0) == (reason is None)
    assert (reason or "") in done.stderr
    assert "geheim" not in done.stderr
    assert reason is None or done.stdout == ""
