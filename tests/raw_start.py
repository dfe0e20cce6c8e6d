"""Publishes start messages with pika, as a service that does not know Leveret would.

    raw_start.py AMQP_URL EXCHANGE ROUTING_KEY < MESSAGES

Each line of MESSAGES is a JSON object: `json` or `msgpack` holds a value to be encoded so, `text` a body as it is; `message_id` is the AMQP property.
Exit status 0 says that the broker has confirmed each of them, and had a queue for each.
"""

import json
import struct
import sys

import pika


def packed(value):
    """MessagePack, as far as JSON's values need it: https://github.com/msgpack/msgpack/blob/master/spec.md"""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 128:
            return struct.pack("B", value)
        return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return b"\xdb" + struct.pack(">I", len(text)) + text
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(packed, value))
    pairs = b"".join(packed(key) + packed(item) for key, item in value.items())
    return b"\xdf" + struct.pack(">I", len(value)) + pairs


def body_of(message):
    if "msgpack" in message:
        return packed(message["msgpack"]), "application/msgpack"
    if "json" in message:
        return json.dumps(message["json"]).encode(), "application/json"
    return message["text"].encode(), None


def main():
    url, exchange, routing_key = sys.argv[1:]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    for line in sys.stdin:
        message = json.loads(line)
        body, content_type = body_of(message)
        properties = pika.BasicProperties(
            content_type=content_type,
            message_id=message.get("message_id"),
            delivery_mode=pika.DeliveryMode.Persistent,
        )
        channel.basic_publish(exchange, routing_key, body, properties, mandatory=True)
    connection.close()


main()
