"""The cloud-init document that makes a fresh Debian machine a BOINC client of its own, unattended."""

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

import yaml

from libs.boinc.account import Attachment, account_file_name, render_account_file

__all__ = ["LARGEST_BYTES", "Attachment", "render_user_data"]

LARGEST_BYTES = 16 * 1024
_DATA = "/var/lib/boinc-client"
_CONFIG = "/etc/boinc-client"
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PLAIN = re.compile(r"[\n\x20-\x7e]*")

CC_CONFIG = """\
<cc_config>
  <log_flags><task>1</task><file_xfer>1</file_xfer><sched_ops>1</sched_ops></log_flags>
  <options>
    <no_info_fetch>1</no_info_fetch>
    <dont_contact_ref_site>1</dont_contact_ref_site>
    <report_results_immediately>1</report_results_immediately>
    <allow_remote_gui_rpc>0</allow_remote_gui_rpc>
  </options>
</cc_config>
"""

# The client's defaults are for somebody's desk: 25 % of other CPU use stops it, and it hoards days of work.
PREFERENCES = """\
<global_preferences>
  <run_on_batteries>1</run_on_batteries>
  <run_if_user_active>1</run_if_user_active>
  <run_gpu_if_user_active>0</run_gpu_if_user_active>
  <suspend_cpu_usage>0</suspend_cpu_usage>
  <niu_suspend_cpu_usage>0</niu_suspend_cpu_usage>
  <max_ncpus_pct>100</max_ncpus_pct>
  <cpu_usage_limit>100</cpu_usage_limit>
  <ram_max_used_busy_pct>90</ram_max_used_busy_pct>
  <ram_max_used_idle_pct>90</ram_max_used_idle_pct>
  <leave_apps_in_memory>1</leave_apps_in_memory>
  <disk_interval>60</disk_interval>
  <work_buf_min_days>0.02</work_buf_min_days>
  <work_buf_additional_days>0</work_buf_additional_days>
</global_preferences>
"""

_UNIT = """\
[Service]
UMask=0077
"""


class _Dumper(yaml.SafeDumper):
    """Several plain lines become a block that a person can read; everything else is quoted as it needs."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    block = "\n" in text and _PLAIN.fullmatch(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


_Dumper.add_representer(str, _represent)


def render_user_data(
    attachments: Sequence[Attachment],
    hostname: str,
    guest_token: str,
    *,
    guest_url: str = "",
    ca_pem: str | None = None,
) -> str:
    """A `#cloud-config` document of at most 16 KiB for a dedicated machine that works for these projects.

    `guest_token` is the machine's own short-lived token, `guest_url` where its agent reports.
    `hostname` must be unique among living machines: projects take two hosts of one name for the same.
    Raises ValueError with a sentence that names the argument, never its value.
    """
    _check(attachments, hostname, guest_token)
    document: dict[str, Any] = {
        "hostname": hostname,
        "preserve_hostname": False,
        "package_update": True,
        "packages": ["boinc-client", "ca-certificates"],
    }
    if ca_pem:
        document["ca_certs"] = {"trusted": [ca_pem]}
    document["write_files"] = [
        *_guest_files(guest_token, guest_url),
        *_boinc_files(guest_token),
        *(_account_file(attachment) for attachment in attachments),
    ]
    # Installing starts the client before its files exist; a cloned state would be the clone's identity.
    document["runcmd"] = [
        ["rm", "-f", f"{_DATA}/client_state.xml", f"{_DATA}/client_state_prev.xml"],
        ["chmod", "0750", _DATA],
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "boinc-client"],
        ["systemctl", "restart", "boinc-client"],
    ]
    text = "#cloud-config\n" + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=4096)
    if len(text.encode()) > LARGEST_BYTES:
        raise ValueError(f"attachments: the user-data is larger than {LARGEST_BYTES // 1024} KiB")
    return text


def _check(attachments: Sequence[Attachment], hostname: str, guest_token: str) -> None:
    if not _HOSTNAME.fullmatch(hostname):
        raise ValueError("hostname: must be one label of lower-case letters, digits and hyphens")
    if not guest_token.isascii() or not guest_token.isprintable() or not guest_token:
        raise ValueError("guest_token: must be printable ASCII")
    names = [account_file_name(attachment.project_url) for attachment in attachments]
    if len(set(names)) != len(names):
        raise ValueError("attachments: two projects have the same account file")
    if any(not (math.isfinite(a.weight) and a.weight > 0) for a in attachments):
        raise ValueError("attachments: every weight must be above 0")


def _guest_files(guest_token: str, guest_url: str) -> list[dict[str, Any]]:
    files = [_file("/etc/tides/guest_token", guest_token, "0600", "root:root")]
    if guest_url:
        files.append(_file("/etc/tides/guest_url", guest_url, "0644", "root:root"))
    return files


def _boinc_files(guest_token: str) -> list[dict[str, Any]]:
    # Only the guest itself may steer its client: the password is known nowhere else.
    password = hashlib.sha256(f"gui-rpc/{guest_token}".encode()).hexdigest()[:32]
    return [
        _file("/etc/systemd/system/boinc-client.service.d/tides.conf", _UNIT, "0644", "root:root"),
        _file(f"{_CONFIG}/cc_config.xml", CC_CONFIG, "0644", "boinc:boinc"),
        _file(f"{_CONFIG}/global_prefs_override.xml", PREFERENCES, "0664", "root:boinc"),
        _file(f"{_CONFIG}/gui_rpc_auth.cfg", password, "0640", "root:boinc"),
    ]


def _account_file(attachment: Attachment) -> dict[str, Any]:
    path = f"{_DATA}/{account_file_name(attachment.project_url)}"
    return _file(path, render_account_file(attachment), "0600", "boinc:boinc")


def _file(path: str, content: str, permissions: str, owner: str) -> dict[str, Any]:
    # Deferred to the final stage: the user boinc comes with the package.
    return {"path": path, "owner": owner, "permissions": permissions, "defer": True, "content": content}
