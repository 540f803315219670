#!/bin/bash
# Makes a Debian machine a host of the lab, by its name: registry, manager or a worker. Root runs it,
# from Vagrant or from scripts/vm-lab. It may be run again.
#   WORKERS  the workers that the story waits for
#   LAST     the host that waits for the end of the story
#   SLOW=1   the machines are emulated: heartbeats and patience are stretched
#   PROOF=1  after the story the manager runs proof.sh
set -eu
export DEBIAN_FRONTEND=noninteractive
here=/vagrant/provision
name=$(hostname)
say() { echo "[$name] $*"; }

# shellcheck disable=SC2154 # it is assigned where the trap runs
trap 'status=$?; [ $status = 0 ] || say "provisioning failed with status $status"' EXIT

say "names of the lab"
sed -i '/# overnet lab$/d' /etc/hosts
sed -e 's/#.*//' -e '/^ *$/d' -e 's/$/ # overnet lab/' /vagrant/hosts >>/etc/hosts
# Debian writes the host's own name as 127.0.1.1, which other hosts cannot reach.
sed -i '/^127\.0\.1\.1/d' /etc/hosts

# A registry of its own, or together with the manager where machines are few.
if grep -qE "^$(awk -v n="$name" '$2 == n {print $1}' /vagrant/hosts)[[:space:]]+registry" /etc/hosts; then
  "$here/registry.sh"
fi
[ "$name" != registry ] || exit 0

if ! dpkg -s overnet >/dev/null 2>&1; then
  say "installing Overnet"
  mkdir -p /etc/overnet
  {
    echo 'insecure-registry = ["registry:5000"]'
    [ -z "${SLOW:-}" ] || echo 'heartbeat = "5s"'
  } >/etc/overnet/ovnd.toml
  package=$(find /packages -name "overnet_*_$(dpkg --print-architecture).deb" | sort -V | tail -n1)
  [ -n "$package" ] || { say "no package in /packages: run scripts/package first"; exit 1; }
  # Offline everything it depends on is there already; the file above stays as it is.
  dpkg --force-confold -i "$package" 2>/dev/null ||
    { apt-get update -qq && apt-get install -qqy -o Dpkg::Options::=--force-confold "$package"; }
fi
systemctl is-active ovnd || { journalctl -u ovnd -n 20 --no-pager; exit 1; }

case $name in
  manager) "$here/manager.sh" ;;
  *) "$here/worker.sh" ;;
esac
