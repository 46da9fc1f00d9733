"""A drill's proof on its way: bucket, mail and webhook get the very bytes, and one that is down keeps nothing back."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from dev.airflow_env import standalone_settings
from dev.provisioning.keys import SSE_KEY, TRANSIT_KEY
from pv_backup.cli.main import main
from pv_backup.operators.evidence_delivery import Delivery, deliver
from pv_backup.services.evidence.report import html
from pv_backup.services.evidence.verification import verify_evidence
from pv_backup.services.object_store import ObjectStore
from tests.integration.bucket_view import BucketView
from tests.support.evidence import DRILL_ID, LocalKey, failed, passed
from tests.support.people import People
from tests.support.servers import Bucket, TestStack
from tests.support.webhook import SECRET_PATH

pytestmark = pytest.mark.case("TC-NOM-04", "TC-INV-09")

SIGNER = LocalKey()
EVIDENCE = passed()
TEXT = SIGNER.sign(EVIDENCE.to_json())
KEY = f"evidence/2026/11/drill_{DRILL_ID}"
ALL = Delivery(delivered=["bucket", "mail", "webhook"])


@pytest.fixture
def view(bucket: Bucket) -> BucketView:
    return BucketView(bucket)


@pytest.fixture
def store(bucket: Bucket) -> ObjectStore:
    return ObjectStore(client=bucket.user, bucket=bucket.name, kms_key_id=SSE_KEY, timeout_s=2)


def attachments(mail: EmailMessage) -> dict[str | None, str]:
    return {part.get_filename(): part.get_payload(decode=True).decode() for part in mail.iter_attachments()}


def test_everybody_gets_the_document_byte_for_byte(people: People, view: BucketView, store: ObjectStore):
    assert deliver(TEXT, EVIDENCE, store=lambda: store) == ALL

    assert view.keys() == [f"{KEY}.html", f"{KEY}.json"]
    assert view.body(f"{KEY}.json").decode() == TEXT
    assert view.body(f"{KEY}.html").decode() == html(TEXT)
    assert view.head(f"{KEY}.json")["ContentType"] == "application/json"
    assert view.head(f"{KEY}.html")["ContentType"] == "text/html; charset=utf-8"
    assert view.head(f"{KEY}.json")["ServerSideEncryption"] == "aws:kms"
    (mail,) = people.mail.messages
    assert mail["Subject"] == "[pv-backup] EVIDENCE DRILL-PASSED 2026-11-22 target 2026-11-22T08:30:00.000000Z"
    assert people.mail.text_of() == html(TEXT)
    assert attachments(mail) == {f"drill_{DRILL_ID}.json": TEXT, f"drill_{DRILL_ID}.html": html(TEXT)}
    (posted,) = people.webhook.received
    assert verify_evidence(posted["evidence"], [SIGNER.public]) == EVIDENCE
    assert people.codes == ["DRILL-PASSED"]


def test_a_task_that_is_tried_again_finds_its_copy(people: People, view: BucketView, store: ObjectStore):
    deliver(TEXT, EVIDENCE, store=lambda: store)

    assert deliver(TEXT, EVIDENCE, store=lambda: store) == ALL

    assert view.versions() == [f"{KEY}.html", f"{KEY}.json"]


def test_somebody_elses_copy_is_named_and_left(people: People, view: BucketView, store: ObjectStore):
    view.put(f"{KEY}.json", b"{}")

    delivery = deliver(TEXT, EVIDENCE, store=lambda: store)

    assert delivery.delivered == ["mail", "webhook"]
    assert f"{KEY}.json was written by somebody else" in delivery.failed["bucket"]
    assert view.body(f"{KEY}.json") == b"{}"


def test_what_is_down_keeps_nothing_from_the_others(
    people: People, stack: TestStack, store: ObjectStore, caplog: pytest.LogCaptureFixture
):
    people.webhook.status = 500
    stack.s3.kill()

    delivery = deliver(TEXT, EVIDENCE, store=lambda: store)

    assert delivery.delivered == ["mail"]
    assert delivery.failed.keys() == {"bucket", "webhook"}
    assert "S3 does not answer" in delivery.failed["bucket"]
    assert "HTTP status 500" in delivery.failed["webhook"]
    assert "the evidence did not get to bucket" in caplog.text
    assert SECRET_PATH not in caplog.text + str(delivery)


def test_a_mail_server_that_refuses_is_named(people: People, store: ObjectStore):
    people.mail.refusing = "552 message too large"

    delivery = deliver(TEXT, EVIDENCE, store=lambda: store)

    assert delivery.delivered == ["bucket", "webhook"]
    assert "552" in delivery.failed["mail"]


def test_a_channel_that_nobody_configured_is_no_failure(monkeypatch: pytest.MonkeyPatch, store: ObjectStore):
    for name in ("AIRFLOW_CONN_PV_BACKUP_SMTP", "AIRFLOW_CONN_PV_BACKUP_WEBHOOK"):
        monkeypatch.delenv(name, raising=False)

    assert deliver(TEXT, EVIDENCE, store=lambda: store) == Delivery(delivered=["bucket"])


def test_the_copy_is_found_from_the_command_line(
    stack: TestStack,
    view: BucketView,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    settings = standalone_settings(
        vault_address=stack.vault.address, vault_token="", s3_endpoint=stack.s3.endpoint, s3_key=stack.backup_user
    )
    own = {"PV_BACKUP_BUCKET": view.name, "PV_BACKUP_KMS_KEY_ID": SSE_KEY, "PV_BACKUP_TRANSIT_KEY": TRANSIT_KEY}
    for name, value in (settings | own).items():
        monkeypatch.setenv(name, value)
    assert main(["evidence", "list"]) == 0
    assert "holds no evidence" in capsys.readouterr().out
    second = passed(drill_id="00000000-2f35-4a2e-9f0c-0e3a6b1f4c11", started_at="2027-02-20T08:00:00Z")
    deliver(TEXT, EVIDENCE, store=lambda: store)
    deliver(SIGNER.sign(second.to_json()), second, store=lambda: store)

    assert main(["evidence", "list"]) == 0
    assert capsys.readouterr().out.split() == [f"{KEY}.json", f"evidence/2027/02/drill_{second.drill_id}.json"]
    assert main(["evidence", "fetch", DRILL_ID]) == 0
    assert capsys.readouterr().out == TEXT
    assert main(["evidence", "fetch", "another"]) == 1
    assert "no evidence of drill another" in capsys.readouterr().err


def test_a_failed_drills_mail_says_so(people: People, store: ObjectStore):
    evidence = failed("rows: <b>\r\nBcc: everybody@example.com")

    deliver(SIGNER.sign(evidence.to_json()), evidence, store=lambda: store)

    assert people.codes == ["DRILL-FAILED"]
    assert "rows: &lt;b&gt;" in people.mail.text_of()
    assert people.mail.messages[0]["Bcc"] is None
