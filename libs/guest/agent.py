#!/usr/bin/python3
"""tides-agent: runs in a machine as root and keeps BOINC there in hand.

    agent.py run CONFIG

It enrols, tells how it goes, obeys; it suspends BOINC and later shuts down when nobody is heard of.
CONFIG is JSON: `door` (https://.../ where it reports) and `token` (good for one enrolment), and what SETTINGS lists.
POST door+enrol {token, secret}: the machine draws the secret itself, so a lost answer is asked for again with the same.
POST door+beat, bearer secret: how BOINC does, outcomes by command id -> {heartbeat_s, dead_man_s, commands}. A command
{id, do, ...} is repeated by the door until its outcome has come. `do`: drain (deadline_s, keeps_disk), resume,
throttle (percent; 0: nothing is computed), stop (the machine is shut down, once that has been told). Time is the
monotonic clock's: the machine's own may be wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from email.utils import parsedate_to_datetime
from html import escape, unescape
from typing import Any, Callable  # noqa: UP035 - also of Python 3.9

VERSION = "1"
SETTINGS: dict[str, Any] = {
    "state": "/var/lib/tides/agent.json",
    "heard": "/run/tides-agent.heard",
    "data": "/var/lib/boinc-client" if os.path.isdir("/var/lib/boinc-client") else "/var/lib/boinc",
    "port": 31416,
    "ca_file": None,
    "proxy": None,
    "heartbeat_s": 15,
    "sync_s": 30,
    "dead_man_s": 900,
    "poweroff_after_s": 900,
    "poweroff": ["systemctl", "poweroff"],
    "start_boinc": ["systemctl", "start", "boinc-client"],
}
CALL_S, LARGEST_ANSWER = 10, 65536
SAVED_S = 1.5  # a task with less CPU time than this beyond its checkpoint is as good as saved
SETTLE_S = 2.0
TOLD_S = 4.0  # an outcome is on its way to the door before the machine is shut down
NO_CHECK_TIME, NOT_YET_VALID, EXPIRED = 0x200000, 9, 10  # OpenSSL's


def say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


class Boinc:
    """BOINC's port on this machine; OSError where it does not answer, RuntimeError where it says no."""

    def __init__(self, data: str, port: int) -> None:
        self.data, self.port = data, port

    def ask(self, body: str) -> str:
        with open(os.path.join(self.data, "gui_rpc_auth.cfg"), encoding="utf-8") as file:
            password = file.read().strip()
        with socket.create_connection(("127.0.0.1", self.port), 5) as line:
            nonce = text_of(self._frame(line, "<auth1/>"), "nonce")
            proof = hashlib.md5((nonce + password).encode()).hexdigest()
            if "<authorized/>" not in self._frame(
                line, f"<auth2>\n<nonce_hash>{proof}</nonce_hash>\n</auth2>"
            ):
                raise RuntimeError("BOINC refuses its own password")
            answer = self._frame(line, body)
        if "<error>" in answer:
            raise RuntimeError(text_of(answer, "error"))
        return answer

    def _frame(self, line: socket.socket, body: str) -> str:
        line.sendall(f"<boinc_gui_rpc_request>\n{body}\n</boinc_gui_rpc_request>\n\3".encode())
        said = b""
        while not said.endswith(b"\3"):
            piece = line.recv(65536)
            if not piece or len(said) > 32 << 20:
                raise OSError("BOINC hung up")
            said += piece
        return said.decode("utf-8", "replace")

    def tasks(self) -> list[dict[str, Any]]:
        answer = self.ask("<get_results><active_only>0</active_only></get_results>")
        return [task_of(each) for each in re.findall(r"<result>(.*?)</result>", answer, re.S)]

    def projects(self) -> list[str]:
        return [url for url, _ in self._attached()]

    def _attached(self) -> list[tuple[str, str]]:
        found = re.findall(r"<project>(.*?)</project>", self.ask("<get_project_status/>"), re.S)
        return [(text_of(each, "master_url"), text_of(each, "project_name")) for each in found]

    def alerts(self) -> dict[str, str]:
        """What each project last complained of, by its address; nothing where its scheduler was content since."""
        urls = {name: url for url, told in self._attached() for name in (url, told)}
        newest = int(number_of(self.ask("<get_message_count/>"), "seqno"))
        said = self.ask(f"<get_messages>\n<seqno>{max(0, newest - 200)}</seqno>\n</get_messages>")
        found: dict[str, str] = {}
        for each in re.findall(r"<msg>(.*?)</msg>", said, re.S):
            url = urls.get(text_of(each, "project"))
            text = re.sub(r"<!\[CDATA\[|\]\]>", "", text_of(each, "body")).strip()
            if url and text.startswith("Scheduler request completed"):
                found.pop(url, None)
            elif url and number_of(each, "pri") > 1:
                found[url[:200]] = text[:200]
        return dict(list(found.items())[:12])

    def with_project(self, operation: str, url: str) -> None:
        self.ask(f"<{operation}>\n<project_url>{escape(url)}</project_url>\n</{operation}>")

    def with_task(self, operation: str, task: dict[str, Any]) -> None:
        where = f"<project_url>{escape(task['url'])}</project_url>\n<name>{escape(task['name'])}</name>"
        try:
            self.ask(f"<{operation}>\n{where}\n</{operation}>")
        except RuntimeError as error:  # it ended meanwhile
            say("task.gone", task=task["name"], reason=str(error))

    def run_mode(self, mode: str) -> None:
        self.ask(f"<set_run_mode>\n<{mode}/>\n<duration>0</duration>\n</set_run_mode>")

    def throttle(self, percent: float) -> None:
        kept = re.search(
            r"<global_preferences>(.*?)</global_preferences>", self.ask("<get_global_prefs_override/>"), re.S
        )
        rest = re.sub(r"\s*<cpu_usage_limit>.*?</cpu_usage_limit>", "", kept.group(1) if kept else "\n")
        wanted = f"<global_preferences>{rest.rstrip()}\n<cpu_usage_limit>{percent:g}</cpu_usage_limit>\n"
        self.ask(f"<set_global_prefs_override>\n{wanted}</global_preferences>\n</set_global_prefs_override>")
        self.ask("<read_global_prefs_override/>")


