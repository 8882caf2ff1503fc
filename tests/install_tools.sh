#!/bin/sh
# Installs what the tests need beside Python, where it is missing: memcached, openssl, Redis, and on Linux what makes
# several hosts of one (ip, unshare, mount) and another browser of services (Avahi's). Says what to do where it cannot.
PATH=$PATH:/usr/sbin
needed="memcached openssl redis-server"
[ "$(uname)" = Linux ] && needed="memcached openssl redis-server ip unshare mount avahi-daemon avahi-browse dbus-daemon"
missing() { for program in $needed; do command -v "$program" >/dev/null || echo "$program"; done; }
[ -z "$(missing)" ] && exit 0
as_root=; [ "$(id -u)" = 0 ] || as_root="sudo"
echo "installing $(missing | xargs) ..."
if command -v apt-get >/dev/null; then
    $as_root apt-get update -qq >/dev/null && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq memcached openssl redis-server iproute2 util-linux mount avahi-daemon avahi-utils dbus >/dev/null
elif command -v brew >/dev/null; then
    brew install --quiet memcached openssl redis
fi
[ -z "$(missing)" ] || { echo "the tests need $(missing | xargs): install them with your package manager and run make test again"; exit 1; }
