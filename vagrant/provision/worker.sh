#!/bin/bash
# A worker: waits for the manager's token and joins; the last one waits for the end of the story.
set -eu
manager=$(awk '$2 == "manager" {print $1}' /vagrant/hosts)
fetch() { curl -fsS --max-time 20 "http://$manager:8377/$1" 2>/dev/null; }
wait_for() {
  local deadline=$((SECONDS + ${SLOW:+3000} + 600))
  until fetch "$1"; do
    [ $SECONDS -lt $deadline ] || { echo "the manager never offered $1"; exit 1; }
    sleep 2
  done
}
command -v curl >/dev/null || apt-get install -qqy curl
if [ "$(ovnctl info -f '{{.Swarm.LocalNodeState}}')" = inactive ]; then
  ovnctl swarm join --token "$(wait_for token)" "$manager:2377"
fi
if [ "$(hostname)" = "${LAST:-}" ]; then
  told=$(wait_for story)
  echo "$told"
  case $told in *'story: done'*) ;; *) exit 1 ;; esac
fi
