"""How the cron watchdog tells people: by mail and webhook both, and of one finding once a day (CC-47-16)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from pv_backup.services.artefacts import manifest_key
from tests.infrastructure.ansible.login_mailbox import PASSWORD, USER, login_mailbox
from tests.infrastructure.ansible.watchdog_world import watchdog_world
from tests.integration.backup_world import KEY
from tests.support.mailbox import TO
from tests.support.webhook import SECRET_PATH

pytestmark = pytest.mark.case("TC-INF-03", "TC-INV-06")

ABSENT, WRONG, UNTOLD = 1, 2, 5
NEXT_DAY = "2026-03-30T04:15+02:00"


@pytest.fixture
def host(stack, bucket, tmp_path):
    with watchdog_world(stack, bucket, tmp_path) as host:
        yield host


def test_the_webhook_gets_all_in_fields_and_a_text_that_slack_shows_as_it_is(host):
    host.put_backup(key="<b>&")
    host.finds(WRONG, "ERR-47-04", "<b>&")
    (alert,) = host.people.webhook.received
    assert set(alert) == {"text", "level", "code", "day", "host", "cause", "next_step"}
    assert (alert["level"], alert["day"]) == ("critical", "2026-03-29")
    head, cause, step = alert["text"].split("\n")
    assert head == f"CRITICAL ERR-47-04 cron@{alert['host']} 2026-03-29"
    assert cause == alert["cause"].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert step == f"Next: {alert['next_step']}"


def test_the_mail_is_a_proper_one(host):
    host.finds(ABSENT, "WATCHDOG-ABSENT")
    (mail,) = host.people.mail.messages
    name = host.people.webhook.received[0]["host"]
    assert mail["Subject"] == f"[pv-backup] CRITICAL WATCHDOG-ABSENT cron@{name} 2026-03-29"
    assert (mail["From"], mail["To"]) == ("watchdog@example.com", ", ".join(TO))
    assert abs(parsedate_to_datetime(mail["Date"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert mail["Message-ID"].endswith(f"@{name}>")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.defects == []


def test_a_finding_is_told_once_a_day_and_another_one_at_once(host):
    host.finds(ABSENT, "WATCHDOG-ABSENT", "neither")
    for _ in range(2):
        assert host.run().status == ABSENT
    assert host.people.codes == ["WATCHDOG-ABSENT"]
    host.put_backup(size_bytes=1)
    host.finds(WRONG, "ERR-47-04")
    host.bucket.delete(manifest_key(KEY))
    host.finds(ABSENT, "WATCHDOG-ABSENT", "its manifest is not")
    host.finds(ABSENT, "WATCHDOG-ABSENT", "2026-03-30", at=NEXT_DAY)


def test_what_was_mended_and_comes_again_is_told_again(host):
    host.finds(ABSENT, "WATCHDOG-ABSENT")
    host.put_backup()
    assert host.run().status == 0
    host.bucket.empty()
    host.finds(ABSENT, "WATCHDOG-ABSENT")


def test_a_mail_server_that_refuses_keeps_the_webhook_from_nothing_and_is_tried_again(host):
    host.people.mail.refusing = "451 come back later"
    run = host.run()
    assert run.status == ABSENT, run.err
    assert "no mail: " in run.err
    assert host.people.webhook.codes == ["WATCHDOG-ABSENT"]
    host.people.mail.refusing = ""
    assert "no mail" not in host.run().err
    assert host.people.codes == ["WATCHDOG-ABSENT"]  # by both now, and by neither twice


def test_a_webhook_that_fails_keeps_the_mail_from_nothing_and_is_tried_again(host):
    host.people.webhook.status = 500
    run = host.run()
    assert run.status == ABSENT, run.err
    assert "no webhook: HTTP status 500. Next: " in run.err
    assert SECRET_PATH not in run.err
    assert len(host.people.mail.messages) == 1
    host.people.webhook.status = 200
    assert host.run().status == ABSENT
    assert host.people.codes == ["WATCHDOG-ABSENT"]


def test_when_nobody_can_be_told_the_exit_status_says_so_until_somebody_is(host):
    host.people.webhook.status = 500
    host.people.mail.refusing = "451 come back later"
    for _ in range(2):
        run = host.run()
        assert run.status == UNTOLD, run.err
        assert "WATCHDOG-ABSENT" in run.err
        assert run.err.endswith("nobody was told\n")
    host.people.mail.refusing = ""
    assert host.run().status == ABSENT


def test_without_anything_in_vault_about_alerts_there_is_mail(host):
    host.vault.forget("pv-backup/watchdog")
    run = host.run()
    assert run.status == ABSENT, run.err
    assert "no webhook" not in run.err
    assert len(host.people.mail.messages) == 1
    assert host.people.webhook.received == []


def test_a_mail_server_that_wants_a_login_gets_it_over_tls(host, tmp_path):
    with login_mailbox(tmp_path) as box:
        host.keep_alerts(smtp_url=f"smtp://127.0.0.1:{box.port}", smtp_user=USER, smtp_password=PASSWORD)
        assert host.run(SSL_CERT_FILE=str(box.authority)).status == ABSENT
        assert box.logins == [PASSWORD]
        assert len(box.messages) == 1
        assert box.greeting == host.people.webhook.received[0]["host"]
    assert host.people.mail.messages == []


def test_no_password_is_sent_to_a_mail_server_without_tls_or_with_a_strange_certificate(host, tmp_path):
    host.keep_alerts(smtp_user=USER, smtp_password=PASSWORD)
    run = host.run()
    assert (run.status, host.people.mail.messages) == (ABSENT, [])
    assert "no mail: " in run.err
    with login_mailbox(tmp_path) as box:
        host.keep_alerts(smtp_url=f"smtp://127.0.0.1:{box.port}", smtp_user=USER, smtp_password=PASSWORD)
        assert "certificate" in host.run().err
        assert box.logins == []


def test_the_test_alert_reaches_both_at_any_hour_as_often_as_asked(host):
    for _ in range(2):
        run = host.run("--test-alert", at="2026-03-29T00:30+01:00")
        assert run.status == 0, run.err
    assert host.people.codes == ["TEST", "TEST"]


def test_a_look_that_shall_alert_nobody_alerts_nobody_and_is_not_remembered(host):
    assert host.run("--no-alert").status == ABSENT
    assert host.people.codes == []
    host.finds(ABSENT, "WATCHDOG-ABSENT")
