#!/bin/sh
# Installs memcached where it is missing; says what to do where it cannot.
command -v memcached >/dev/null && exit 0
as_root=; [ "$(id -u)" = 0 ] || as_root="sudo"
if command -v apt-get >/dev/null; then
    echo "installing memcached with apt-get ..."
    $as_root apt-get update -qq >/dev/null && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq memcached >/dev/null
elif command -v brew >/dev/null; then
    echo "installing memcached with brew ..."
    brew install --quiet memcached
fi
command -v memcached >/dev/null || { echo "the tests need memcached: install it with your package manager and run make test again"; exit 1; }
