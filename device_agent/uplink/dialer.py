"""How the broker is addressed: client id, credentials, certificates; a paho client a connection."""

from __future__ import annotations

import ssl

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edgeml.device_agent.config import BrokerConfig
from edgeml.errors import UsageError


class Dialer:
    """Makes clients; what it reads from files it reads once, so that a mistake shows at the start.

    Args:
        config: of the broker.
        client_id: derived from the device: a random one would leave a dead session behind at each
            restart.

    Raises:
        UsageError: the password or the certificates cannot be read.
    """

    def __init__(self, config: BrokerConfig, *, client_id: str) -> None:
        self._config = config
        self._client_id = client_id
        self._password = _password(config)
        self._trust = _trust(config) if config.tls else None

    def client(self, protocol: MQTTProtocolVersion) -> paho.Client:
        """A client that is not connected yet. Its session is clean."""
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=protocol,
            clean_session=None if protocol == MQTTProtocolVersion.MQTTv5 else True,
        )
        client.connect_timeout = self._config.connect_timeout_s
        if self._config.username:
            client.username_pw_set(self._config.username, self._password)
        if self._trust is not None:
            client.tls_set_context(self._trust)  # pyright: ignore[reportUnknownMemberType]
        return client


def _trust(config: BrokerConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"The certificates in {config.ca_file} cannot be read: {error}",
            expected="a file of certificates in PEM form",
        ) from error


def _password(config: BrokerConfig) -> str | None:
    if config.password_file is None:
        return None
    try:
        return config.password_file.read_text().strip()
    except OSError as error:
        raise UsageError(
            f"The password file {config.password_file} cannot be read: {error.strerror}",
            expected="a file with the broker's password",
        ) from error
