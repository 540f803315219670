#!/bin/bash
# Checks the lab from outside, through the ports that are forwarded to the manager.
#   HOST    where they are forwarded to [127.0.0.1]
#   OFFSET  what is added to each port [0; 80 is 10080 without it]
#   LIMIT   seconds to wait for each page [60]
set -eu
host=${HOST:-127.0.0.1} offset=${OFFSET:-0} limit=${LIMIT:-60}
passed=0 failed=0
check() { # WHAT PORT PATH PATTERN
  local port=$(($2 + offset)) deadline=$((SECONDS + limit)) page
  if [ "$offset" = 0 ] && [ "$2" -lt 1024 ]; then port=$(($2 + 10000)); fi
  while true; do
    if page=$(curl -fsS --max-time 30 "http://$host:$port$3" 2>&1) && grep -q "$4" <<<"$page"; then
      echo "ok      $1"
      passed=$((passed + 1))
      return
    fi
    [ $SECONDS -lt $deadline ] || break
    sleep 1
  done
  echo "FAILED  $1: http://$host:$port$3 gave: ${page:0:200}"
  failed=$((failed + 1))
}
check 'the echo service on 8000' 8000 / 'Hello Docker!!'
check 'the visualizer on 9000' 9000 / .
check 'the ingress proxy on 80' 80 / .
check 'the proxy'\''s figures on 1936' 1936 / .
echo "$passed passed, $failed failed"
[ $failed = 0 ]
