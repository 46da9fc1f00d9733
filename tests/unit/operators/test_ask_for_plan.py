"""What the task that asks makes of an answer that never came, as the scheduler hands it over."""

from __future__ import annotations

import pytest
from airflow.providers.standard.exceptions import HITLTriggerEventError

from pv_backup.operators.retrying import next_delay
from pv_backup.services.drill_errors import PlanMissing
from pv_backup.services.settings import Settings
from tests.dags.dag_world import dag_bag

pytestmark = pytest.mark.case("TC-ERR-07")

SETTINGS = Settings(bucket="b", kms_key_id="k", transit_key="t")


@pytest.fixture
def asking():
    return dag_bag().dags["pv_backup_incident"].get_task("ask_for_the_action_plan")


def test_seven_days_of_silence_close_nothing_and_are_not_tried_again(asking):
    silence = {"error": "The response timeout has passed without a response.", "error_type": "timeout"}
    with pytest.raises(PlanMissing, match="nobody has said within 7 days") as refused:
        asking.execute_complete({}, silence)

    assert "pv_backup_compliance" in refused.value.remedy
    assert next_delay(refused.value, 1, SETTINGS) is None


def test_an_answer_that_airflow_could_not_take_is_no_answer(asking):
    broken = {"error": "x", "error_type": "unknown"}
    with pytest.raises(HITLTriggerEventError) as failed:
        asking.execute_complete({}, broken)

    # It is asked again.
    assert next_delay(failed.value, 1, SETTINGS) is not None
