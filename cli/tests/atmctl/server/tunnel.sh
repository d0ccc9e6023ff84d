# This host becomes the server web1 (10.1.0.11), method tunnel, on eth1 with an MTU of 1500 bytes.
# For a root shell: `sh -e`. May be run again. `--undo` prints the way back, which needs /run/atm-server.sysctl.
# None of the VIPs may be an address of another interface than lo: it would answer ARP for it.

# The settings as they are, once.
if [ ! -e /run/atm-server.sysctl ]; then
  {
    sysctl net/ipv4/conf/all/arp_ignore net/ipv4/conf/all/arp_announce net/ipv4/conf/eth1/arp_ignore net/ipv4/conf/eth1/arp_announce net/ipv4/conf/all/rp_filter
    sysctl -a -r '^net\.ipv4\.conf\..*\.rp_filter$' 2> /dev/null
  } > /run/atm-server.sysctl.new
  mv /run/atm-server.sysctl.new /run/atm-server.sysctl
fi

# No ARP for the VIPs: the ATMs speak for them.
for dev in all eth1; do
  case $(sysctl -n net/ipv4/conf/$dev/arp_ignore) in 1|2|8) ;; *) sysctl -w net/ipv4/conf/$dev/arp_ignore=1 ;; esac
  [ $(sysctl -n net/ipv4/conf/$dev/arp_announce) -ge 2 ] || sysctl -w net/ipv4/conf/$dev/arp_announce=2
done

# No reverse path filter on `all`, which would hold for the tunnel; each interface that had it from there gets it itself.
strict=$(sysctl -n net/ipv4/conf/all/rp_filter)
for filter in /proc/sys/net/ipv4/conf/*/rp_filter; do
  case $filter in */atmtun[01]/*) continue ;; esac
  [ $(cat $filter) -ge $strict ] || echo $strict > $filter
done
sysctl -w net/ipv4/conf/all/rp_filter=0

# What comes through the tunnel is unpacked by the kernel.
ip link show dev atmtun0 > /dev/null 2>&1 || ip link add atmtun0 type ipip local 10.1.0.11
ip link set atmtun0 mtu 1480
sysctl -w net/ipv4/conf/atmtun0/rp_filter=0
sysctl -w net/ipv6/conf/atmtun0/addr_gen_mode=1
sysctl -w net/ipv6/conf/atmtun0/accept_dad=0
sysctl -w net/ipv6/conf/atmtun0/accept_ra=0
sysctl -w net/ipv6/conf/atmtun0/disable_ipv6=0
ip link show dev atmtun1 > /dev/null 2>&1 || ip link add atmtun1 type sit local 10.1.0.11
ip link set atmtun1 mtu 1480
sysctl -w net/ipv4/conf/atmtun1/rp_filter=0
sysctl -w net/ipv6/conf/atmtun1/addr_gen_mode=1
sysctl -w net/ipv6/conf/atmtun1/accept_dad=0
sysctl -w net/ipv6/conf/atmtun1/accept_ra=0
sysctl -w net/ipv6/conf/atmtun1/disable_ipv6=0

# Segments of answers fit the tunnel, and it takes packets from ATMs to VIPs only.
nft -f - << 'END'
table inet atm_server
delete table inet atm_server
table inet atm_server {
  set vips {
    type ipv4_addr
    elements = { 10.1.0.100 }
  }
  set vips6 {
    type ipv6_addr
    elements = { 2001:db8::100 }
  }
  chain output {
    type filter hook output priority mangle; policy accept;
    ip saddr @vips tcp flags & (syn|ack) == syn|ack tcp option maxseg size > 1440 tcp option maxseg size set 1440
    ip6 saddr @vips6 tcp flags & (syn|ack) == syn|ack tcp option maxseg size > 1420 tcp option maxseg size set 1420
  }
  counter inner_destination { }
  counter outer_source { }
  set atms {
    type ipv4_addr
    elements = { 10.1.0.1, 10.1.0.2 }
  }
  chain tunnel {
    type filter hook prerouting priority raw; policy accept;
    ip protocol { 4, 41 } ip saddr != @atms counter name outer_source drop
    iifname { "atmtun0", "atmtun1" } ip daddr != @vips counter name inner_destination drop
    iifname { "atmtun0", "atmtun1" } ip6 daddr != @vips6 counter name inner_destination drop
  }
}
END
ip link set atmtun0 up
ip link set atmtun1 up

# The VIPs, last of all.
ip link set lo up
ip addr replace 10.1.0.100/32 dev lo
ip addr replace 2001:db8::100/128 dev lo nodad preferred_lft 0
