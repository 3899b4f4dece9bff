#!/bin/sh
# dockerd-up.sh DIR: a Docker daemon with everything it makes in DIR and in namespaces of its own: its bridges, iptables
# rules, mounts, processes are invisible to the machine and end with it. Its socket is DIR/docker.sock.
set -eu
dir=$1
mkdir -p "$dir"
# In a container with cgroup v2, the processes have to leave its top group before groups can be made below it (what
# moby's hack/dind does). A machine's own top group has no cgroup.type.
cg=/sys/fs/cgroup
if [ -f $cg/cgroup.type ]; then
  mkdir -p $cg/init
  xargs -rn1 <$cg/cgroup.procs >$cg/init/cgroup.procs 2>/dev/null || true
  sed -e 's/ / +/g' -e 's/^/+/' <$cg/cgroup.controllers >$cg/cgroup.subtree_control
fi
# A tmpfs, because overlay2 works on it and on no overlay (a container's /); vfs would take 4 GB and 40 s.
setsid unshare --net --mount --pid --fork --kill-child=KILL --mount-proc docker-init -- sh -c '
  mkdir -p "$1/data" && mount -t tmpfs -o size=3g tmpfs "$1/data" && ip link set lo up &&
  exec dockerd -H "unix://$1/docker.sock" --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/docker.pid" \
    --cgroup-parent "/$2"
' sh "$dir" "$(basename "$dir")" >"$dir/dockerd.log" 2>&1 </dev/null &
echo $! >"$dir/unshare.pid"
tries=150
until DOCKER_HOST=unix://$dir/docker.sock timeout 5 docker version >/dev/null 2>&1; do
  tries=$((tries - 1))
  if [ $tries = 0 ] || ! kill -0 $! 2>/dev/null; then tail -5 "$dir/dockerd.log" >&2; exit 1; fi
  sleep 0.1
done
