#!/bin/bash
# Builds the lab's images from this machine's own files and pushes them in the words of the
# registry's HTTP API, so that no other machine and no other program is needed.
#
# example/echo answers "Hello Docker!!" on 8080, example/toolbox has what asks it; example/sctp has
# Perl, which speaks SCTP. The others stand in for images of the user's stack files where the hub
# that has them is out of reach: the real nginx as a proxy to $BACKEND_HOST, and two pages that are
# shown only when Docker's socket is mounted.
set -eu
registry=http://127.0.0.1:5000
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

busybox=$(command -v busybox)
base() {
  local root=$1
  mkdir -p "$root"/{bin,etc,tmp,proc,sys,dev,root,www,run,var/log/nginx,var/lib/nginx}
  chmod 1777 "$root/tmp"
  cp "$busybox" "$root/bin/busybox"
  local applet
  for applet in sh httpd wget cat sed ls sleep hostname test nslookup ip; do ln -sf busybox "$root/bin/$applet"; done
  printf 'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/www:/bin/false\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\nwww-data:x:33:\nadm:x:4:\nnogroup:x:65534:\n' >"$root/etc/group"
}

# A program with the libraries that its loader asks for.
program() {
  local file root=$2
  for file in "$1" $(ldd "$1" | grep -oE '/[^ ]+'); do
    install -D "$(realpath "$file")" "$root$file"
  done
}

blob() { # FILE: sends it, prints its digest
  local digest place
  digest=sha256:$(sha256sum "$1" | cut -d' ' -f1)
  place=$(curl -fsS -X POST -D - -o /dev/null "$registry/v2/$image/blobs/uploads/" |
    tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  case $place in http*) ;; *) place=$registry$place ;; esac
  case $place in *\?*) place=$place\& ;; *) place=$place\? ;; esac
  curl -fsS -X PUT -H 'Content-Type: application/octet-stream' --data-binary @"$1" \
    "${place}digest=$digest" >/dev/null
  echo "$digest"
}

push() { # IMAGE TREE CMD-AS-JSON: one layer, one configuration, one manifest
  local image=$1 tree=$2 command=$3 layer config size
  tar -C "$tree" --sort=name --owner=0 --group=0 --mtime=@0 -cf "$work/layer.tar" .
  local diff
  diff=sha256:$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  gzip -n1 -f "$work/layer.tar"
  layer=$(blob "$work/layer.tar.gz")
  size=$(stat -c %s "$work/layer.tar.gz")
  printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["PATH=/bin:/usr/bin:/usr/sbin"],"Cmd":%s},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
    "$(dpkg --print-architecture)" "$command" "$diff" >"$work/config"
  config=$(blob "$work/config")
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"%s","size":%s}]}' \
    "$config" "$(stat -c %s "$work/config")" "$layer" "$size" >"$work/manifest"
  curl -fsS -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
    --data-binary @"$work/manifest" "$registry/v2/$image/manifests/latest" >/dev/null
  echo "pushed $image"
}

has() { curl -fsS -o /dev/null -H 'Accept: application/vnd.oci.image.manifest.v1+json' "$registry/v2/$1/manifests/latest" 2>/dev/null; }

if ! has example/echo; then
  base "$work/echo"
  echo 'Hello Docker!!' >"$work/echo/www/index.html"
  mkdir -p "$work/echo/www/cgi-bin"
  # shellcheck disable=SC2016 # the image's shell expands it
  printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"; echo "host=$(hostname) client=$REMOTE_ADDR"\n' >"$work/echo/www/cgi-bin/whoami"
  chmod 755 "$work/echo/www/cgi-bin/whoami"
  push example/echo "$work/echo" '["httpd","-f","-p","8080","-h","/www"]'
fi

if ! has example/toolbox; then
  base "$work/toolbox"
  push example/toolbox "$work/toolbox" '["sh"]'
fi

if ! has gihyodocker/nginx-proxy; then
  base "$work/nginx"
  program /usr/sbin/nginx "$work/nginx"
  cat >"$work/nginx/start" <<'TXT'
#!/bin/sh
# The name is looked up anew: nginx alone would keep the first answer for ever.
cat >/etc/nginx.conf <<CONF
user root;
daemon off;
error_log /dev/stderr;
pid /run/nginx.pid;
events {}
http {
  access_log off;
  server {
    listen 80;
    resolver 127.0.0.11 valid=5s;
    set \$backend $BACKEND_HOST;
    location / { proxy_pass http://\$backend; }
  }
}
CONF
exec nginx -c /etc/nginx.conf
TXT
  chmod 755 "$work/nginx/start"
  push gihyodocker/nginx-proxy "$work/nginx" '["/start"]'
fi

if ! has example/sctp; then
  base "$work/sctp"
  program /usr/bin/perl "$work/sctp"
  push example/sctp "$work/sctp" '["sleep","1000000"]'
fi

page() { # IMAGE TEXT PORTS: a page on each port, if the socket is there
  has "$1" && return
  local tree=$work/page
  rm -rf "$tree"
  base "$tree"
  echo "$2" >"$tree/www/index.html"
  {
    echo '#!/bin/sh'
    echo 'test -S /var/run/docker.sock || { echo "no docker.sock is mounted"; exit 1; }'
    for port in $3; do echo "httpd -p $port -h /www"; done
    echo 'exec sleep 1000000'
  } >"$tree/start"
  chmod 755 "$tree/start"
  mkdir -p "$tree/var/run"
  push "$1" "$tree" '["/start"]'
}
page dockersamples/visualizer 'stand-in for the visualizer' 8080
page dockercloud/haproxy 'stand-in for the ingress proxy' '80 1936'
