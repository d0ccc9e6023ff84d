# The first process of a machine of the lab: DISK HOSTNAME [FROM TO]...
# It runs in mount, process and UTS namespaces of its own, in the network namespace of its host.
set -eu
disk=$1
hostname "$2"
shift 2
mkdir -p "$disk/upper" "$disk/work" "$disk/root"
r=$disk/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$r" || {
    echo "the file system of $disk cannot be the upper layer of an overlay: give the lab a directory on ext4, xfs or tmpfs"
    exit 1
}
mount --rbind /dev "$r/dev"
mount -t proc proc "$r/proc"
mount -t sysfs sysfs "$r/sys"
mount -t tmpfs -o mode=755 tmpfs "$r/run"
mkdir -p "$r/run/lock"
# The lab has its hosts file bound over this one, and a bind mount is not part of the lower layer.
cat /etc/hosts > "$r/etc/hosts"
: > "$r/etc/resolv.conf"
hostname > "$r/etc/hostname"
while [ $# -gt 0 ]; do
    mkdir -p "$r$2"
    mount --bind "$1" "$r$2"
    shift 2
done
cp "$disk/setup.sh" "$r/run/setup.sh"
cd "$r"
mkdir -p old
pivot_root . old
umount -l /old
cd /
sh /run/setup.sh
echo "machine ready"
# As the first process it collects the orphans of the others; the shell does so between two rests.
while :; do
    sleep 1 &
    wait $! || :
done
