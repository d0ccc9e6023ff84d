#!/bin/sh
# Stands in for systemd in a machine of the lab: ACTION [--now] UNIT. Starts what the unit's ExecStart says.
set -eu
action=$1
shift
now=
unit=
for word; do
    case $word in
    --now) now=yes ;;
    *) unit=$word ;;
    esac
done
file=/etc/systemd/system/$unit.service
[ -e "$file" ] || file=/usr/lib/systemd/system/$unit.service
[ -e "$file" ] || {
    echo "Unit $unit.service not found." >&2
    exit 5
}
pid_file=/run/$unit.stand-in.pid

start() {
    if [ "$unit" = postfix ]; then
        # Debian's unit only calls that of the instance, which calls these.
        /usr/lib/postfix/configure-instance.sh -
        postfix start </dev/null >/var/log/postfix.start 2>&1
        return
    fi
    command=$(sed -n 's/^ExecStart=//p' "$file")
    # shellcheck disable=SC2086 # words, as systemd has them
    setsid $command </dev/null >>"/var/log/$unit.stand-in.log" 2>&1 &
    echo $! >"$pid_file"
}

stop() {
    if [ "$unit" = postfix ]; then
        postfix stop </dev/null >/dev/null 2>&1 || :
        return
    fi
    [ -e "$pid_file" ] || return 0
    pid=$(cat "$pid_file")
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.05
    done
    kill -9 "$pid"
}

case $action in
enable) [ -z "$now" ] || start ;;
start) start ;;
stop) stop ;;
restart)
    stop
    start
    ;;
*)
    echo "the stand-in knows no $action" >&2
    exit 1
    ;;
esac
