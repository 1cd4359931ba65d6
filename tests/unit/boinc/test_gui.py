"""The GUI RPC client against what is no BOINC client, or one with a bad day."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.boinc.gui import GuiRpc, GuiRpcError, Operation, RefusedPassword, RunMode, TaskOperation

RESULTS = """<boinc_gui_rpc_reply>
<results>
<result>
    <name>lab_1_0</name>
    <wu_name>wu_lab_1_0</wu_name>
    <project_url>http://project.example/lab/</project_url>
    <exit_status>0</exit_status>
    <state>2</state>
    <estimated_cpu_time_remaining>12.500000</estimated_cpu_time_remaining>
    <active_task>
        <active_task_state>1</active_task_state>
        <checkpoint_cpu_time>4.000000</checkpoint_cpu_time>
        <fraction_done>0.300000</fraction_done>
        <current_cpu_time>6.500000</current_cpu_time>
    </active_task>
</result>
<result>
    <name>lab_1_1</name>
    <project_url>http://project.example/lab/</project_url>
    <state>5</state>
    <ready_to_report/>
    <suspended_via_gui/>
</result>
</results>
</boinc_gui_rpc_reply>
"""
NONCE = "1795170966.559840"
Say = Callable[[str], bytes | None]


@asynccontextmanager
async def client_that(says: Say) -> AsyncIterator[tuple[int, list[str]]]:
    """A port that knows the password "secret", then answers as told; None hangs up. The other is what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                body = (await reader.readuntil(b"\x03"))[:-1].decode()
                answer = _answer(body, asked, says)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        await server.wait_closed()


def _answer(body: str, asked: list[str], says: Say) -> bytes | None:
    if "<auth1/>" in body:
        return f"<boinc_gui_rpc_reply>\n<nonce>{NONCE}</nonce>\n</boinc_gui_rpc_reply>\n\x03".encode()
    if "<auth2>" in body:
        proof = hashlib.md5(f"{NONCE}secret".encode()).hexdigest()
        word = "authorized" if proof in body else "unauthorized"
        return f"<boinc_gui_rpc_reply>\n<{word}/>\n</boinc_gui_rpc_reply>\n\x03".encode()
    asked.append(body)
    return says(body)


async def test_tasks_are_read_as_the_client_writes_them() -> None:
    async with (
        client_that(lambda _: RESULTS.encode() + b"\x03") as (port, _),
        await GuiRpc.connect("secret", port) as gui,
    ):
        running, done = await gui.tasks()

    assert (running.name, running.executing, running.unsaved_cpu_s, running.remaining_s) == (
        "lab_1_0",
        True,
        2.5,
        12.5,
    )
    assert (done.started, done.ready_to_report, done.suspended, done.state) == (False, True, True, 5)


async def test_a_wrong_password_is_its_own_error() -> None:
    async with client_that(lambda _: None) as (port, _):
        with pytest.raises(RefusedPassword):
            await GuiRpc.connect("wrong", port)


@pytest.mark.parametrize(
    "said",
    [
        None,
        b"\x03",
        b"HTTP/1.1 400 Bad Request\r\n\r\n\x03",
        b"<boinc_gui_rpc_reply><error>must detach</error>\x03",
    ],
)
async def test_what_is_no_answer_is_an_error_of_one_sentence(said: bytes | None) -> None:
    async with client_that(lambda _: said) as (port, _), await GuiRpc.connect("secret", port) as gui:
        with pytest.raises(GuiRpcError, match=r"^[^\n]+\.$"):
            await gui.tasks()


async def test_silence_ends_at_the_deadline() -> None:
    async with (
        client_that(lambda _: b"<boinc_gui_rpc_reply>") as (port, _),
        await GuiRpc.connect("secret", port, timeout_s=0.1) as gui,
    ):
        with pytest.raises(GuiRpcError, match="does not answer"):
            await gui.state()


async def test_nobody_there_is_an_error_too() -> None:
    with pytest.raises(GuiRpcError, match="does not answer"):
        await GuiRpc.connect("secret", 9)


async def test_what_is_asked_is_what_clients_take() -> None:
    says = RESULTS.encode() + b"\x03"
    async with client_that(lambda _: says) as (port, asked), await GuiRpc.connect("secret", port) as gui:
        task = (await gui.tasks())[0]
        acts: list[Awaitable[None]] = [
            gui.operate(Operation.NO_MORE_WORK, "http://a&b/"),
            gui.operate_task(TaskOperation.SUSPEND, task),
            gui.set_run_mode(RunMode.NEVER, 10),
            gui.override_preferences({"cpu_usage_limit": 40}),
            gui.sync_manager(),
        ]
        for act in acts:
            await act
    sent = "".join(asked)
    assert "<project_nomorework>\n<project_url>http://a&amp;b/</project_url>\n</project_nomorework>" in sent
    assert (
        "<suspend_result>\n<project_url>http://project.example/lab/</project_url>\n<name>lab_1_0</name>"
        in sent
    )
    assert "<never/>\n<duration>10</duration>" in sent
    assert "<cpu_usage_limit>40</cpu_usage_limit>" in sent
    assert "<use_config_file/>" in sent


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_a_mutated_reply_is_read_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    body = bytearray(RESULTS.encode())
    for _ in range(chance.randrange(1, 20)):
        at = chance.randrange(len(body))
        body[at : at + chance.randrange(4)] = chance.choice(
            [b"<", b">", b"&", b"nan", b"\xff", b"</result>", b"9" * 25]
        )
    said = bytes(body).replace(b"\x03", b"") + b"\x03"

    async def ask() -> None:
        async with client_that(lambda _: said) as (port, _), await GuiRpc.connect("secret", port) as gui:
            with suppress(GuiRpcError):
                await gui.tasks()

    asyncio.run(ask())
