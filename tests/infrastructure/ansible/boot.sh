#!/bin/bash
# Installs Debian 12 into memory and becomes its systemd. $1 is where, $2 the machine's cgroup. Runs in mount and PID
# namespaces of its own, so that all of it is gone when it ends, however it ends. The network is ours.
set -euo pipefail
echo 0 >"$2/cgroup.procs"
mount --make-rprivate /
mount -t tmpfs -o mode=755,size=2g tmpfs "$1"
# What Debian's own images have, and what Ansible needs of a host.
mmdebstrap --mode=root --variant=apt --include=python3,python3-apt,systemd --skip=cleanup/apt/lists \
    --dpkgopt=force-unsafe-io --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    bookworm "$1" http://deb.debian.org/debian
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys # the kernel's settings are ours too
mount -t sysfs -o ro sysfs sys
for directory in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs $directory; done
chmod 1777 tmp
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
# Shared, as systemd has it on a host: else it cannot hand credentials to a unit.
exec unshare --cgroup bash -c 'mount -t cgroup2 cgroup2 sys/fs/cgroup && pivot_root . mnt && umount --lazy /mnt &&
    mount --make-rshared / &&
    exec chroot . /usr/bin/env -i container=test PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system --log-target=console'
