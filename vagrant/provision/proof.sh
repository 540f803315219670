#!/bin/bash
# What only a whole Debian kernel with systemd can show, on the manager, after the story: a network
# encrypted by the kernel's WireGuard, SCTP, limits by control groups of version 2, a restart under load.
# Each line of what is seen begins with "proof:"; the first thing that is not so ends it.
#   PEER  the worker at the other end
set -eu
image=registry:5000/example/echo:latest
limit=$((${SLOW:+900} + 120))
megabytes=${SLOW:+8}
megabytes=${megabytes:-64}
made_services=() made_containers=() made_networks=()
fine() { echo "proof: ok      $*"; }
figure() { echo "proof: figure  $*"; }
wrong() {
  echo "proof: FAILED  $*"
  exit 1
}
# until_true WHAT COMMAND…: it must come true, and is said.
until_true() {
  local what=$1 deadline=$((SECONDS + limit)) said
  shift
  until said=$("$@" 2>&1); do
    [ $SECONDS -lt $deadline ] || wrong "$what: after $limit s still not; last: ${said:0:400}"
    sleep 1
  done
  fine "$what"
}
# shellcheck disable=SC2329 # the trap runs it
tidy() {
  local status=$?
  if [ $status != 0 ]; then
    ovnctl service ls || true
    for service in "${made_services[@]}"; do ovnctl service ps --no-trunc "$service" || true; done
    ovnctl doctor --quiet || true
    journalctl -u ovnd -n 30 --no-pager || true
  fi
  for container in "${made_containers[@]}"; do ovnctl rm -f "$container" >/dev/null 2>&1 || true; done
  for service in "${made_services[@]}"; do ovnctl service rm "$service" >/dev/null 2>&1 || true; done
  # A network goes when its last endpoint has.
  for network in "${made_networks[@]}"; do
    for _ in $(seq 60); do
      ! ovnctl network rm "$network" >/dev/null 2>&1 || break
      sleep 1
    done
  done
}
trap tidy EXIT
serve() { # NAME NETWORK COMMAND: a task on the other machine
  made_services+=("$1")
  ovnctl service create -d --name "$1" --network "$2" --constraint "node.hostname==$PEER" "${@:4}" "$image" \
    sh -c "$3" >/dev/null
}
client() { # NAME NETWORK: a container of this machine, to ask from
  made_containers+=("$1")
  ovnctl run -d --name "$1" --network "$2" "$image" sleep 1000000 >/dev/null
}
runs() { [ "$(ovnctl service ls --filter "name=$1" --format '{{.Replicas}}')" = 1/1 ]; }
sent() { cat "/sys/class/net/$1/statistics/tx_bytes"; }
received() { cat "/sys/class/net/$1/statistics/rx_bytes"; }
now() { date +%s%N; }

# --- encrypted by the kernel ---------------------------------------------------------------------

for network in plain secret; do
  made_networks+=("proof-$network")
  option=()
  [ $network = plain ] || option=(--opt encrypted)
  ovnctl network create --driver overlay --attachable "${option[@]}" "proof-$network" >/dev/null
  serve "proof-$network" "proof-$network" "busybox dd if=/dev/zero of=/www/big bs=1M count=$megabytes 2>/dev/null; exec httpd -f -p 80 -h /www"
  client "asker-$network" "proof-$network"
done
for network in plain secret; do
  until_true "a task runs on $PEER for the $network network" runs "proof-$network"
  until_true "and answers over it" ovnctl exec "asker-$network" wget -qO- "http://proof-$network/index.html"
done
grep -q wireguard <(ip -d link show ovtw0) || wrong "ovtw0 is no device of the kernel's WireGuard: $(ip -d link show ovtw0)"
fine "ovtw0 is the kernel's: $(ip -d link show ovtw0 | grep -o 'wireguard.*' | head -n1)"
grep -q '^wireguard ' /proc/modules || wrong "the module wireguard is not loaded"
! pgrep -f 'ovnd wireguard' >/dev/null || wrong "a process carries packets beside the kernel"
fine "and no process of ovnd's carries packets"
ovnctl doctor >/tmp/proof.doctor 2>&1 || true
grep -q "the kernel's WireGuard is there" /tmp/proof.doctor || wrong "ovnd does not say so: $(cat /tmp/proof.doctor)"
fine "ovnd says: $(grep -h "kernel's WireGuard" /tmp/proof.doctor)"

for network in plain secret; do
  best=0
  for _ in 1 2 3; do
    before=$(received ovtw0 2>/dev/null || echo 0)
    begun=$(now)
    count=$(ovnctl exec "asker-$network" sh -c "wget -qO- http://proof-$network/big | busybox wc -c")
    took=$(($(now) - begun))
    [ "$count" = $((megabytes << 20)) ] || wrong "of $((megabytes << 20)) bytes $count came over the $network network"
    through=$(($(received ovtw0) - before))
    speed=$(((megabytes << 20) * 8 * 1000 / (took / 1000)))
    [ $speed -le $best ] || best=$speed
  done
  if [ $network = secret ]; then
    [ $through -ge $((megabytes << 20)) ] || wrong "of $megabytes MiB only $through bytes came out of ovtw0"
    fine "$megabytes MiB over the encrypted network were $through bytes through ovtw0"
  else
    [ $through -lt $((megabytes << 19)) ] || wrong "the plain network goes through ovtw0"
    fine "$megabytes MiB over the plain network were $through bytes through ovtw0"
  fi
  figure "$network network: $best kbit/s, the best of three transfers of $megabytes MiB, on $(systemd-detect-virt 2>/dev/null || echo "unknown") machines"
done

