"""What stands in the files of a machine that does nothing but BOINC."""

from collections.abc import Sequence

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
SETUP = """\
#!/bin/sh
# Run again until it succeeds: without network it comes back in half a minute.
set -eu
stage=/etc/tides/boinc
[ -e /etc/tides/ready ] && rm -f $stage/ac*.xml && exit 0
if ! command -v boinc >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -q install -y --no-install-recommends boinc-client ca-certificates
fi
systemctl stop boinc-client || true
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


def render_proxy(host: str, port: int, not_for: Sequence[str]) -> str:
    """The option of `cc_config.xml` that sends the client through a proxy."""
    return (
        "    <proxy_info>\n      <use_http_proxy>1</use_http_proxy>\n"
        f"      <http_server_name>{host}</http_server_name>\n      <http_server_port>{port}</http_server_port>\n"
        f"      <no_proxy>{','.join(not_for)}</no_proxy>\n    </proxy_info>\n"
    )
