"""The settings of SPEC section 5 (CC-47-10): what guards safety is rejected, what tunes speed is clamped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pv_backup.services.errors import ConfigurationError

log = logging.getLogger(__name__)

ENV_PREFIX: Final = "PV_BACKUP_"

# Constants and no settings: someone answers for them to an auditor (SPEC section 5).
CLEARTEXT_TTL_S: Final = 300
DRILL_PERIOD_DAYS: Final = 90
RETENTION_DAYS: Final = 30
# Decimal: "always above 100 MB, either way below" then holds whether the reader thinks of 10^6 or of 2^20.
MULTIPART_ABOVE_BYTES: Final = 100 * 10**6

_HAMMERS_BELOW_MS = 100


def _clamp(low: float, high: float) -> AfterValidator:
    def clamp(value: float, info: ValidationInfo) -> float:
        bounded = min(max(value, low), high)
        if bounded != value:
            log.warning(
                "setting %s is %s, outside %s … %s: %s is used instead", info.field_name, value, low, high, bounded
            )
        return bounded

    return AfterValidator(clamp)


_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Settings(BaseSettings):
    """What an operator may tune; frozen, since a run must end by the rules that it began with.

    Each is read from ``PV_BACKUP_`` and its name in capitals. Make one with :meth:`load`: an empty value counts as
    missing there, and all that is wrong comes in one readable error.

    :ivar delay_initial_ms: milliseconds before the first retry of an export.
    :ivar factor: each later delay is this many times the one before.
    :ivar max_export_retries: retries of an export within one attempt (ERR-47-01).
    :ivar timeout_upload_s: seconds without a completed part after which an upload fails (ERR-47-03).
    :ivar max_replanification_cycles: FAILED → SCHEDULED as often as this, then the circuit breaker opens.
    :ivar watchdog_wait_s: seconds that the watchdog waits for the object.
    :ivar relaunch_timeout_s: seconds that the relaunch waits for its run (ERR-47-05).
    :ivar lease_s: seconds that a working task's lease lasts without renewal.
    :ivar handover_s: seconds that an ending task leaves to the next one.
    :ivar scheduled_timeout_s: seconds after which a row that stays SCHEDULED is failed.
    :ivar part_size_mb: MiB of one upload part, before it grows so that 10,000 suffice.
    :ivar wal_parallelism: WAL files shipped at once.
    :ivar bucket: the S3 bucket.
    :ivar kms_key_id: the key of S3's own encryption, ``SSEKMSKeyId``.
    :ivar transit_key: the Vault Transit key that wraps the DEKs.
    :ivar evidence_key: the Vault Transit key (ed25519) that signs the evidence of drills.
    :ivar pg_bin_dir: where pg_dump and its kin are, when it is not the PATH that finds the right ones.
    :ivar wal_directory: where pg_receivewal writes, on the workers of queue `pv_backup_wal`.
    :ivar staging_directory: where a cluster with extra tablespaces is staged and drills restore; None takes the
        worker's temporary one.
    :ivar contract_directory: the checks that a restored database must pass, `*.sql`.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    delay_initial_ms: Annotated[int, _clamp(10, 60_000)] = 1000
    factor: Annotated[float, Field(allow_inf_nan=False), _clamp(1, 10)] = 2.0
    max_export_retries: Annotated[int, Field(ge=0, le=3)] = 3
    timeout_upload_s: Annotated[int, _clamp(60, 21_600)] = 3600
    max_replanification_cycles: Annotated[int, Field(ge=1, le=10)] = 3
    watchdog_wait_s: Annotated[int, _clamp(0, 3600)] = 300
    relaunch_timeout_s: Annotated[int, _clamp(60, 21_600)] = 7200
    lease_s: Annotated[int, _clamp(15, 600)] = 60
    handover_s: Annotated[int, _clamp(60, 7200)] = 900
    scheduled_timeout_s: Annotated[int, _clamp(60, 21_600)] = 1800
    part_size_mb: Annotated[int, _clamp(5, 512)] = 16
    wal_parallelism: Annotated[int, _clamp(1, 32)] = 4
    bucket: _Name
    kms_key_id: _Name
    transit_key: _Name
    evidence_key: _Name = "pv-backup-evidence"
    pg_bin_dir: Path | None = None
    wal_directory: Path = Path("/var/wal-archive")
    staging_directory: Path | None = None
    contract_directory: Path = Path(__file__).parents[3] / "include" / "sql" / "contract"

    @classmethod
    def load(cls, extra: Mapping[str, str] | None = None) -> Self:
        """Read the environment, and below it what the caller found elsewhere (an Airflow Variable, Vault).

        :param extra: values by setting name, such as ``{"lease_s": "90"}``.
        :raises ConfigurationError: naming every setting that is missing, unreadable, unknown or out of safe bounds.
        """
        given: dict[str, Any] = {name: value for name, value in (extra or {}).items() if value != ""}
        try:
            return cls(**given)
        except ValidationError as error:
            problems = error.errors(include_url=False)
        raise ConfigurationError(
            "; ".join(_problem(problem) for problem in problems),
            remedy=f"set the named {ENV_PREFIX}… variables, or the same names in the settings that Airflow hands in",
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before what code hands in: whoever is on the machine at 04:10 has the last word."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _warn_of_hammering(self) -> Self:
        if self.delay_initial_ms < _HAMMERS_BELOW_MS and self.factor <= 1:
            log.warning(
                "delay_initial_ms %s with factor %s hammers a source that is already in trouble: "
                "retries stay %s ms apart",
                self.delay_initial_ms,
                self.factor,
                self.delay_initial_ms,
            )
        return self

    def delay(self, attempt: int) -> timedelta:
        """How long to wait before a retry: min(delay_initial × factor^attempt, timeout_upload).

        :param attempt: 0 before the first retry.
        """
        longest = timedelta(seconds=self.timeout_upload_s)
        try:
            return min(timedelta(milliseconds=self.delay_initial_ms * self.factor**attempt), longest)
        except OverflowError:  # an upload may be retried for hours, and 2.0**1024 is no float
            return longest


def _problem(problem: ErrorDetails) -> str:
    """One line of what is wrong: the variable, its value, its bounds."""
    name = str(problem["loc"][0])
    variable = ENV_PREFIX + name.upper()
    match problem["type"]:
        case "missing" | "string_too_short":
            return f"{variable} is missing and has no default"
        case "extra_forbidden":
            return f"{name} is no setting of pv_backup"
        case "greater_than_equal" | "less_than_equal":
            return f"{variable} is {problem['input']!r}, refused: it guards safety, its bounds are {_bounds(name)}"
        case _:
            return f"{variable} is {problem['input']!r}: {problem['msg']}"


def _bounds(name: str) -> str:
    metadata = Settings.model_fields[name].metadata
    low = next(item.ge for item in metadata if hasattr(item, "ge"))
    high = next(item.le for item in metadata if hasattr(item, "le"))
    return f"{low} … {high}"
