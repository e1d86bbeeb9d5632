"""Does a broker answer and take the device's certificate? For the doctor, beside a running agent.

TLS alone: an MQTT connection in the device's name would push the agent off.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Final

from edgeward_agent.errors import LinkLost
from edgeward_agent.link.wire import CertificateNotTaken, FleetNotTrusted
from edgeward_contract.mqtt.broker import BrokerAddress

_SECOND_THOUGHTS_S: Final = 1.0  # TLS 1.3 refuses a client's certificate after the handshake


def knock(address: BrokerAddress, context: ssl.SSLContext, *, timeout_s: float) -> None:
    """Return when TLS stands and stays.

    Raises:
        FleetNotTrusted: the broker's certificate is not of the fleet's CA, or for another name.
        CertificateNotTaken: the broker does not want the device's.
        LinkLost: nobody answered.
    """
    where = f"broker at {address.where}"
    try:
        with (
            socket.create_connection((address.host, address.port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as secure,
        ):
            secure.settimeout(_SECOND_THOUGHTS_S)
            with contextlib.suppress(TimeoutError):  # it waits for our first word, which is as it should be
                secure.recv(1)
    except ssl.SSLCertVerificationError as error:
        raise FleetNotTrusted(f"{where}: {error.verify_message or error}") from None
    except ssl.SSLError as error:
        raise CertificateNotTaken(f"{where}: refused the TLS connection ({error.reason or error})") from None
    except OSError as error:
        raise LinkLost(f"{where}: expected an answer, got {error.strerror or error}") from None
