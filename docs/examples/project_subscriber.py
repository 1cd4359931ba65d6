"""What a BOINC project's server may run to hear of its hosts in a Tides installation. Needs Python 3.11 and aio-pika.

    TIDES_AMQP_URL=amqps://USER:PASSWORD@HOST/ python project_subscriber.py PROJECT_ID

Prints each event as a line of JSON and acknowledges it. The queue outlives this program: nothing is missed while it is
away, and a message comes again when it was not acknowledged, so an event is known by its id.
"""

import asyncio
import json
import os
import sys

import aio_pika

HELD_FOR_MS = 7 * 86_400_000
"""What nobody fetches for a week is dropped by the broker."""


async def listen(url: str, project_id: str) -> None:
    """Bind a queue of this project's own to its events, and print what comes."""
    connection = await aio_pika.connect_robust(url)
    async with connection, connection.channel() as channel:
        await channel.set_qos(prefetch_count=20)
        queue = await channel.declare_queue(
            f"project-{project_id}",
            durable=True,
            arguments={"x-queue-type": "quorum", "x-message-ttl": HELD_FOR_MS},
        )
        await queue.bind("tides", f"project.{project_id}.#")
        say({"listening": queue.name})
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    event = json.loads(message.body)
                    say({"event": message.headers["ce-type"], **event})


def say(what: dict[str, object]) -> None:
    """One line of JSON; here your own server would take it in."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(listen(os.environ["TIDES_AMQP_URL"], sys.argv[1]))