def text_of(xml: str, tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", xml, re.S)
    return unescape(found.group(1).strip()) if found else ""


def number_of(xml: str, tag: str) -> float:
    try:
        return float(text_of(xml, tag))
    except ValueError:
        return 0.0


def task_of(xml: str) -> dict[str, Any]:
    started = "<active_task>" in xml
    return {
        "name": text_of(xml, "name"),
        "url": text_of(xml, "project_url"),
        "state": int(number_of(xml, "state")),
        "ready": "<ready_to_report/>" in xml,
        "suspended": "<suspended_via_gui/>" in xml,
        "started": started,
        "executing": started and number_of(xml, "active_task_state") == 1,
        "cpu_s": number_of(xml, "current_cpu_time") if started else number_of(xml, "final_cpu_time"),
        "saved_s": number_of(xml, "checkpoint_cpu_time"),
        "done": number_of(xml, "fraction_done"),
        "remaining_s": number_of(xml, "estimated_cpu_time_remaining"),
    }


class Drain:
    """Ends the work within `deadline_s` so that as little as possible of it is lost; `step` several times a second.

    Where the disk stays, a task is frozen right after its next checkpoint. Where it goes, what can finish in time does,
    and the rest is handed back at once, so that its project gives it to somebody else.
    """

    def __init__(self, boinc: Boinc, now: float, deadline_s: float, keeps_disk: bool) -> None:
        self.boinc, self.began, self.keeps_disk = boinc, now, keeps_disk
        self.ends = now + max(0.0, deadline_s - min(10.0, deadline_s / 5))
        self.saved: dict[str, float] = {}
        self.known: dict[str, dict[str, Any]] = {}
        self.aborted: set[str] = set()
        self.updated = float("-inf")
        self.stopped_fetching = False
        self.failures = 0
        self.quiet_at = now

    def step(self, now: float) -> dict[str, Any] | None:
        """One look; the outcome, when it is over. OSError: BOINC is not there."""
        if not self.stopped_fetching:
            for url in self.boinc.projects():
                self.boinc.with_project("project_nomorework", url)
            self.stopped_fetching = True
        late = now >= self.ends
        tasks = self.boinc.tasks()
        self.known.update({task["name"]: task for task in tasks})
        busy = [task for task in tasks if self._still_needs(task, now, late)]
        unreported = {task["url"] for task in tasks if task["ready"] or task["name"] in self.aborted}
        if unreported and now - self.updated > 5:
            self.updated = now
            for url in unreported:
                self.boinc.with_project("project_update", url)
        if busy:
            self.quiet_at = now
        # BOINC looks at its tasks once a second: what it tells of a frozen one is right a moment later.
        settles = self.saved and now - self.quiet_at < SETTLE_S
        waits = busy or unreported or settles
        if waits and now < self.ends + 5 and not (late and not unreported):
            return None
        return self._outcome(tasks, now)

    def _still_needs(self, task: dict[str, Any], now: float, late: bool) -> bool:
        """Whether the task keeps us waiting; if it shall not, it is frozen or handed back."""
        if task["state"] > 2 or task["ready"] or task["name"] in self.aborted:
            return not late and task["state"] in (4, 5) and not task["ready"]
        if not self.keeps_disk:
            if task["started"] and not late and now + task["remaining_s"] <= self.ends:
                return True
            self.aborted.add(task["name"])
            self.boinc.with_task("abort_result", task)
            return False
        if task["suspended"]:
            return bool(task["executing"]) and not late
        first = self.saved.setdefault(task["name"], task["saved_s"])
        unsaved = task["cpu_s"] - task["saved_s"]
        if task["executing"] and not late and unsaved > SAVED_S and task["saved_s"] <= first:
            return True
        self.boinc.with_task("suspend_result", task)
        return not late

    def _outcome(self, tasks: list[dict[str, Any]], now: float) -> dict[str, Any]:
        living = {task["name"]: task for task in tasks}
        lost = 0.0
        for name, task in self.known.items():
            if name in self.aborted:
                lost += task["cpu_s"]
            elif name in living and task["state"] <= 2 and not task["ready"]:
                lost += max(0.0, task["cpu_s"] - task["saved_s"]) if self.keeps_disk else task["cpu_s"]
        with suppress(OSError):
            self.boinc.ask("<quit/>")
        return {
            "lost_cpu_s": round(lost, 3),
            "tasks": len(self.known),
            "aborted": len(self.aborted),
            "finished": sum(1 for name in self.known if name not in living and name not in self.aborted),
            "took_s": round(now - self.began, 1),
        }


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A secret goes where it was meant to, or nowhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Door:
    """Where the agent reports. Any trouble is an OSError (urllib's errors are) or a ValueError."""

    def __init__(self, settings: dict[str, Any], set_clock: Callable[[float], None]) -> None:
        self.url, self.ca_file, self.set_clock = settings["door"], settings["ca_file"], set_clock
        self.proxies = {"https": settings["proxy"]} if settings["proxy"] else {}
        if not re.match(r"https://|http://127\.0\.0\.1(:\d+)?/", self.url):
            raise ValueError("door: must begin with https://")

    def post(self, path: str, body: dict[str, Any], secret: str = "") -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": f"tides-agent/{VERSION}"}
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method="POST")
        try:
            with self._opener(0).open(request, timeout=CALL_S) as answer:
                found = json.loads(answer.read(LARGEST_ANSWER))
        except urllib.error.URLError as error:
            if getattr(error.reason, "verify_code", 0) in (NOT_YET_VALID, EXPIRED):
                self._learn_time()
            raise
        if not isinstance(found, dict):
            raise ValueError("the door's answer is no object")
        return found

    def _learn_time(self) -> None:
        """Set a wrong clock by the door's: its certificate is checked in all but time, and no secret is sent."""
        request = urllib.request.Request(self.url, method="HEAD")
        try:
            with self._opener(NO_CHECK_TIME).open(request, timeout=CALL_S) as answer:
                date = answer.headers["Date"]
        except urllib.error.HTTPError as error:
            date = error.headers["Date"]
        theirs = parsedate_to_datetime(date or "").timestamp()
        if abs(theirs - time.time()) > 60:
            say("clock.set", offset_s=round(theirs - time.time()))
            self.set_clock(theirs)

    def _opener(self, flags: int) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.verify_flags |= flags
        handlers = urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler(self.proxies)
        return urllib.request.build_opener(NoRedirect, *handlers)


