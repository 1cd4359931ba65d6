"""A BOINC application that pretends to compute: it counts a second of CPU for a second of time, and checkpoints.

Usage: burner CPU_SECONDS CHECKPOINT_SECONDS. Speaks the application's side of `boinc_mmap_file`: eight channels of
1024 bytes; the first byte of a channel says that a message is waiting.
"""

import mmap
import os
import sys
import time

CHANNEL = 1024
CONTROL, STATUS = 0, 5
STEP_S = 0.1


def take(shared: mmap.mmap) -> bytes:
    """The client's next order, taken from its channel."""
    at = CONTROL * CHANNEL
    if not shared[at]:
        return b""
    said = bytes(shared[at + 1 : at + CHANNEL]).split(b"\0", 1)[0]
    shared[at] = 0
    return said


def tell(shared: mmap.mmap, cpu_s: float, saved_s: float, whole_s: float) -> None:
    """Where we are, once the client has read where we were."""
    at = STATUS * CHANNEL
    if not shared[at]:
        text = f"<current_cpu_time>{cpu_s:e}</current_cpu_time>\n"
        text += f"<checkpoint_cpu_time>{saved_s:e}</checkpoint_cpu_time>\n"
        text += f"<fraction_done>{min(1.0, cpu_s / whole_s):e}</fraction_done>\n"
        shared[at + 1 : at + 2 + len(text)] = text.encode() + b"\0"
        shared[at] = 1


def main(whole_s: float, period_s: float) -> None:
    """Count until done or told to end."""
    saved_s = float(open("saved").read()) if os.path.exists("saved") else 0.0  # noqa: SIM115
    cpu_s, computing = saved_s, True
    with open("boinc_mmap_file", "r+b") as file, mmap.mmap(file.fileno(), 8 * CHANNEL) as shared:
        while cpu_s < whole_s:
            time.sleep(STEP_S)
            order = take(shared)
            if b"<quit/>" in order or b"<abort/>" in order:
                with open("lost", "w") as lost:
                    lost.write(str(cpu_s - saved_s))
                sys.exit(0)
            computing = (computing or b"<resume/>" in order) and b"<suspend/>" not in order
            if computing:
                cpu_s += STEP_S
                if cpu_s - saved_s >= period_s:
                    saved_s = cpu_s
                    with open("saved.new", "w") as save:
                        save.write(str(saved_s))
                    os.replace("saved.new", "saved")
            tell(shared, cpu_s, saved_s, whole_s)
    with open("boinc_finish_called", "w") as finish:
        finish.write("0\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]))
