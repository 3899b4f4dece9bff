#!/bin/bash
# The first program of a User-Mode Linux guest (uml.ts). Its root is the host's file system, read-only. It serves one
# command a line from its terminal: the output, then a record separator (0x1e), END and the exit code.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TERM=dumb LC_ALL=C.UTF-8 TMPDIR=/run
mount -t proc proc /proc
mount -t sysfs sys /sys
for place in /run /mnt; do mount -t tmpfs tmp $place; done
mount -t devtmpfs dev /dev 2>/dev/null
ln -s /proc/self/fd /dev/fd 2>/dev/null
exec </dev/tty1 >/dev/tty1 2>&1
stty raw -echo -opost
mkdir -p /run/m/lib
ln -s /usr/lib/uml/modules /run/m/lib/modules
for module in virtio_net ${MODULES//,/ }; do modprobe -d /run/m "$module"; done
# User-Mode Linux's own driver names its interface so.
[ -e /sys/class/net/vec0 ] && ip link set vec0 name eth0
ip link set lo up
printf '\036READY\n'
while IFS= read -r line; do
  [ "$line" = halt ] && break
  (eval "$line") </dev/null 2>&1
  printf '\036END %d\n' $?
done
exec busybox poweroff -f
