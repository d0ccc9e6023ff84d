# This host becomes the server web2 (10.1.0.12), method direct, on eth0.
# For a root shell: `sh -e`. May be run again. `--undo` prints the way back, which needs /run/atm-server.sysctl.
# None of the VIPs may be an address of another interface than lo: it would answer ARP for it.

# The settings as they are, once.
if [ ! -e /run/atm-server.sysctl ]; then
  {
    sysctl net/ipv4/conf/all/arp_ignore net/ipv4/conf/all/arp_announce net/ipv4/conf/eth0/arp_ignore net/ipv4/conf/eth0/arp_announce
  } > /run/atm-server.sysctl.new
  mv /run/atm-server.sysctl.new /run/atm-server.sysctl
fi

# No ARP for the VIPs: the ATMs speak for them.
for dev in all eth0; do
  case $(sysctl -n net/ipv4/conf/$dev/arp_ignore) in 1|2|8) ;; *) sysctl -w net/ipv4/conf/$dev/arp_ignore=1 ;; esac
  [ $(sysctl -n net/ipv4/conf/$dev/arp_announce) -ge 2 ] || sysctl -w net/ipv4/conf/$dev/arp_announce=2
done

# The VIPs, last of all.
ip link set lo up
ip addr replace 10.1.0.150/32 dev lo
