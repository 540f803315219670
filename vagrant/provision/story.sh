#!/bin/bash
# The user's session on the manager: a service published and scaled, a network, three stacks.
# What it says is kept in /run/overnet-lab/story, for the last worker and for the smoke test.
set -eu
share=/run/overnet-lab
exec > >(tee $share/story.new) 2>&1
# shellcheck disable=SC2154 # it is assigned where the trap runs
trap 'status=$?; [ $status = 0 ] || echo "story: failed with status $status"; sync; sleep 1; mv $share/story.new $share/story' EXIT
limit=$((${SLOW:+1800} + 300))
run() {
  echo "manager# ovnctl $*"
  ovnctl "$@"
}
# until_true WHAT COMMAND…
until_true() {
  local what=$1 deadline=$((SECONDS + limit))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ]; then
      echo "after $limit s still not: $what"
      "$@" || true
      ovnctl service ps "$(ovnctl service ls -q)" || true
      return 1
    fi
    sleep 2
  done
  echo "# $what"
}
ready() { [ "$(ovnctl node ls --format '{{.Status}}' | grep -c Ready)" = $(($(wc -w <<<"$WORKERS") + 1)) ]; }
complete() { ! ovnctl service ls --format '{{.Replicas}}' | awk -F'[/ ]' '$1 != $2 {wrong = 1} END {exit !(wrong || NR == 0)}'; }
answers() { curl -fsS --max-time 20 "$1" | grep -q "$2"; }

until_true "all hosts are ready" ready
run node ls
echo registry:5000/example/echo:latest
run service create --replicas 1 --publish 8000:8080 --name echo registry:5000/example/echo:latest
run service ls
until_true "the published port answers on the manager" answers http://127.0.0.1:8000/ 'Hello Docker!!'
run service scale echo=6
until_true "six tasks run" complete
run service ls
run service ps echo
run network create --driver=overlay --attachable ch03
run network ls

# Where the hub is out of reach, images of that name from the lab's registry stand in on this host;
# workers get them by their own pull through the registry's name.
file() { # the stack file as written, or with the registry's name before images of the hub
  if [ -n "${OFFLINE:-}${SLOW:-}" ]; then
    sed -E 's#image: (gihyodocker|dockersamples|dockercloud)/#image: registry:5000/\1/#' "/stack/$1" >"/tmp/$1"
    echo "/tmp/$1"
  else
    echo "/stack/$1"
  fi
}
run stack deploy -c "$(file ch03-webapi.yml)" echo
run stack deploy -c "$(file visualizer.yml)" visualizer
run stack deploy -c "$(file ch03-ingress.yml)" ingress
until_true "all tasks of the stacks run" complete
run stack ls
run stack services echo
run stack ps echo
until_true "nginx passes to the api by its name" \
  sh -c 'ovnctl run --rm --network ch03 registry:5000/example/echo:latest wget -qO- http://echo_nginx/ | grep -q "Hello Docker"'
until_true "the visualizer's page" answers http://127.0.0.1:9000/ .
run stack deploy -c "$(file ch03-webapi.yml)" echo
run doctor || true
if [ -n "${PROOF:-}" ]; then
  PEER=${WORKERS%% *} "$(dirname "$0")/proof.sh"
fi
echo "story: done"
