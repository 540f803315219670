#!/bin/sh
ask() { curl -fsS --max-time 5 --unix-socket /var/run/docker.sock "http://docker$1"; }
if page=$({ ask /nodes && ask /services && ask /tasks; } 2>/tmp/error | jq -rse -f /srv/page.jq); then
  printf 'Content-Type: text/html; charset=utf-8\r\n\r\n%s\n' "$page"
else
  printf 'Status: 502 Bad Gateway\r\nContent-Type: text/plain\r\n\r\nThe API socket does not answer: '
  cat /tmp/error
fi