until_true "keys are rotated" ovnctl cluster rotate-keys
second() { grep -q wireguard <(ip -d link show ovtw1) && ! ip link show ovtw0 >/dev/null 2>&1; }
until_true "the second device has taken over from the first" second
until_true "the encrypted network answers by it" ovnctl exec asker-secret wget -qO- http://proof-secret/index.html

# --- SCTP ----------------------------------------------------------------------------------------

# Perl's own words: the image has no library of its own. 132 is SCTP.
made_services+=(proof-sctp)
# shellcheck disable=SC2016 # Perl expands it
ovnctl service create -d --name proof-sctp --network proof-plain --constraint "node.hostname==$PEER" \
  --publish published=7132,target=7132,protocol=sctp registry:5000/example/sctp:latest \
  perl -e 'socket(S, 2, 1, 132) or die "no SCTP: $!"; bind(S, pack("Sna4x8", 2, 7132, "\0" x 4)) or die $!; listen(S, 8) or die $!;
    while (1) { accept(C, S) or next; syswrite(C, "hello over SCTP\n"); close C }' >/dev/null
until_true "a task that listens by SCTP runs on $PEER" runs proof-sctp
# shellcheck disable=SC2016
ask='my ($to) = @ARGV; alarm 20; my $a = gethostbyname($to) or die "no address: $to"; socket(S, 2, 1, 132) or die "no SCTP: $!";
  connect(S, pack("Sna4x8", 2, 7132, $a)) or die "connect: $!"; sysread(S, my $said, 99) or die "read: $!"; print $said; exit($said !~ /hello over SCTP/)'
until_true "the published port answers by SCTP on the manager's address" perl -e "$ask" "$(awk '$2 == "manager" {print $1}' /vagrant/hosts)"
made_containers+=(asker-sctp)
ovnctl run -d --name asker-sctp --network proof-plain registry:5000/example/sctp:latest sleep 1000000 >/dev/null
until_true "the service answers by SCTP at its virtual address" ovnctl exec asker-sctp perl -e "$ask" \
  "$(ovnctl exec asker-sctp busybox nslookup proof-sctp 127.0.0.11 | awk '/^Address/ && !/127\.0\.0\.11/ {print $NF; exit}')"

# --- limits --------------------------------------------------------------------------------------

[ -e /sys/fs/cgroup/cgroup.controllers ] || wrong "control groups are not of version 2"
made_containers+=(limited)
ovnctl run -d --name limited --memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 50 "$image" sleep 1000000 >/dev/null
group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(ovnctl inspect -f '{{.State.Pid}}' limited)/cgroup")
holds() { # FILE VALUE
  local found
  found=$(cat "$group/$1")
  [ "$found" = "$2" ] || wrong "$group/$1 has $found, wanted $2"
  fine "$1 is $2"
}
holds memory.max $((64 << 20))
holds memory.swap.max 0
holds pids.max 50
holds cpu.max '50000 100000'
ovnctl update --memory 96m --memory-swap 128m --cpus 0.25 --pids-limit 60 limited >/dev/null
fine "its limits are updated while it runs"
holds memory.max $((96 << 20))
holds memory.swap.max $((32 << 20))
holds pids.max 60
holds cpu.max '25000 100000'
status=0
ovnctl run --rm --memory 16m --memory-swap 16m "$image" sh -c 'busybox dd if=/dev/zero of=/dev/null bs=64M count=1' >/dev/null 2>&1 || status=$?
[ $status = 137 ] || wrong "a program that takes four times its memory ended with $status, not by the kernel"
fine "a program that takes more than its memory is killed"

# --- a restart under load ------------------------------------------------------------------------

pid=$(ovnctl inspect -f '{{.State.Pid}}' asker-secret)
made_containers+=(asker-always)
# Ten questions a second by name, over the encrypted network, to the other machine. A name server's
# answer waits for the daemon, which takes an emulated machine longer than a resolver's usual ten seconds.
ovnctl run -d --name asker-always --network proof-secret --dns-option timeout:30 --dns-option attempts:5 "$image" sh -c \
  'while :; do if busybox timeout 300 wget -qO- http://proof-secret/index.html >/dev/null 2>&1; then echo fine; else echo LOST; fi; busybox usleep 100000; done' >/dev/null
asked() { ovnctl logs asker-always 2>/dev/null | grep -c "$1" || true; }
more_than() { [ "$(asked fine)" -gt "$1" ]; }
until_true "a container asks over the encrypted network all the while" more_than 3
before=$(systemctl show ovnd -p MainPID --value)
begun=$(now)
systemctl restart ovnd
took=$((($(now) - begun) / 1000000))
figure "systemctl restart ovnd: $took ms, with $(ovnctl ps -q | wc -l) containers"
[ "$(systemctl show ovnd -p MainPID --value)" != "$before" ] || wrong "systemctl restart did not restart ovnd"
until_true "ovnd is restarted and its manager leads" ovnctl node ls
until_true "and goes on to answer names" more_than $(($(asked fine) + 3))
[ "$(asked LOST)" = 0 ] || wrong "$(asked LOST) questions were lost over the restart"
fine "no question was lost over the restart"
[ "$(ovnctl inspect -f '{{.State.Pid}}' asker-secret)" = "$pid" ] || wrong "a container did not outlive the restart"
fine "containers went on"

# --- the doctor ----------------------------------------------------------------------------------

# Emulated machines have nobody to ask for the time.
well() { ! ovnctl doctor --quiet 2>&1 | grep -E '^(warning|error)' | grep -v '^warning *clock:'; }
until_true "the doctor finds nothing but a clock that nobody sets" well
echo "proof: done"
