"""What the collector can be told, in one typed place, each with its default and unit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edgeml.collector.drift.budget import Budget
from edgeml.collector.drift.policy import Policy
from edgeml.collector.drift.season import Season
from edgeml.collector.keep.rule import Rule
from edgeml.decoding import from_plain, from_toml
from edgeml.errors import UsageError

Port = Annotated[int, Meta(ge=0, le=65535)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base: a key that is not known is an error, not a silent default."""


class BrokerConfig(Section, frozen=True, kw_only=True):
    """Where the fleet talks."""

    host: str = "127.0.0.1"
    port: Port = 1883
    client_id: str = ""
    """Empty: derived from machine and database, so that the broker keeps one session for us."""
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 30
    session_days: Annotated[int, Meta(ge=1, le=365)] = 7
    """How long an MQTT 5 broker keeps messages for a collector that is away."""


class HttpConfig(Section, frozen=True, kw_only=True):
    """The REST API and the pages."""

    host: str = "127.0.0.1"
    """Another address than loopback needs a token."""
    port: Port = 8470
    """0 takes a free one and says which."""
    token_file: str = ""
    """Holds the token that callers must show; empty: the environment may have one."""
    allowed_hosts: tuple[str, ...] = ()
    """Names under which it is called besides localhost and its addresses: a reverse proxy's."""
    user_header: str = "X-Edgeml-User"
    """Says who changes something; where a proxy has a login, the header that it sets."""
    max_bundle_mb: Annotated[int, Meta(ge=1)] = 2048


class AlarmConfig(Section, frozen=True, kw_only=True):
    """The budget of false alarms, and what is worth one."""

    false_alarms: Annotated[float, Meta(gt=0)] = 1.0
    """Expected false alarms of the whole fleet in the period, at most."""
    per_days: Annotated[float, Meta(gt=0)] = 365.0
    per_windows: Annotated[int, Meta(ge=0)] = 0
    """The period in windows of each stream; 0 means ``per_days``."""
    reference_windows: Annotated[int, Meta(ge=8, le=10_000)] = Policy().reference
    longest_reference: Annotated[int, Meta(ge=100)] = Policy().longest_reference
    season: Season = Policy().season
    """The longest season that the world is expected to have; no stream is armed before its history
    shows it."""
    min_rows: Annotated[int, Meta(ge=5)] = Policy().min_rows
    min_effect: Annotated[float, Meta(ge=0, le=1)] = Policy().min_effect
    close_after: Annotated[int, Meta(ge=1, le=100)] = Policy().close_after

    @property
    def budget(self) -> Budget:
        """As the drift core has it."""
        return Budget(
            false_alarms=self.false_alarms, per_days=self.per_days, per_windows=self.per_windows
        )

    @property
    def policy(self) -> Policy:
        """As the drift core has it."""
        return Policy(
            reference=self.reference_windows,
            longest_reference=self.longest_reference,
            season=self.season,
            min_rows=self.min_rows,
            min_effect=self.min_effect,
            close_after=self.close_after,
        )


Days = Annotated[float, Meta(ge=0, le=36_500)]


class KeepConfig(Section, frozen=True, kw_only=True):
    """How long what is kept. 0 days are for ever."""

    windows_days: Days = Rule().windows_days
    """Each window, with what was found of it; then they are merged into hours, …"""
    hours_days: Days = Rule().hours_days
    """… then into days, …"""
    days_days: Days = Rule().days_days
    """… and in the end they are deleted, with what devices told."""

    def __post_init__(self) -> None:
        ages = [days for days in (self.windows_days, self.hours_days, self.days_days) if days]
        if ages != sorted(ages):
            raise ValueError("windows_days, hours_days and days_days have to grow in that order")

    @property
    def rule(self) -> Rule:
        """As the keeper has it."""
        return Rule(
            windows_days=self.windows_days, hours_days=self.hours_days, days_days=self.days_days
        )


class CollectorConfig(Section, frozen=True, kw_only=True):
    """A collector."""

    database: str = "edgeml-collector.sqlite"
    """A path for SQLite, or a SQLAlchemy URL."""
    bundles: tuple[str, ...] = ()
    """Bundles whose baselines are learned at start."""
    embedded_broker: bool = False
    """Bring an MQTT broker for a try-out; ``broker.port`` 0 then takes a free port."""
    broker: BrokerConfig = BrokerConfig()
    http: HttpConfig = HttpConfig()
    alarms: AlarmConfig = AlarmConfig()
    keep: KeepConfig = KeepConfig()


def load_config(path: Path) -> CollectorConfig:
    """Read a TOML file.

    Raises:
        UsageError: it is missing, no TOML, or holds a key or value that is not known.
    """
    try:
        return from_toml(path.read_bytes(), CollectorConfig)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", expected="a TOML file"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(
            f"{path}: {_said(error)}",
            expected="the keys that `edgeml collector run --help` and docs/collector.md name",
            remedy="Correct the file.",
        ) from error


def override(config: CollectorConfig, given: dict[str, object]) -> CollectorConfig:
    """``config`` with single values replaced: ``{"broker.port": 1884}``.

    Raises:
        UsageError: a value is out of its range.
    """
    document = msgspec.to_builtins(config)
    for name, value in given.items():
        *sections, key = name.split(".")
        target = document
        for section in sections:
            target = target[section]
        target[key] = value
    try:
        return from_plain(document, CollectorConfig)
    except msgspec.ValidationError as error:
        raise UsageError(
            _said(error),
            expected="what `edgeml collector run --help` and docs/collector.md say of it",
        ) from error


def _said(error: Exception) -> str:
    """``Expected `float` > 0.0 - at `$.alarms.false_alarms``` with the key in front."""
    text, _, where = str(error).partition(" - at `$")
    key = where.strip("`.")
    return f"{key}: {text[:1].lower()}{text[1:]}" if key else text
