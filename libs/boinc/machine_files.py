"""What stands in the files of a machine that does nothing but BOINC."""

from collections.abc import Sequence
from textwrap import indent

CC_CONFIG = """\
<cc_config>
  <log_flags><task>1</task><file_xfer>1</file_xfer><sched_ops>1</sched_ops></log_flags>
  <options>
    <no_info_fetch>1</no_info_fetch>
    <dont_contact_ref_site>1</dont_contact_ref_site>
    <report_results_immediately>1</report_results_immediately>
    <allow_remote_gui_rpc>0</allow_remote_gui_rpc>
{proxy}  </options>
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

# The client rewrites its files as 0644 whatever they were: keys are kept by the umask and the folder.
UNIT = """\
[Service]
UMask=0077
"""

SETUP_UNIT = """\
[Unit]
Description=Tides puts BOINC in place
After=network.target
StartLimitIntervalSec=0
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/tides-setup
Restart=on-failure
RestartSec=30
[Install]
WantedBy=multi-user.target
"""

AGENT_UNIT = """\
[Unit]
Description=Tides looks after this machine
StartLimitIntervalSec=0
[Service]
ExecStart=/usr/bin/python3 /usr/local/sbin/tides-agent run /etc/tides/agent.json
Restart=always
RestartSec=5
[Install]
WantedBy=multi-user.target
"""

# Installing starts the client before its files exist; a cloned state would be the clone's identity.
_SETUP = """\
#!/bin/sh
# Run again until it succeeds: without network it comes back in half a minute.
set -eu
stage=/etc/tides/boinc
[ -e /etc/tides/ready ] && rm -f $stage/ac*.xml && exit 0
{install}systemctl stop boinc-client || true
data=/var/lib/boinc-client
[ -d $data ] || data=/var/lib/boinc
rm -f $data/client_state.xml $data/client_state_prev.xml
chmod 0750 $data
install -o boinc -g boinc -m 0644 $stage/cc_config.xml /etc/boinc-client/cc_config.xml
install -o boinc -g boinc -m 0664 $stage/global_prefs_override.xml /etc/boinc-client/global_prefs_override.xml
for file in $stage/ac*.xml; do
    [ -e "$file" ] && install -o boinc -g boinc -m 0600 "$file" $data/
done
password=/etc/boinc-client/gui_rpc_auth.cfg
if ! grep -q . $password 2>/dev/null; then
    umask 077
    head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n' >$password.new
    chown root:boinc $password.new
    chmod 0640 $password.new
    mv $password.new $password
fi
systemctl daemon-reload
systemctl enable boinc-client
# From here on the token in the staged files may be spent: they are never put in place again.
touch /etc/tides/ready
systemctl restart boinc-client
rm -f $stage/ac*.xml
"""

_APT = """\
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends boinc-client ca-certificates
"""
_INSTALL = "if ! command -v boinc >/dev/null; then\n" + indent(_APT, "    ") + "fi\n"
_EXPECT = """\
if ! command -v boinc >/dev/null; then
    echo 'tides: the image was said to hold boinc-client, and does not' >&2
    exit 1
fi
"""

BUILD_UNIT = """\
[Unit]
Description=Tides makes this machine an image
After=network.target
StartLimitIntervalSec=0
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/tides-build
Restart=on-failure
RestartSec=30
[Install]
WantedBy=multi-user.target
"""

# A client that starts once has an identity, which every clone would share: it is masked until it is cleaned away. One
# that the origin holds and starts is stopped before, for at its end it writes down who it is.
_BUILD = """\
#!/bin/sh
# Run again until it succeeds: without network it comes back in half a minute.
set -eu
timeout 600 cloud-init status --wait >/dev/null || true
{install}systemctl stop boinc-client || true
data=/var/lib/boinc-client
[ -d $data ] || data=/var/lib/boinc
rm -f $data/client_state*.xml $data/account*.xml $data/acct_mgr*.xml
[ ! -e /etc/boinc-client/gui_rpc_auth.cfg ] || : >/etc/boinc-client/gui_rpc_auth.cfg
rm -rf /etc/tides
apt-get -q clean || true
rm -rf /var/lib/apt/lists/* /var/lib/dhcp/*
rm -f /etc/ssh/ssh_host_* /var/lib/systemd/random-seed
for home in $(cut -d: -f6 /etc/passwd); do rm -f "$home/.bash_history"; done
cloud-init clean --logs
rm -rf /var/log/journal/*
find /var/log -type f -exec truncate -s 0 {} +
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
: >/etc/machine-id
systemctl disable tides-build.service
rm -f /etc/systemd/system/tides-build.service /usr/local/sbin/tides-build
sync
systemctl poweroff
"""
_UNSTARTED = (
    "systemctl mask boinc-client\n" + _APT + "systemctl unmask boinc-client\nsystemctl disable boinc-client\n"
)


def render_setup(*, installs: bool) -> str:
    """The script that puts BOINC in place; where the image holds the client it asks no mirror for it."""
    return _SETUP.replace("{install}", _INSTALL if installs else _EXPECT)


def render_build(*, installs: bool) -> str:
    """The script that makes a machine an image, with the client or without: what is its own goes, and it turns off."""
    return _BUILD.replace("{install}", _UNSTARTED if installs else "")


def render_proxy(host: str, port: int, not_for: Sequence[str]) -> str:
    """The option of `cc_config.xml` that sends the client through a proxy."""
    return (
        "    <proxy_info>\n      <use_http_proxy>1</use_http_proxy>\n"
        f"      <http_server_name>{host}</http_server_name>\n      <http_server_port>{port}</http_server_port>\n"
        f"      <no_proxy>{','.join(not_for)}</no_proxy>\n    </proxy_info>\n"
    )