class Call(threading.Thread):
    """One call of the door beside the loop, which must look after tasks every second."""

    def __init__(self, act: Callable[[], dict[str, Any]], now: float) -> None:
        super().__init__(daemon=True)
        self.act, self.began = act, now
        self.answer: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self.act()
        except Exception as error:  # whatever a door does, the loop goes on
            self.error = error


class Agent:
    """The loop's state; `step` is called once a second with the monotonic time."""

    def __init__(self, settings: dict[str, Any], now: float) -> None:
        self.settings = {**SETTINGS, **settings}
        self.boinc = Boinc(self.settings["data"], self.settings["port"])
        self.door = Door(self.settings, lambda at: time.clock_settime(time.CLOCK_REALTIME, at))
        self.state: dict[str, Any] = {"enrolled": False, "held": False, "outcomes": {}}
        self.heard_at, self.beat_at, self.sync_at = now, now, now + self.settings["sync_s"]
        self.sync_gap = float(self.settings["sync_s"])
        self.call: Call | None = None
        self.drain: Drain | None = None
        self.draining = ""
        self.over = False
        self.off_at = float("inf")
        self.said: dict[str, str] = {}
        self._load()

    def step(self, now: float) -> None:
        self._contact(now)
        for act in (self._advance_drain, self._sync_manager, self._mind_silence, self._mind_stop):
            try:
                act(now)
            except (OSError, RuntimeError) as error:
                if self.said.get(act.__name__) != str(error):
                    say("boinc.silent", doing=act.__name__.strip("_"), reason=str(error))
                self.said[act.__name__] = str(error)

    def _load(self) -> None:
        try:
            with open(self.settings["state"], encoding="utf-8") as file:
                self.state.update(json.load(file))
        except (OSError, ValueError):
            pass  # the first start, or a power cut while the disk was new
        with suppress(OSError, ValueError), open(self.settings["heard"], encoding="utf-8") as file:
            # A crash does not set the dead man's timer back; a reboot empties /run.
            self.heard_at = min(self.heard_at, float(file.read()))
        if "secret" not in self.state:
            self.state["secret"] = secrets.token_urlsafe(32)
            self._save()

    def _save(self) -> None:
        path = self.settings["state"]
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(self.state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)

    def _contact(self, now: float) -> None:
        call = self.call
        if call is not None and (not call.is_alive() or now - call.began > 3 * CALL_S):
            self.call = None
            if call.answer is not None:
                self._hear(call.answer, now)
            else:
                say("door.silent", reason=str(call.error or "no answer"), for_s=round(now - self.heard_at))
                if getattr(call.error, "code", 0) in (401, 403):
                    self.state["enrolled"] = False
        if self.call is None and now >= self.beat_at:
            self.beat_at = now + self.settings["heartbeat_s"]
            secret = self.state["secret"]
            if self.state["enrolled"]:
                body = self._report()
                self.call = Call(lambda: self.door.post("beat", body, secret), now)
            else:
                body = {"token": self.settings["token"], "secret": secret, "version": VERSION}
                self.call = Call(lambda: {**self.door.post("enrol", body), "enrolled": True}, now)

    def _report(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "version": VERSION,
            "draining": self.drain is not None,
            "held": self.state["held"],
        }
        body["outcomes"] = self.state["outcomes"]
        try:
            tasks = self.boinc.tasks()
            body["tasks"] = tasks[:100]
            body["task_count"], body["projects"] = len(tasks), self.boinc.projects()
            body["alerts"] = self.boinc.alerts()
        except (OSError, RuntimeError) as error:
            body["boinc_error"] = str(error)[:200]
        return body

    def _hear(self, answer: dict[str, Any], now: float) -> None:
        self.heard_at = now
        with suppress(OSError), open(self.settings["heard"], "w", encoding="utf-8") as file:
            file.write(str(now))
        if answer.get("enrolled"):
            self.state["enrolled"] = True
            self.beat_at = now
            say("enrolled")
        for name, least in (("heartbeat_s", 1), ("dead_man_s", 2)):
            if isinstance(answer.get(name), (int, float)):
                self.settings[name] = min(86400, max(least, answer[name]))
        self.beat_at = min(self.beat_at, now + self.settings["heartbeat_s"])
        given = answer.get("commands")
        given = given if isinstance(given, list) else []
        commands = [each for each in given if isinstance(each, dict) and each.get("id")]
        wanted = {str(each["id"]) for each in commands}
        self.state["outcomes"] = {
            key: value for key, value in self.state["outcomes"].items() if key in wanted
        }
        for each in commands:
            if str(each["id"]) not in self.state["outcomes"] and str(each["id"]) != self.draining:
                self._obey(str(each["id"]), each, now)
        self._save()

    def _obey(self, number: str, command: dict[str, Any], now: float) -> None:
        say("command", id=number, do=command.get("do"))
        try:
            outcome = self._do(number, command, now)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            outcome = {"error": str(error)[:200]}
        if outcome is not None:
            self.state["outcomes"][number] = outcome
            self.beat_at = now

    def _do(self, number: str, command: dict[str, Any], now: float) -> dict[str, Any] | None:
        what = command.get("do")
        if what == "drain":
            self.drain = Drain(
                self.boinc, now, float(command.get("deadline_s", 60)), bool(command.get("keeps_disk"))
            )
            self.draining = number
            return None
        if what == "resume":
            self.drain, self.draining = None, ""
            return self._resume()
        if what == "throttle":
            self._throttle(float(command.get("percent", 100)))
        elif what == "stop":
            self.off_at = now + TOLD_S
        else:
            return {"error": "unknown command"}
        return {"done": True}

    def _throttle(self, percent: float) -> None:
        if percent > 0:
            self.boinc.throttle(min(100.0, max(1.0, percent)))
        self.state["idle"] = percent <= 0
        if not self.state["held"]:
            self._run()

    def _run(self) -> None:
        """Let BOINC compute, unless it was told not to."""
        self.boinc.run_mode("never" if self.state.get("idle") else "auto")

    def _resume(self) -> dict[str, Any] | None:
        try:
            for url in self.boinc.projects():
                self.boinc.with_project("project_allowmorework", url)
            for task in self.boinc.tasks():
                self.boinc.with_task("resume_result", task)
            self._run()
        except OSError:  # a drain ended it; the command comes again
            subprocess.run(self.settings["start_boinc"], check=False, timeout=60)
            return None
        return {"done": True}

    def _advance_drain(self, now: float) -> None:
        if self.drain is None:
            return
        try:
            outcome = self.drain.step(now)
        except (OSError, RuntimeError) as error:
            self.drain.failures += 1
            over = self.drain.failures >= 5 or now >= self.drain.ends + 10
            outcome = {"lost_cpu_s": 0.0, "error": f"BOINC is not there: {error}"[:200]} if over else None
        if outcome is not None:
            say("drained", **outcome)
            self.state["outcomes"][self.draining] = outcome
            self.drain, self.draining, self.beat_at = None, "", now
            self._save()

    def _sync_manager(self, now: float) -> None:
        """A client whose first contact failed would be silent for minutes to hours: it is made to try again."""
        if now < self.sync_at or self.drain is not None:
            return
        self.sync_at, self.sync_gap = now + self.sync_gap, min(300.0, self.sync_gap * 2)
        if not self.boinc.projects():
            self.boinc.ask("<acct_mgr_rpc>\n<use_config_file/>\n</acct_mgr_rpc>")

    def _mind_silence(self, now: float) -> None:
        silent_s = now - self.heard_at
        if silent_s < self.settings["dead_man_s"]:
            if self.state["held"]:
                self._run()
                self.state["held"] = False
                self._save()
            return
        if silent_s >= self.settings["dead_man_s"] + self.settings["poweroff_after_s"]:
            self._shut_down()
        elif not self.state["held"]:
            say("dead_man.suspends", silent_s=round(silent_s))
            self.boinc.run_mode("never")
            self.state["held"] = True
            self._save()

    def _mind_stop(self, now: float) -> None:
        if now >= self.off_at:
            self._shut_down()

    def _shut_down(self) -> None:
        if not self.over:
            say("shutting.down")
            self.over = True
            with suppress(OSError, RuntimeError):
                self.boinc.ask("<quit/>")
        subprocess.run(self.settings["poweroff"], check=False, timeout=60)


def main(arguments: list[str]) -> None:
    with open(arguments[1], encoding="utf-8") as file:
        agent = Agent(json.load(file), time.monotonic())
    while True:
        try:
            agent.step(time.monotonic())
        except Exception as error:  # a full disk, say; the dead man's timer must go on
            say("step.failed", reason=repr(error)[:300])
        time.sleep(0.25 if agent.drain else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
