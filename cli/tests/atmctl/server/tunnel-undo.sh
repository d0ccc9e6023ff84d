# This host is no longer the server web1 (10.1.0.11), method tunnel, on eth1 with an MTU of 1500 bytes.
# For a root shell: `sh -e`. May be run again.

# The VIPs, first of all.
ip addr del 10.1.0.100/32 dev lo 2> /dev/null || true
ip addr del 2001:db8::100/128 dev lo 2> /dev/null || true

# The tunnel.
ip link del atmtun0 2> /dev/null || true
ip link del atmtun1 2> /dev/null || true
nft -f - << 'END'
table inet atm_server
delete table inet atm_server
END

# The settings of before; an interface that is gone has none.
[ ! -e /run/atm-server.sysctl ] || { sysctl -q -e -p /run/atm-server.sysctl && rm /run/atm-server.sysctl; }
