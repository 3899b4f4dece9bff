#!/bin/sh
# dockerd-down.sh DIR: ends the daemon of dockerd-up.sh, all its containers, and every trace of them.
dir=$1
pid=$(cat "$dir/unshare.pid") || exit 0
kill -9 "$pid" 2>/dev/null
while kill -0 "$pid" 2>/dev/null && [ "$(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null)" != Z ]; do sleep 0.05; done
sleep 0.2
rm -rf "$dir"
find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup/*$(basename "$dir")*" -exec rmdir {} \; 2>/dev/null
exit 0
