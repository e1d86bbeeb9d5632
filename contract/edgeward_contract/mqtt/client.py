"""paho's client, and what differs between its two lines: 1.6.1, which azure-iot-device 2.14 forces, and 2.x."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from edgeward_contract.mqtt.broker import BrokerAddress, Options

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
    from paho.mqtt.enums import MQTTErrorCode
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode


class Listener(Protocol):
    """Who hears what paho has to tell. Codes are the broker's reason codes."""

    def heard_connack(self, code: int, max_packet_bytes: int | None) -> None: ...

    def heard_answer(self, message_id: int, codes: list[int]) -> None:
        """SUBACK, one code for each topic, or PUBACK with one."""

    def heard_message(self, topic: str, payload: bytes, retained: bool) -> None: ...

    def heard_disconnect(self, code: int) -> None:
        """0 when the broker has not said a word."""

    def heard_log(self, words: str) -> None: ...

    def wants_to_write(self, descriptor: int) -> None: ...

    def has_written(self, descriptor: int) -> None: ...

    def closes_socket(self, descriptor: int) -> None: ...


def new_client(address: BrokerAddress, tls: ssl.SSLContext, options: Options, listener: Listener) -> Client:
    """A client of whichever line is installed, that has not connected yet."""
    client = _candid(address, options, listener)
    client.tls_set_context(tls)
    if address.transport == "websockets":
        client.ws_set_options(path=address.path)
    if options.will is not None:
        client.will_set(options.will.topic, options.will.payload, qos=1, retain=True)
    _listen(client, listener)
    return client


def dial(client: Client, address: BrokerAddress, tls: ssl.SSLContext, options: Options) -> None:
    """Open the socket and send CONNECT. Blocks until TLS and, where there is one, the WebSocket are done."""
    opened: list[ssl.SSLSocket] = []

    class Tracked(ssl.SSLSocket):
        """paho forgets a socket whose handshake fails."""

        def do_handshake(self, block: bool = False) -> None:
            opened.append(self)
            super().do_handshake(block)

    tls.sslsocket_class = Tracked
    try:
        _connect(client, address, options)
    except BaseException:
        for each in opened:
            each.close()
        raise


def _connect(client: Client, address: BrokerAddress, options: Options) -> None:
    properties = _properties("CONNECT")
    properties.SessionExpiryInterval = options.session_expiry_s
    client.connect(
        address.host,
        address.port,
        keepalive=options.keepalive_s,
        clean_start=options.session_expiry_s == 0,
        properties=properties,
    )


def subscribe(client: Client, topics: Sequence[str]) -> int | None:
    """The message id whose SUBACK will come; None when the connection is gone."""
    result, message_id = client.subscribe([(topic, 1) for topic in topics])
    return message_id if result == 0 else None


def publish(client: Client, topic: str, payload: bytes, *, retain: bool, expiry_s: int | None) -> int | None:
    """The message id whose PUBACK will come; None when the connection is gone."""
    properties = _properties("PUBLISH")
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    sent = client.publish(topic, payload, qos=1, retain=retain, properties=properties)
    return sent.mid if sent.rc == 0 else None


def say_goodbye(client: Client, *, with_will: bool) -> None:
    from paho.mqtt import reasoncodes
    from paho.mqtt.packettypes import PacketTypes

    # Called ReasonCodes in 1.6.1.
    kind = getattr(reasoncodes, "ReasonCode", None) or reasoncodes.ReasonCodes
    name = "Disconnect with will message" if with_will else "Normal disconnection"
    client.disconnect(reasoncode=kind(PacketTypes.DISCONNECT, name))


def _listen(client: Client, listener: Listener) -> None:
    def on_connect(
        _client: Client, _data: object, _flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        listener.heard_connack(_code(code), getattr(properties, "MaximumPacketSize", None))

    def on_subscribe(
        _client: Client, _data: object, message_id: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        listener.heard_answer(message_id, [_code(each) for each in codes])

    def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
        listener.heard_message(message.topic, bytes(message.payload), bool(message.retain))

    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_disconnect = lambda *_: listener.heard_disconnect(0)
    client.on_message = on_message
    client.on_log = lambda _client, _data, _level, words: listener.heard_log(words)
    # Of the socket that is handed over: paho has forgotten it by the time that it closes it.
    client.on_socket_register_write = lambda _client, _data, sock: listener.wants_to_write(sock.fileno())
    client.on_socket_unregister_write = lambda _client, _data, sock: listener.has_written(sock.fileno())
    client.on_socket_close = lambda _client, _data, sock: listener.closes_socket(sock.fileno())


def _candid(address: BrokerAddress, options: Options, listener: Listener) -> Client:
    """1.6.1 keeps to itself why the broker refused a message or hung up. 2.x tells, but hangs up itself on a reason
    that is not in its table for PUBACK, such as mosquitto's "packet too large". So both are read off the packet here.
    """
    from paho.mqtt import client as paho

    class Candid(paho.Client):
        """The two methods and the packet are the same in 1.6.1 and in every 2.x; the tests run both lines."""

        def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
            packet = bytes(self._in_packet["packet"])
            listener.heard_answer(int.from_bytes(packet[:2]), [packet[2] if len(packet) > 2 else 0])
            return super()._handle_pubackcomp(cmd)

        def _handle_disconnect(self) -> None:
            packet = bytes(self._in_packet["packet"])
            listener.heard_disconnect(packet[0] if packet else 0)
            super()._handle_disconnect()

    if hasattr(paho, "CallbackAPIVersion"):
        version = paho.CallbackAPIVersion.VERSION2
        return Candid(version, options.client_id, protocol=paho.MQTTv5, transport=address.transport)
    return Candid(client_id=options.client_id, protocol=paho.MQTTv5, transport=address.transport)


def _properties(packet: Literal["CONNECT", "PUBLISH"]) -> Properties:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    return Properties(getattr(PacketTypes, packet))  # type: ignore[no-untyped-call]


def _code(code: ReasonCode | int) -> int:
    return code if isinstance(code, int) else code.value
