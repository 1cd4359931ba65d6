"""The demo project's application: a chain of digests, one link for each tenth of a second, with checkpoints.

Usage: burner CPU_SECONDS CHECKPOINT_SECONDS SEED [busy]. It counts a second of CPU for a second of time; with `busy` it
really spends it. Its answer is the file `out`, which the project works out as well. Speaks the application's side of
`boinc_mmap_file`: eight channels of 1024 bytes; the first byte of a channel says that a message is waiting. Standard
library only: it runs alone inside a machine.
"""

import hashlib
import mmap
import os
import sys
import time

CHANNEL = 1024
CONTROL, STATUS = 0, 5
STEP_S = 0.1


def links_of(cpu_s: float, step_s: float = STEP_S) -> int:
    """How many links a task of so many seconds has."""
    return max(1, round(cpu_s / step_s))


def link(digest: str, seed: str) -> str:
    """The next link after this one."""
    return hashlib.sha256((digest + seed).encode()).hexdigest()


def answer(cpu_s: float, seed: str, step_s: float = STEP_S) -> str:
    """What a task must answer: the last link."""
    digest = ""
    for _ in range(links_of(cpu_s, step_s)):
        digest = link(digest, seed)
    return digest


def take(shared: mmap.mmap) -> bytes:
    """The client's next order, taken from its channel."""
    at = CONTROL * CHANNEL
    if not shared[at]:
        return b""
    said = bytes(shared[at + 1 : at + CHANNEL]).split(b"\0", 1)[0]
    shared[at] = 0
    return said


def tell(shared: mmap.mmap, done: int, saved: int, whole: int) -> None:
    """Where we are, once the client has read where we were."""
    at = STATUS * CHANNEL
    if not shared[at]:
        text = f"<current_cpu_time>{done * STEP_S:e}</current_cpu_time>\n"
        text += f"<checkpoint_cpu_time>{saved * STEP_S:e}</checkpoint_cpu_time>\n"
        text += f"<fraction_done>{min(1.0, done / whole):e}</fraction_done>\n"
        shared[at + 1 : at + 2 + len(text)] = text.encode() + b"\0"
        shared[at] = 1


def pass_step(busy: bool) -> None:
    """A tenth of a second, slept or spent."""
    if not busy:
        time.sleep(STEP_S)
        return
    until = time.monotonic() + STEP_S
    while time.monotonic() < until:
        hashlib.pbkdf2_hmac("sha256", b"busy", b"busy", 1000)


def write(name: str, text: str) -> None:
    """A file that is whole or not there."""
    with open(f"{name}.new", "w") as file:
        file.write(text)
    os.replace(f"{name}.new", name)


def load() -> "tuple[int, str]":
    """Links done at the last checkpoint, and the last of them."""
    if not os.path.exists("saved"):
        return 0, ""
    with open("saved") as file:
        done, digest = file.read().split()
    return int(done), digest


def run(whole_s: float, period_s: float, seed: str, busy: bool) -> None:
    """Count until done or told to end."""
    whole, period = links_of(whole_s), links_of(period_s)
    done, digest = load()
    saved, computing = done, True
    with open("boinc_mmap_file", "r+b") as file, mmap.mmap(file.fileno(), 8 * CHANNEL) as shared:
        while done < whole:
            pass_step(busy and computing)
            order = take(shared)
            if b"<quit/>" in order or b"<abort/>" in order:
                write("lost", str((done - saved) * STEP_S))
                sys.exit(0)
            computing = (computing or b"<resume/>" in order) and b"<suspend/>" not in order
            if computing:
                done, digest = done + 1, link(digest, seed)
                if done - saved >= period:
                    saved = done
                    write("saved", f"{done} {digest}")
            tell(shared, done, saved, whole)
    write("out", digest)
    write("boinc_finish_called", "0\n")


if __name__ == "__main__":
    run(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:] == ["busy"])
