#!/bin/sh
# Stands in for ssh: `enter.sh [options] HOST COMMAND ...` runs the command, which a shell reads as under ssh, on a
# virtual host: in its network namespace and under its name. HPCDD_BED is the first part of the namespaces' names.
while [ "${1#-}" != "$1" ]; do shift; done
host=$1
shift
exec ip netns exec "$HPCDD_BED-$host" unshare --uts sh -c 'hostname "$0" && eval "exec $*"' "$host" "$@"
