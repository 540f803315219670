#!/bin/bash
# The lab's registry: Debian's docker-registry with plain HTTP on port 5000, and the images in it.
set -eu
export DEBIAN_FRONTEND=noninteractive
missing=()
command -v docker-registry >/dev/null || missing+=(docker-registry)
command -v busybox >/dev/null || missing+=(busybox-static)
command -v curl >/dev/null || missing+=(curl)
command -v nginx >/dev/null || missing+=(nginx-light)
[ ${#missing[@]} = 0 ] || { apt-get update -qq && apt-get install -qqy --no-install-recommends "${missing[@]}"; }
# Its files are put into images; as a service it would hold port 80.
systemctl disable -q --now nginx 2>/dev/null || true
# Debian's own configuration asks for a password.
cat >/etc/docker/registry/config.yml <<'TXT'
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: /var/lib/docker-registry}
  delete: {enabled: true}
http: {addr: ':5000'}
TXT
systemctl enable -q docker-registry
systemctl restart docker-registry
for _ in $(seq 300); do
  curl -fsS http://127.0.0.1:5000/v2/ >/dev/null 2>&1 && break
  sleep 1
done
"$(dirname "$0")/images.sh"
