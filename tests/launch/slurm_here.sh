#!/usr/bin/env bash
# Makes this machine a SLURM cluster of one node: installs what is missing, writes the configuration, starts the daemons,
# waits until the node takes jobs. Debian or Ubuntu, as root, in a container without systemd too. Leaves one that is
# there as it is. `slurm_here.sh stop` ends the daemons that it has started.
set -euo pipefail
pids=(/run/slurmd.pid /run/slurmctld.pid /run/munge/munged.pid)

if [ "${1:-}" = stop ]; then
  if [ -e /run/slurm_here ]; then
    for file in "${pids[@]}"; do [ ! -s "$file" ] || kill "$(cat "$file")" || true; done
    rm /run/slurm_here
  fi
  exit 0
fi

if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
fi
if sinfo --noheader --format=%T 2>/dev/null | grep -q -e idle -e mixed -e allocated; then exit 0; fi
if [ -e /etc/slurm/slurm.conf ] && ! grep -q '^ClusterName=here$' /etc/slurm/slurm.conf; then
  echo "this machine belongs to another cluster: /etc/slurm/slurm.conf is left as it is" >&2
  exit 1
fi

host=$(hostname -s)
mkdir -p /run/munge /var/spool/slurmctld /var/spool/slurmd /var/log/slurm /etc/slurm
chown munge: /run/munge
touch /run/slurm_here
pgrep -x munged >/dev/null || runuser -u munge -- munged

cat >/etc/slurm/slurm.conf <<CONF
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
echo 'CgroupPlugin=autodetect' >/etc/slurm/cgroup.conf

pgrep -x slurmctld >/dev/null || slurmctld
pgrep -x slurmd >/dev/null || slurmd
for _ in $(seq 60); do
  if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then exit 0; fi
  sleep 0.5
done
sinfo >&2 || true
tail -n 20 /var/log/slurm/*.log >&2
exit 1
