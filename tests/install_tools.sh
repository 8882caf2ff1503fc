#!/bin/sh
# Installs what the tests need beside Python, where it is missing: the stores, openssl, and on Linux what makes several
# hosts of one (ip, unshare, mount) and another browser of services (Avahi's). Says what to do where it cannot.
PATH=$PATH:/usr/sbin:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
[ -d /usr/share/zookeeper/bin ] && PATH=$PATH:/usr/share/zookeeper/bin
needed="memcached openssl redis-server initdb etcd etcdctl zkServer.sh"
[ "$(uname)" = Linux ] && needed="$needed ip unshare mount avahi-daemon avahi-browse dbus-daemon"
packages="memcached openssl redis-server postgresql etcd-server etcd-client zookeeper"
packages="$packages iproute2 util-linux mount avahi-daemon avahi-utils dbus"
missing() { for program in $needed; do command -v "$program" >/dev/null || echo "$program"; done; }
[ -z "$(missing)" ] && exit 0
as_root=; [ "$(id -u)" = 0 ] || as_root="sudo"
echo "installing $(missing | xargs) ..."
if command -v apt-get >/dev/null; then
    $as_root apt-get update -qq >/dev/null && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >/dev/null
elif command -v brew >/dev/null; then
    brew install --quiet memcached openssl redis postgresql@15 etcd zookeeper
fi
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1):/usr/share/zookeeper/bin
[ -z "$(missing)" ] || { echo "the tests need $(missing | xargs): install them with your package manager and run make test again"; exit 1; }
