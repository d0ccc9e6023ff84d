# This host is no longer the server web2 (10.1.0.12), method direct, on eth0.
# For a root shell: `sh -e`. May be run again.

# The VIPs, first of all.
ip addr del 10.1.0.150/32 dev lo 2> /dev/null || true

# The settings of before; an interface that is gone has none.
[ ! -e /run/atm-server.sysctl ] || { sysctl -q -e -p /run/atm-server.sysctl && rm /run/atm-server.sysctl; }
