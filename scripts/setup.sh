# Shared by the scripts of this folder: what they need, and how they say what is missing.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top" || exit 1
CARGO_TARGET_DIR=$(realpath -sm "${CARGO_TARGET_DIR:-$top/target}")
export CARGO_TARGET_DIR
# shellcheck disable=SC2034 # read by the scripts
bin=$CARGO_TARGET_DIR/release

# Programs do not tell in which folders they were built, so that another machine's build of the same
# commit with the same toolchain has the same bytes. Takes the target folder.
same_bytes() {
  local unit=$'\x1f' flags='' flag home target maps
  for flag in ${RUSTFLAGS:-}; do flags+=$flag$unit; done
  home=$(realpath -sm "${CARGO_HOME:-$HOME/.cargo}")
  target=$(realpath -sm "$1")
  maps=("--remap-path-prefix=$home=/cargo" "--remap-path-prefix=$target=/target")
  # The last that fits counts: where one lies in the other, the inner one.
  case $home in "$target"/*) maps=("${maps[1]}" "${maps[0]}") ;; esac
  export CARGO_ENCODED_RUSTFLAGS=$flags${maps[0]}$unit${maps[1]}
}
same_bytes "$CARGO_TARGET_DIR"

say() { printf '\n\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

workspace_version() { sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml; }

need_root() { [ "$(id -u)" = 0 ] || fail "needs root (it makes namespaces and mounts): sudo $0"; }

# Words COMMAND:PACKAGE; installs the packages whose command is missing.
need_commands() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || fail "missing: ${missing[*]} (this is no Debian: install them by hand)"
  [ "$(id -u)" = 0 ] || fail "missing: ${missing[*]}. As root: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d own_policy=''
  if [ ! -e $policy ]; then
    # Some packages would start a service; only the programs are wanted.
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    own_policy=yes
  fi
  local done=yes
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends "${missing[@]}"; } \
    >/dev/null || done=''
  [ -n "$own_policy" ] && rm -f $policy
  [ -n "$done" ] || fail "apt-get could not install ${missing[*]}"
  local service
  for service in docker-registry nginx haproxy prometheus etcd; do
    case " ${missing[*]} " in
      *" $service "* | *" $service-server "*) command -v systemctl >/dev/null && systemctl disable -q "$service" 2>/dev/null ;;
    esac
  done
  return 0
}

need_rust() {
  command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
  command -v cargo >/dev/null || fail "no Rust toolchain: see https://rustup.rs"
  need_commands cc:gcc ld:binutils
  [ -e /usr/include/stdio.h ] || need_commands no-libc-headers:libc6-dev
}

need_nextest() {
  cargo nextest --version >/dev/null 2>&1 && return
  say "installing cargo-nextest (once, some minutes)"
  cargo install --locked --quiet cargo-nextest || fail "cargo-nextest could not be installed"
}

need_lab() {
  need_root
  # The images hold nothing but it, so it must need no library.
  ldd "$(command -v busybox)" >/dev/null 2>&1 && need_commands no-static-busybox:busybox-static
  need_commands conmon:conmon crun:crun runc:runc nft:nftables ip:iproute2 docker-registry:docker-registry \
    busybox:busybox-static conntrack:conntrack dig:bind9-dnsutils iperf3:iperf3 curl:curl wget:wget ps:procps \
    ldd:libc-bin openssl:openssl tini-static:tini faketime:faketime nginx:nginx haproxy:haproxy jq:jq \
    promtool:prometheus podman:podman iptables:iptables ansible-playbook:ansible \
    /usr/lib/cni/loopback:containernetworking-plugins
  [ -d /usr/lib/python3/dist-packages/docker ] || need_commands no-docker-sdk:python3-docker
}

# What drives the visualizer's page in its tests.
need_browser() { need_commands chromium:chromium chromedriver:chromium-driver; }

need_node() { need_commands node:nodejs; }

# One profile and always the whole workspace: nothing is compiled twice. With a test among what is
# built, dependencies have the same features here as where the tests are built.
build() {
  need_rust
  say "building (release, into $CARGO_TARGET_DIR)"
  cargo build --release --workspace --bins --test layering --locked || fail "the build failed"
}
