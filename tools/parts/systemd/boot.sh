#!/bin/sh
# Becomes the first process of a machine: `boot.sh FOLDER NAME` in a mount, pid and cgroup namespace of its own.
# FOLDER has base, upper, work and root; FOLDER/hierarchies names each `type options path` of the cgroups.
set -eu
folder=$1 name=$2 root=$1/root
mount -t overlay overlay -o "lowerdir=$folder/base,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${number%:*}" "$root/dev/${number#*:}"; done
while read -r type options path; do
    # The kernel shows a namespace its own part of each hierarchy.
    [ "$path" = /sys/fs/cgroup ] || [ -d "$root/sys/fs/cgroup/systemd" ] || mountpoint -q "$root/sys/fs/cgroup" ||
        mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    mkdir -p "$root$path"
    mount -t "$type" -o "$options" cgroup "$root$path"
done <"$folder/hierarchies"
mkdir -p "$root/srv/shared" "$root/before"
mount --bind "$folder/../shared" "$root/srv/shared"
hostname "$name"
cd "$root"
pivot_root . before
umount -l /before
rmdir /before
# Credentials come to a unit by a mount that is made beside it.
mount --make-rshared /
exec env -i container=tides-lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
