#!/bin/bash
# The first manager: makes the cluster, offers the token to the workers, and starts the story.
set -eu
address=$(awk '$2 == "manager" {print $1}' /vagrant/hosts)
if [ "$(ovnctl info -f '{{.Swarm.LocalNodeState}}')" = inactive ]; then
  ovnctl swarm init --advertise-addr "$address"
fi
# The lab's own network has nobody on it who may not join; elsewhere a token is handed over by hand.
share=/run/overnet-lab
mkdir -p $share
ovnctl swarm join-token -q worker >$share/token
command -v busybox >/dev/null || apt-get install -qqy busybox-static
systemctl is-active -q overnet-lab-share 2>/dev/null ||
  systemd-run -q --unit overnet-lab-share busybox httpd -f -p "$address:8377" -h $share
systemctl reset-failed overnet-lab-story 2>/dev/null || true
systemctl is-active -q overnet-lab-story 2>/dev/null ||
  systemd-run -q --unit overnet-lab-story --setenv=WORKERS="$WORKERS" --setenv=SLOW="${SLOW:-}" --setenv=PROOF="${PROOF:-}" \
    --property=StandardOutput=journal+console --property=StandardError=journal+console \
    /vagrant/provision/story.sh
